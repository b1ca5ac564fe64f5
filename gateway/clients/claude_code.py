"""Claude Code: where its settings are, what must stand in them for a gateway's models, and how it is launched so.

Pure but for reading the environment it is given. Figures and names were seen with versions 2.1.197 and 2.1.330.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from gateway.clients.edits import Include, Put, Wish
from gateway.clients.target import Roles, Target, print_key_command, refuse_if_too_small

NAME = "claude-code"
PROGRAM = "claude"
PACKAGE = "@anthropic-ai/claude-code"
PROMPT = 21_000  # tokens it sends before the first word, with all tools
LEAN_PROMPT = 4_000  # with Bash, Edit, Read and Write only
NEEDED = 32_768
LEAN_NEEDED = 12_288
# It compacts when fewer than this, and the room for an answer, are left; and then asks the model for a summary.
COMPACTION_MARGIN = 13_000
ROOM_TO_WORK = 8_000
# Everything else that both versions send, headless or not; a denied tool is not sent at all.
DENIED_WHEN_LEAN = (
    *("Agent", "AskUserQuestion", "CronCreate", "CronDelete", "CronList", "EnterPlanMode", "EnterWorktree"),
    *("ExitPlanMode", "ExitWorktree", "Glob", "Grep", "LSP", "ListAgents", "Monitor", "NotebookEdit"),
    *("ReportFindings", "ScheduleWakeup", "SendMessage", "Skill", "TaskCreate", "TaskGet", "TaskList", "TaskOutput"),
    *("TaskStop", "TaskUpdate", "TodoWrite", "WebFetch", "WebSearch", "Workflow"),
)
CREDENTIALS = ("ANTHROPIC_API_KEY", "ANTHROPIC_AUTH_TOKEN")


def settings_path(scope: str, project: Path, environment: Mapping[str, str], home: Path) -> Path:
    """`user`: the settings of all projects; `project`: those of this folder that are not committed."""
    if scope == "project":
        return project / ".claude" / "settings.local.json"
    own = environment.get("CLAUDE_CONFIG_DIR")
    return (Path(own).expanduser() if own else home / ".claude") / "settings.json"


def check(roles: Roles, *, lean: bool) -> None:
    """Raise ToolkitError if a model's context is too small for what Claude Code sends."""
    for model in dict.fromkeys(roles):
        if lean:
            refuse_if_too_small("Claude Code", model, LEAN_PROMPT, LEAN_NEEDED, None)
        else:
            refuse_if_too_small("Claude Code", model, PROMPT, NEEDED, LEAN_NEEDED)


def environment(target: Target, roles: Roles, *, lean: bool, shadowed: Sequence[str] = ()) -> dict[str, str]:
    """The variables Claude Code is to run with. Each is explained in docs/claude-code.md.

    `shadowed` are credentials set elsewhere that would be used in place of ours.
    """
    env = {
        "ANTHROPIC_BASE_URL": target.url,
        "ANTHROPIC_MODEL": roles.main.name,
        "ANTHROPIC_DEFAULT_OPUS_MODEL": roles.opus.name,
        "ANTHROPIC_DEFAULT_SONNET_MODEL": roles.sonnet.name,
        "ANTHROPIC_DEFAULT_HAIKU_MODEL": roles.haiku.name,
        "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
        "CLAUDE_CODE_DISABLE_EXPERIMENTAL_BETAS": "1",
    }
    env |= dict.fromkeys(shadowed, "")
    if target.key_file is None:
        env["ANTHROPIC_AUTH_TOKEN"] = "none"  # noqa: S105  a word that says there is no key; it must be there
    if any(model.local for model in roles):
        env |= {"CLAUDE_CODE_ATTRIBUTION_HEADER": "0", "CLAUDE_CODE_DISABLE_THINKING": "1"}
    contexts = [model.context for model in roles if model.context is not None]
    if contexts:
        # One number for all roles: the smallest, or the smallest model would be sent more than it holds.
        context, answer = min(contexts), min(model.answer for model in roles)
        env |= {"CLAUDE_CODE_MAX_CONTEXT_TOKENS": str(context), "CLAUDE_CODE_MAX_OUTPUT_TOKENS": str(answer)}
        prompt = LEAN_PROMPT if lean else PROMPT
        if context - answer - COMPACTION_MARGIN < prompt + ROOM_TO_WORK:
            env["DISABLE_AUTO_COMPACT"] = "1"
    return env


def wishes(env: Mapping[str, str], target: Target, *, lean: bool) -> list[Wish]:
    """What is to stand in the settings file."""
    wanted: list[Wish] = [Put(("env", name), value) for name, value in env.items()]
    if target.key_file is not None:
        wanted.append(Put(("apiKeyHelper",), print_key_command(target.key_file)))
    if lean:
        wanted.append(Include(("permissions", "deny"), DENIED_WHEN_LEAN))
    return wanted


def shadowed(text: str | None, shell: Mapping[str, str]) -> list[str]:
    """The credentials in the settings or in the shell that Claude Code would use in place of ours."""
    from gateway.clients import jsonc

    node = jsonc.parse(text).find(("env",)) if text and text.strip() else None
    own = node.value if node is not None and isinstance(node.value, dict) else {}
    return [name for name in CREDENTIALS if own.get(name) or shell.get(name)]


def launch(
    program: str, env: Mapping[str, str], target: Target, arguments: Sequence[str], *, lean: bool
) -> tuple[list[str], dict[str, str]]:
    """The command for one run that touches no file, and the variables to add for it."""
    settings: dict[str, Any] = {"env": dict(env)}
    if target.key_file is not None:
        settings["apiKeyHelper"] = print_key_command(target.key_file)
    if lean:
        settings["permissions"] = {"deny": list(DENIED_WHEN_LEAN)}
    return [program, "--settings", json.dumps(settings), *arguments], {}
