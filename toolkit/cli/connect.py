"""`toolkit connect`: point a client at the gateway, show what was changed, and undo it."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from toolkit.cli.output import Config, Json, Output, Quiet
from toolkit.core.errors import ToolkitError, UsageError

if TYPE_CHECKING:
    from gateway.clients.config_file import Change, Entry, Wishes
    from gateway.clients.edits import Wish
    from gateway.clients.target import Roles, Target

app = typer.Typer(
    no_args_is_help=True, rich_markup_mode=None, help="Point Claude Code or OpenCode at the gateway, and undo it."
)

ModelName = Annotated[str | None, typer.Option(help="Model for the work; may be left out where there is only one.")]
SmallModel = Annotated[str | None, typer.Option(help="Model for what is small and often; default: the main one.")]
Opus = Annotated[str | None, typer.Option(help="Model behind Claude Code's name opus.")]
Sonnet = Annotated[str | None, typer.Option(help="Model behind Claude Code's name sonnet.")]
Haiku = Annotated[str | None, typer.Option(help="Model behind Claude Code's name haiku, which subagents use.")]
Budget = Annotated[str | None, typer.Option(help="What the client's key may spend, for example 5usd.")]
Reset = Annotated[str | None, typer.Option(help="When its budget starts anew: 1d, 7d, 30d, 1mo, never.")]
Scope = Annotated[str, typer.Option(help="user: everywhere; project: in this folder, in a file that is not committed.")]
Lean = Annotated[bool, typer.Option("--lean", help="Few tools: a prompt that small contexts hold.")]
Direct = Annotated[str | None, typer.Option(help="Without a gateway: at a running ollama or lmstudio.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, and change nothing.")]

GATEWAY = "gateway"  # what an entry of the journal is for; MCP servers have entries of their own


class Wanted(NamedTuple):
    """What was asked for on the command line, for both clients."""

    client: str
    model: str | None
    small_model: str | None = None
    opus: str | None = None
    sonnet: str | None = None
    haiku: str | None = None
    budget: str | None = None
    reset: str | None = None
    direct: str | None = None
    config: Path | None = None


@app.command(name="claude-code")
def claude_code(
    model: ModelName = None,
    small_model: SmallModel = None,
    opus: Opus = None,
    sonnet: Sonnet = None,
    haiku: Haiku = None,
    budget: Budget = None,
    reset: Reset = None,
    scope: Scope = "user",
    lean: Lean = False,
    direct: Direct = None,
    dry_run: DryRun = False,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Point Claude Code at the gateway's models."""
    from gateway.clients import claude_code as client

    out = Output(json=json, quiet=quiet)
    path = client.settings_path(scope_named(scope), Path.cwd(), os.environ, Path.home())
    wanted = Wanted(client.NAME, model, small_model, opus, sonnet, haiku, budget, reset, direct, config)
    target, roles = resolved(wanted)
    client.check(roles, lean=lean)

    def wishes(text: str | None) -> "list[Wish]":
        env = client.environment(target, roles, lean=lean, shadowed=client.shadowed(text, os.environ))
        return client.wishes(env, target, lean=lean)

    _connect(out, wanted, path, wishes, _about(target, roles, scope, lean=lean, direct=direct), dry_run=dry_run)


