"""Ways out of the allowed folder through the paths that `files` and `spreadsheet` take."""

import os
import socket
import unicodedata
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client

from mcp_servers import files, spreadsheet
from mcp_servers.spreadsheet import Limits as TableLimits

SECRET = "outside,secret\n1,2\n"

# Each is a path as a model might write it. `{outside}` is a folder beside the allowed one, `{inside}` the allowed one.
ATTACKS = {
    "steps up": "../outside/secret.csv",
    "steps up through a folder": "sub/../../outside/secret.csv",
    "steps up at the end": "sub/..",
    "many steps up": "../" * 40 + "etc/passwd",
    "steps up after a dot": "./../outside/secret.csv",
    "steps with double slashes": "sub//..//..//outside/secret.csv",
    "absolute": "{outside}/secret.csv",
    "absolute through the allowed folder": "{inside}/../outside/secret.csv",
    "absolute with a beginning alike": "{inside}-twin/secret.csv",
    "the password file": "/etc/passwd",
    "two slashes first": "//etc/passwd",
    "the home by tilde": "~/secret.csv",
    "another's home by tilde": "~root/secret.csv",
    "tilde inside": "sub/~/secret.csv",
    "a variable of the shell": "$HOME/secret.csv",
    "a URL": "file:///etc/passwd",
    "a URL of a database": "file:secret.db?mode=rwc",
    "percent-encoded steps": "%2e%2e/outside/secret.csv",
    "percent-encoded slash": "..%2foutside%2fsecret.csv",
    "encoded twice": "%252e%252e/outside/secret.csv",
    "overlong UTF-8 read as Latin-1": "\xc0\xae\xc0\xae/outside/secret.csv",
    "fullwidth dots": "．．/outside/secret.csv",
    "two-dot leader": "‥/outside/secret.csv",
    "one-dot leaders": "․․/outside/secret.csv",
    "fullwidth slash": "..／outside／secret.csv",
    "division slash": "..∕outside∕secret.csv",
    "fullwidth backslash": "..＼outside＼secret.csv",
    "backslashes": "..\\outside\\secret.csv",
    "mixed slashes": "sub\\../..\\outside/secret.csv",
    "a drive": "C:\\Windows\\win.ini",
    "a drive with slashes": "C:/Windows/win.ini",
    "a network share": "\\\\server\\share\\secret.csv",
    "a verbatim path of Windows": "\\\\?\\C:\\secret.csv",
    "a stream of a file": "plain.csv:hidden",
    "a stream of a folder": "sub::$INDEX_ALLOCATION/inner.csv",
    "NUL at the end": "plain.csv\0.txt",
    "NUL in a step": "..\0/outside/secret.csv",
    "a line end": "plain.csv\n",
    "a line end inside": "sub/\ninner.csv",
    "a carriage return": "plain.csv\r",
    "a control character": "\x1b[31mplain.csv",
    "a zero-width space": "plain\u200b.csv",
    "a mark that turns the direction": "vsc.\u202enialp",
    "a soft hyphen": "pla\u00adin.csv",
    "a leading dash": "-rf.csv",
    "a leading dash in a folder": "sub/--output=x.csv",
    "a fullwidth dash": "－rf.csv",
    "a trailing dot": "plain.csv.",
    "a trailing space": "plain.csv ",
    "a leading space": " plain.csv",
    "only dots": ".../secret.csv",
    "nothing": "",
    "a very long name": "a" * 300 + ".csv",
    "a very long path": "a/" * 2000 + "x.csv",
    "decomposed letters": unicodedata.normalize("NFD", "grün.csv"),
    "another case": "PLAIN.CSV",
    "another case of a folder": "SUB/inner.csv",
    "a letter that folds to another": "plaın.csv",
    "a hidden file": ".hidden.csv",
    "a repository's own folder": ".git/config.csv",
    "the same in another case": ".GIT/config.csv",
    "the same in fullwidth": "．ｇｉｔ/config.csv",
    "keys of other machines": ".ssh/id_rsa.csv",
    "a link to a file": "link.csv",
    "a link to a folder": "folder-link/secret.csv",
    "a link to itself": "loop.csv",
    "a link that leads nowhere": "dangling.csv",
    "a link inside to a file inside": "inner-link.csv",
    "a pipe": "pipe.csv",
    "a socket": "socket.csv",
    "a folder with a file's name": "folder.csv",
    "a file as a folder": "plain.csv/secret.csv",
    "a device of Windows": "CON.csv",
    "another device of Windows": "sub/nul",
    "a device with a superscript": "COM¹.csv",
    "a device of Linux": "/dev/zero",
    "the process's own files": "/proc/self/environ",
    "the process's own root": "/proc/self/root/etc/passwd",
    "the process's working folder": "/proc/self/cwd/../outside/secret.csv",
    "a descriptor": "/dev/fd/0",
    "a huge file": "huge.csv",
    "what is not there": "missing.csv",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    base = tmp_path_factory.mktemp("p")
    inside, outside, twin = base / "inside", base / "outside", base / "inside-twin"
    for one in (inside / "sub", inside / "folder.csv", inside / ".git", inside / ".ssh", outside, twin):
        one.mkdir(parents=True)
    for one in (outside / "secret.csv", twin / "secret.csv", inside / ".hidden.csv", inside / ".git" / "config.csv"):
        one.write_text(SECRET)
    (inside / "plain.csv").write_text("a,b\n1,2\n")
    (inside / "sub" / "inner.csv").write_text("a,b\n3,4\n")
    (inside / "link.csv").symlink_to(outside / "secret.csv")
    (inside / "folder-link").symlink_to(outside)
    (inside / "loop.csv").symlink_to("loop.csv")
    (inside / "dangling.csv").symlink_to(outside / "created.csv")
    (inside / "inner-link.csv").symlink_to("plain.csv")
    os.mkfifo(inside / "pipe.csv")
    with (inside / "huge.csv").open("wb") as huge:
        huge.truncate(1 << 40)  # a hole: takes no room
    with socket.socket(socket.AF_UNIX) as listener:
        here = Path.cwd()
        os.chdir(inside)  # the path of a socket has at most 108 bytes
        try:
            listener.bind("socket.csv")
        finally:
            os.chdir(here)
        yield inside


@pytest.fixture(scope="module")
def before(folder: Path) -> dict[str, bytes]:
    return everything(folder.parent)


def everything(base: Path) -> dict[str, bytes]:
    """Every file and link below a folder, with what it holds."""
    found = {}
    for path in sorted(base.rglob("*")):
        if path.is_symlink():
            found[str(path)] = str(path.readlink()).encode()
        elif path.is_file():
            found[str(path)] = path.read_bytes() if path.stat().st_size < 1 << 20 else b"huge"
        else:
            found[str(path)] = b""
    return found


CALLS: dict[str, Callable[[str], tuple[str, dict[str, Any]]]] = {
    "read_file": lambda path: ("read_file", {"path": path}),
    "edit_file": lambda path: ("edit_file", {"path": path, "old_text": "secret", "new_text": "gone"}),
    "write_file": lambda path: ("write_file", {"path": path, "text": "x", "overwrite": True}),
    "search_files": lambda path: ("search_files", {"path": path, "text": "secret"}),
    "query_spreadsheet": lambda path: ("query_spreadsheet", {"file": path, "sql": "SELECT * FROM data"}),
    "append_rows": lambda path: ("append_rows", {"file": path, "rows": [{"outside": 1}]}),
}


@pytest.mark.parametrize("attack", ATTACKS)
async def test_no_path_leads_out_of_the_allowed_folder(attack: str, folder: Path, before: dict[str, bytes]) -> None:
    path = ATTACKS[attack].replace("{outside}", str(folder.parent / "outside")).replace("{inside}", str(folder))
    writable = {"missing.csv", "PLAIN.CSV", "plaın.csv", "%2e%2e/outside/secret.csv"}
    async with (
        Client(files.make([folder])) as file_client,
        Client(spreadsheet.make([folder], limits=TableLimits())) as table_client,
    ):
        for name, call in CALLS.items():
            if name == "write_file" and path in writable:
                continue  # names of new files, and rightly so
            client = table_client if name in ("query_spreadsheet", "append_rows") else file_client
            answer = await client.call_tool(*call(path))
            text = str(answer.content)
            if name == "search_files" and not answer.is_error:
                assert answer.structured_content == {"matches": [], "files_searched": 0, "truncated": False}, name
                continue
            assert answer.is_error, f"{name} took {path!r}"
            assert "outside,secret" not in text
            assert "Error executing" not in text, f"{name} crashed on {path!r}"
    assert everything(folder.parent) == before


async def test_listing_and_searching_show_nothing_that_cannot_be_opened(folder: Path) -> None:
    async with Client(files.make([folder])) as client:
        listed = (await client.call_tool("list_files", {})).structured_content
        below = (await client.call_tool("list_files", {"pattern": "*"})).structured_content
        found = (await client.call_tool("search_files", {"text": "secret"})).structured_content
    assert listed is not None
    assert below is not None
    assert found is not None
    assert {entry["path"] for entry in listed["entries"]} == {"folder.csv", "huge.csv", "plain.csv", "sub"}
    assert {entry["path"] for entry in below["entries"]} == {"huge.csv", "plain.csv", "sub/inner.csv"}
    assert found["matches"] == []


@pytest.mark.parametrize(
    "path", ["plain.csv", "./plain.csv", "sub/inner.csv", "{inside}/plain.csv", "{inside}/sub/inner.csv"]
)
async def test_paths_people_mean_are_taken(path: str, folder: Path) -> None:
    async with Client(files.make([folder])) as client:
        answer = await client.call_tool("read_file", {"path": path.replace("{inside}", str(folder))})
    assert not answer.is_error, answer.content


async def test_with_hidden_allowed_a_repository_is_still_closed(folder: Path) -> None:
    async with Client(files.make([folder], hidden=True)) as client:
        hidden = await client.call_tool("read_file", {"path": ".hidden.csv"})
        for path in (".git/config.csv", ".GIT/config.csv", ".ssh/id_rsa"):
            answer = await client.call_tool("read_file", {"path": path})
            assert answer.is_error
            assert "never opened" in str(answer.content)
    assert not hidden.is_error
