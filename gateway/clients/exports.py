"""The environment that points any OpenAI or Anthropic client at a gateway, in the words of a shell. Pure.

The key is read from its file when the lines are run, so that no secret is printed.
"""

import shlex
from pathlib import Path

from gateway.clients.target import Target
from toolkit.core.errors import UsageError

SHELLS = ("sh", "fish", "powershell")


def lines(target: Target, model: str | None, shell: str) -> list[str]:
    """One assignment a line, for `sh` (bash, zsh), `fish` or `powershell`. Raises UsageError for another."""
    if shell not in SHELLS:
        raise UsageError(f"--shell is {', '.join(SHELLS)}, not {shell}", hint="--shell sh")
    plain = {"OPENAI_BASE_URL": f"{target.url}/v1", "ANTHROPIC_BASE_URL": target.url}
    if model is not None:
        plain |= {"OPENAI_MODEL": model, "ANTHROPIC_MODEL": model}
    written = [_assigned(name, _quoted(value, shell), shell) for name, value in plain.items()]
    key = _quoted("none", shell) if target.key_file is None else _read(target.key_file, shell)
    return written + [_assigned(name, key, shell) for name in ("OPENAI_API_KEY", "ANTHROPIC_AUTH_TOKEN", "TOOLKIT_KEY")]


def _assigned(name: str, value: str, shell: str) -> str:
    return {"sh": f"export {name}={value}", "fish": f"set -gx {name} {value}"}.get(shell, f"$env:{name} = {value}")


def _quoted(value: str, shell: str) -> str:
    return f"'{value.replace(chr(39), chr(39) * 2)}'" if shell == "powershell" else shlex.quote(value)


def _read(path: Path, shell: str) -> str:
    quoted = _quoted(str(path), shell)
    return {"sh": f'"$(cat {quoted})"', "fish": f"(cat {quoted})"}.get(shell, f"(Get-Content {quoted})")