@app.command()
def opencode(
    model: ModelName = None,
    small_model: SmallModel = None,
    budget: Budget = None,
    reset: Reset = None,
    scope: Scope = "user",
    lean: Lean = False,
    direct: Direct = None,
    dry_run: DryRun = False,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Point OpenCode at all of the gateway's models; once more after a new model."""
    from gateway.clients import opencode as client

    out = Output(json=json, quiet=quiet)
    path = client.settings_path(scope_named(scope), Path.cwd(), os.environ, Path.home())
    wanted = Wanted(client.NAME, model, small_model, budget=budget, reset=reset, direct=direct, config=config)
    target, roles = resolved(wanted)
    client.check(roles, lean=lean)

    def wishes(text: str | None) -> "list[Wish]":
        return client.wishes(text, target, roles, lean=lean)

    _connect(out, wanted, path, wishes, _about(target, roles, scope, lean=lean, direct=direct), dry_run=dry_run)


@app.command()
def status(json: Json = False, quiet: Quiet = False) -> None:
    """What is connected, where it is written, and whether it still holds."""
    from gateway.clients.config_file import entries, still_holds
    from gateway.supervisor import running

    out = Output(json=json, quiet=quiet)
    gateway = running()
    found = []
    for entry in entries():
        state = "connected" if still_holds(entry) else "changed since by hand"
        url = entry.about.get("url")
        if entry.what == GATEWAY and not entry.about.get("direct") and state == "connected":
            if gateway is None:
                state = "the gateway is not running: toolkit gateway up"
            elif gateway.url != url:
                state = f"the gateway moved to {gateway.url}: toolkit connect {entry.client}"
            elif gateway.model(entry.about["model"]) is None:
                state = f"{entry.about['model']} is no longer served: toolkit connect {entry.client}"
        found.append({"client": entry.client, "what": entry.what, "path": entry.path, "state": state, **entry.about})
    rows = [(row["client"], row["what"], row.get("model", ""), row["state"], row["path"]) for row in found]
    table = out.table(
        ("CLIENT", "WHAT", "MODEL", "STATE", "FILE"), rows, empty="nothing is connected: toolkit connect claude-code"
    )
    out.result(found, human=table, quiet=[f"{row['client']} {row['what']}" for row in found])


@app.command()
def undo(
    client: Annotated[str, typer.Argument(help="claude-code or opencode.")],
    scope: Annotated[str | None, typer.Option(help="Only user or project; default: all that was connected.")] = None,
    dry_run: DryRun = False,
    config: Config = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Take back what connect changed for a client, and its key; what was edited by hand since stays."""
    from gateway.clients import client_key
    from gateway.clients.config_file import entries

    out = Output(json=json, quiet=quiet)
    client = _client(client)
    mine = [entry for entry in entries() if entry.client == client and entry.what == GATEWAY]
    if scope is not None:
        mine = [entry for entry in mine if entry.about.get("scope") == scope_named(scope)]
    if not mine:
        raise ToolkitError(f"{client} is not connected", hint="toolkit connect status")
    undone = take_back(out, list(reversed(mine)), dry_run=dry_run)
    others = [entry for entry in entries() if entry.client == client and entry.what == GATEWAY]
    if not (dry_run or others or all(entry.about.get("direct") for entry in mine)):
        with _store(config) as store:
            client_key.drop(store, client)
    out.result(undone, human=None, quiet=[row["path"] for row in undone])


@app.command(name="env")
def exports(
    model: ModelName = None,
    shell: Annotated[str, typer.Option(help="sh (bash, zsh), fish or powershell.")] = "sh",
    budget: Budget = None,
    reset: Reset = None,
    direct: Direct = None,
    config: Config = None,
    json: Json = False,
) -> None:
    """Print the exports for any other OpenAI or Anthropic client: eval "$(toolkit connect env)"."""
    from gateway.clients.exports import lines

    out = Output(json=json)
    wanted = Wanted("env", model, budget=budget, reset=reset, direct=direct, config=config)
    target = target_of(wanted)
    chosen = target.model(model).name if model or len(target.models) == 1 else None
    make_key(wanted, out)
    written = lines(target, chosen, shell)
    document = {"url": target.url, "model": chosen, "key_file": target.key_file}
    out.result(document, human="\n".join(written))


def resolved(wanted: Wanted) -> "tuple[Target, Roles]":
    """Where to point the client and at which models. Makes no key: `make_key` does."""
    from gateway.clients.direct import refuse_if_unknown
    from gateway.clients.target import roles

    target = target_of(wanted)
    chosen = roles(target, wanted.model, wanted.small_model, opus=wanted.opus, sonnet=wanted.sonnet, haiku=wanted.haiku)
    if wanted.direct:
        for model in dict.fromkeys(chosen):
            refuse_if_unknown(model, wanted.direct)
    return target, chosen


def target_of(wanted: Wanted) -> "Target":
    """The running gateway (or `--direct` server) with its models, and where the client's key is or will be."""
    from gateway.clients import client_key
    from gateway.clients.direct import direct_target
    from gateway.clients.target import Model, Target
    from gateway.settings import load_settings
    from gateway.supervisor import running

    if wanted.direct:
        if wanted.budget:
            raise UsageError("without a gateway there is no budget", hint="drop --budget or --direct")
        return direct_target(wanted.direct, load_settings(wanted.config))
    gateway = running()
    if gateway is None:
        raise ToolkitError("no gateway is running", hint="toolkit gateway up")
    models = tuple(
        Model(model.name, model.context, model.max_output, model.local, model.upstream, model.trained)
        for model in gateway.models
    )
    return Target(gateway.url, models, client_key.key_path(wanted.client))


def make_key(wanted: Wanted, out: Output) -> None:
    """Make the client's virtual key, or see that the one there can be used; say it if that one's limits change."""
    from gateway.clients import client_key
    from gateway.keys.periods import parse_period
    from toolkit.core.units import parse_money

    if wanted.direct:
        return
    limits: dict[str, Any] = {}
    if wanted.budget:
        limits["budget_nano"] = parse_money(wanted.budget)
    if wanted.reset:
        limits["period"] = parse_period(wanted.reset)
    with _store(wanted.config) as store:
        key = client_key.ensure(store, wanted.client, **limits)
    if limits and not key.made:
        named = (("budget", wanted.budget), ("reset", wanted.reset))
        changed = ", ".join(f"{name} {value}" for name, value in named if value)
        out.note(f"the key {wanted.client} was there already; changed: {changed} (toolkit keys show {wanted.client})")


def take_back(out: Output, entries: "Sequence[Entry]", *, dry_run: bool) -> list[dict[str, Any]]:
    """Undo these entries, showing each diff; say what stays because it was changed by hand."""
    from gateway.clients.config_file import commit, forget, refuse_if_read_only, reverted

    undone = []
    for entry in entries:
        change = reverted(entry)
        refuse_if_read_only(change.path)
        _show(out, change)
        if change.left:
            out.warn(f"{change.path}: changed by hand since, so it stays: {', '.join(change.left)}")
        if not dry_run:
            commit(change)
            forget(entry)
        undone.append({"client": entry.client, "what": entry.what, "path": entry.path, "left": list(change.left)})
    return undone


def put_in_place(
    out: Output,
    client: str,
    what: str,
    path: Path,
    wishes: "Wishes",
    about: dict[str, Any],
    *,
    dry_run: bool,
    before: Callable[[], None] | None = None,
) -> dict[str, Any]:
    """Fulfil `wishes` in `path`: show the diff, do what must be done `before`, write."""
    from gateway.clients.config_file import commit, planned, refuse_if_read_only

    refuse_if_read_only(path)
    change = planned(client, what, path, wishes, about)
    _show(out, change)
    backup = None
    if not dry_run:
        if before is not None:
            before()
        backup = commit(change)
    return {"client": client, "what": what, "path": path, "backup": backup, "diff": change.diff(), **about}


def _connect(
    out: Output, wanted: Wanted, path: Path, wishes: "Wishes", about: dict[str, Any], *, dry_run: bool
) -> None:
    client = wanted.client
    done = put_in_place(
        out, client, GATEWAY, path, wishes, about, dry_run=dry_run, before=lambda: make_key(wanted, out)
    )
    if dry_run:
        said = "nothing was changed (--dry-run)"
    else:
        kept = f"; as it was: {done['backup']}" if done["backup"] else ""
        said = f"{client} uses {about['model']} at {about['url']}{kept}\nundo: toolkit connect undo {client}"
    out.result(done, human=said, quiet=str(path))


def _show(out: Output, change: "Change") -> None:
    diff = change.diff().rstrip("\n")
    if not out.json:
        out.note(diff or f"{change.path}: nothing to change")


def _about(target: "Target", roles: "Roles", scope: str, *, lean: bool, direct: str | None) -> dict[str, Any]:
    return {
        "scope": scope,
        "url": target.url,
        "model": roles.main.name,
        "small_model": roles.small.name,
        "context": roles.main.context,
        "lean": lean,
        "direct": direct,
        "key_file": str(target.key_file) if target.key_file else None,
    }


def _store(config: Path | None) -> Any:
    from gateway.keys.store import open_store
    from gateway.settings import load_settings

    return open_store(load_settings(config).keys.url)


def _client(name: str) -> str:
    if name not in ("claude-code", "opencode"):
        raise UsageError(
            f"there is no client {name}; there are claude-code and opencode", hint="toolkit connect status"
        )
    return name


def scope_named(name: str) -> str:
    """`name`, if it is a scope. Raises UsageError."""
    if name not in ("user", "project"):
        raise UsageError(f"--scope is user or project, not {name}", hint="--scope user")
    return name
