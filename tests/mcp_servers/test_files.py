from pathlib import Path
from typing import Any

import pytest
from mcp.client.client import Client

from mcp_servers import files, guard
from mcp_servers.files import make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "project"
    (inside / "src").mkdir(parents=True)
    (inside / "src" / "main.py").write_text("def main():\n    print('hello')\n\n\nmain()\n")
    (inside / "windows.txt").write_bytes(b"\xef\xbb\xbfone\r\ntwo\r\nthree\r\n")
    (inside / "binary.bin").write_bytes(b"\x00\x01\x02")
    (inside / "latin.txt").write_bytes("Köln".encode("latin-1"))
    (inside / "long.txt").write_text("".join(f"line {n}\n" for n in range(1, 3001)))
    return inside


async def ask(folder: Path, tool: str, **arguments: Any) -> Any:
    async with Client(make([folder])) as client:
        return await client.call_tool(tool, arguments)


async def call(folder: Path, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await ask(folder, tool, **arguments)
    assert not answer.is_error, answer.content
    return dict(answer.structured_content)


async def refusal(folder: Path, tool: str, **arguments: Any) -> str:
    answer = await ask(folder, tool, **arguments)
    assert answer.is_error, answer.structured_content
    text = str(answer.content[0].text)
    assert "Error executing" not in text
    return text


async def test_an_edit_changes_the_one_place_and_answers_with_the_diff(folder: Path) -> None:
    done = await call(folder, "edit_file", path="src/main.py", old_text="'hello'", new_text="'goodbye'")
    assert done["diff"] == (
        "--- a/src/main.py\n+++ b/src/main.py\n@@ -1,5 +1,5 @@\n def main():\n"
        "-    print('hello')\n+    print('goodbye')\n \n \n main()\n"
    )
    assert (done["replaced"], done["written"]) == (1, True)
    assert "goodbye" in (folder / "src" / "main.py").read_text()


async def test_a_dry_run_shows_the_diff_and_writes_nothing(folder: Path) -> None:
    before = (folder / "src" / "main.py").read_bytes()
    done = await call(folder, "edit_file", path="src/main.py", old_text="hello", new_text="x", dry_run=True)
    assert "+    print('x')" in done["diff"]
    assert not done["written"]
    assert (folder / "src" / "main.py").read_bytes() == before


async def test_a_text_that_stands_twice_is_not_guessed_at(folder: Path) -> None:
    text = await refusal(folder, "edit_file", path="src/main.py", old_text="main()", new_text="x")
    assert "the text stands 2 times in src/main.py" in text
    done = await call(folder, "edit_file", path="src/main.py", old_text="main()", new_text="x()", replace_all=True)
    assert done["replaced"] == 2


async def test_a_text_that_differs_in_white_space_is_told_with_its_line(folder: Path) -> None:
    text = await refusal(folder, "edit_file", path="src/main.py", old_text="        print('hello')", new_text="x")
    assert "line 2 differs from it in white space" in text
    assert "is not in src/main.py (read the file" in await refusal(
        folder, "edit_file", path="src/main.py", old_text="nowhere at all", new_text="x"
    )


async def test_line_ends_and_the_byte_order_mark_are_kept(folder: Path) -> None:
    await call(folder, "edit_file", path="windows.txt", old_text="one\ntwo", new_text="1\n2")
    assert (folder / "windows.txt").read_bytes() == b"\xef\xbb\xbf1\r\n2\r\nthree\r\n"


async def test_a_new_file_is_written_and_an_old_one_only_when_told(folder: Path) -> None:
    done = await call(folder, "write_file", path="src/new.py", text="x = 1\n")
    assert done["diff"].endswith("@@ -0,0 +1 @@\n+x = 1\n")
    assert "exists already" in await refusal(folder, "write_file", path="src/new.py", text="y")
    done = await call(folder, "write_file", path="src/new.py", text="y = 2\n", overwrite=True)
    assert "-x = 1\n+y = 2\n" in done["diff"]
    assert "there is no folder nowhere" in await refusal(folder, "write_file", path="nowhere/new.py", text="y")
    assert sorted(path.name for path in (folder / "src").iterdir()) == ["main.py", "new.py"]


async def test_a_disk_that_is_full_leaves_the_file_as_it_was(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    before = (folder / "src" / "main.py").read_bytes()
    monkeypatch.setattr(guard.os, "fsync", full)
    text = await refusal(folder, "edit_file", path="src/main.py", old_text="hello", new_text="x")
    assert text == "the system says: No space left on device; nothing was changed"
    assert (folder / "src" / "main.py").read_bytes() == before
    assert [path.name for path in (folder / "src").iterdir()] == ["main.py"]


async def test_a_long_file_is_read_in_pieces(folder: Path) -> None:
    first = await call(folder, "read_file", path="long.txt", lines=2000)
    assert (first["first_line"], first["last_line"], first["total_lines"], first["truncated"]) == (1, 2000, 3000, True)
    rest = await call(folder, "read_file", path="long.txt", first_line=2001, lines=2000)
    assert rest["text"].startswith("line 2001\n")
    assert (rest["last_line"], rest["truncated"]) == (3000, False)
    assert "has only 3000 lines" in await refusal(folder, "read_file", path="long.txt", first_line=3001)


@pytest.mark.parametrize(
    ("path", "reason"),
    [("binary.bin", "holds NUL bytes"), ("latin.txt", "is not UTF-8 text (byte 1)"), ("src", "is a folder")],
)
async def test_what_is_not_text_is_not_read(path: str, reason: str, folder: Path) -> None:
    assert reason in await refusal(folder, "read_file", path=path)


async def test_a_search_finds_texts_and_expressions(folder: Path) -> None:
    found = await call(folder, "search_files", text="print(", pattern="*.py")
    assert found["matches"] == [{"path": "src/main.py", "line": 2, "text": "print('hello')"}]
    expression = await call(folder, "search_files", text=r"^line 29\d\d$", regex=True, path="long.txt")
    assert len(expression["matches"]) == 100
    assert expression["truncated"]
    assert len((await call(folder, "search_files", text="LINE 2999", ignore_case=True))["matches"]) == 1
    assert "the regular expression is wrong" in await refusal(folder, "search_files", text="(", regex=True)


async def test_a_search_in_what_is_not_there_is_told(folder: Path) -> None:
    assert "there is no folder gone" in await refusal(folder, "search_files", text="x", path="gone")


async def test_an_expression_that_backtracks_without_end_is_stopped(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "evil.txt").write_text("a" * 5000 + "!\n")
    monkeypatch.setattr(files, "SEARCH_SECONDS", 0.5)
    text = await refusal(folder, "search_files", text=r"(a|aa)+$", regex=True, pattern="evil.txt")
    assert "took longer than 0.5 s" in text


async def test_the_listing_is_of_one_folder_or_of_all_that_match_below(folder: Path) -> None:
    here = await call(folder, "list_files")
    assert [(entry["path"], entry["folder"]) for entry in here["entries"]] == [
        ("binary.bin", False),
        ("latin.txt", False),
        ("long.txt", False),
        ("src", True),
        ("windows.txt", False),
    ]
    below = await call(folder, "list_files", pattern="*.py")
    assert [entry["path"] for entry in below["entries"]] == ["src/main.py"]
    assert "there is no folder nowhere" in await refusal(folder, "list_files", path="nowhere")


async def test_several_folders_can_be_allowed(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "note.txt").write_text("note\n")
    async with Client(make([folder, other])) as client:
        found = await client.call_tool("read_file", {"path": "note.txt"})
        absolute = await client.call_tool("read_file", {"path": str(other / "note.txt")})
        first = await client.call_tool("read_file", {"path": "src/main.py"})
    assert not any(answer.is_error for answer in (found, absolute, first))


async def test_read_only_offers_no_tool_that_writes(folder: Path) -> None:
    async with Client(make([folder], read_only=True)) as client:
        tools = (await client.list_tools()).tools
    assert {tool.name for tool in tools} == {"list_files", "read_file", "search_files"}
    assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)


async def test_a_long_search_reports_progress(folder: Path) -> None:
    seen: list[float] = []

    async def note(progress: float, total: float | None, message: str | None) -> None:
        seen.append(progress)

    for number in range(450):
        (folder / "src" / f"f{number}.txt").write_text("x\n")
    async with Client(make([folder])) as client:
        await client.call_tool("search_files", {"text": "nothing"}, progress_callback=note)
    assert seen == [200, 400]


@pytest.mark.parametrize(
    "expression",
    [
        "(((a{1000}){1000}){1000}){1000}",
        "(?:a{65535}){65535}",
        ",".join(["a{9999}"] * 9),
        "([(]a{200}){200}",
        "(?R)",
        "a(?1)",
    ],
)
async def test_an_expression_that_grows_without_end_when_it_is_compiled_or_recurses_is_refused(
    folder: Path, expression: str
) -> None:
    assert "use smaller counts" in await refusal(folder, "search_files", text=expression, regex=True)


async def test_an_expression_that_is_nested_too_deep_is_refused(folder: Path) -> None:
    text = await refusal(folder, "search_files", text="(" * 450 + ")" * 450, regex=True)
    assert "the regular expression is wrong" in text


@pytest.mark.parametrize(
    ("expression", "parts"),
    [("abc", 3), ("(?:ab){30}", 60), (r"\(a{50}\)", 52), ("((a{9}){9}){9}", 729), ("[)]x{7}", 10)],
)
def test_counts_are_written_out_before_an_expression_is_compiled(expression: str, parts: int) -> None:
    assert parts <= files.unrolled(expression) <= 2 * parts + 20


async def test_usual_expressions_with_counts_are_searched_for(folder: Path) -> None:
    (folder / "ids.txt").write_text("id 123e4567-e89b-12d3-a456-426614174000 end\n")
    identity = r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}"
    assert len((await call(folder, "search_files", text=identity, regex=True))["matches"]) == 1
