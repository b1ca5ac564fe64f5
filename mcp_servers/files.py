"""The `files` server: list, read, search and edit text files under allowed folders.

Which paths are allowed and how a file is exchanged whole, `guard` knows. Nothing is deleted, moved or made
executable here; every change is answered by its diff.
"""

import argparse
import difflib
import fnmatch
import re
import threading
import time
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from anyio import from_thread
from mcp.server.mcpserver import Context
from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field

from mcp_servers.guard import Folders, Place, Refusal, add_folder_options, clip, folder_options
from mcp_servers.server import AtMost, ToolServer
from toolkit.core.units import format_bytes

MAX_FILE = 10 << 20
MAX_TEXT = 2 << 20  # of what is written
SHOWN = 60_000  # characters of one answer
DIFF_SHOWN = 20_000
MAX_ENTRIES = 1000
WALKED = 100_000
SEARCH_SECONDS = 20.0
LINE_SHOWN = 400
LINE_SEARCHED = 100_000  # of a line, by an expression: one that backtracks takes memory for each character
MAX_UNROLLED = 20_000  # parts of an expression once its counts are written out, which is how it is compiled

FilePath = Annotated[str, Field(description="Path of a file, relative to the allowed folder."), AtMost(1024)]


class FileEntry(BaseModel):
    """One file or folder."""

    path: str
    folder: bool
    bytes: int


class FileList(BaseModel):
    """What a folder holds."""

    entries: list[FileEntry]
    truncated: bool


class FileText(BaseModel):
    """Lines of a file."""

    path: str
    text: str
    first_line: int
    last_line: int
    total_lines: int
    truncated: bool = Field(description="Whether lines after last_line were left out.")


class Match(BaseModel):
    """A line that matches."""

    path: str
    line: int
    text: str


class Matches(BaseModel):
    """Lines that match, and whether all files were searched."""

    matches: list[Match]
    files_searched: int
    truncated: bool


class Edit(BaseModel):
    """A change of one file."""

    path: str
    diff: str = Field(description="Unified diff of the change.")
    replaced: int = Field(description="How many places were changed.")
    written: bool = Field(description="False for a dry run or where nothing changed.")


class _Content(NamedTuple):
    text: str
    line_end: str
    mark: bytes


class Editor:
    """Text files below the allowed folders. Every method raises Refusal with what to do instead."""

    def __init__(self, folders: Folders) -> None:
        self.folders = folders
        self._changing = threading.Lock()

    def read(self, place: Place) -> _Content:
        """A UTF-8 file with line ends as `\\n`, and what is needed to write it back as it was."""
        content = self.folders.read(place, limit=MAX_FILE)
        if b"\0" in content:
            raise Refusal(f"{place.name} is not text: it holds NUL bytes", hint="choose a text file")
        mark = b"\xef\xbb\xbf" if content.startswith(b"\xef\xbb\xbf") else b""
        try:
            text = content[len(mark) :].decode("utf-8")
        except UnicodeDecodeError as error:
            raise Refusal(f"{place.name} is not UTF-8 text (byte {error.start})", hint="choose a text file") from None
        crlf = text.count("\r\n")
        if crlf and crlf == text.count("\n"):
            return _Content(text.replace("\r\n", "\n"), "\r\n", mark)
        return _Content(text, "\n", mark)

    def edit(self, path: str, old: str, new: str, *, everywhere: bool, dry_run: bool) -> Edit:
        """Replace `old` by `new`, which must be there once unless `everywhere`."""
        place = self.folders.place(path)
        with self._changing:
            before = self.read(place)
            old, new = old.replace("\r\n", "\n"), new.replace("\r\n", "\n")
            count = before.text.count(old)
            if count == 0:
                raise Refusal(_not_found(place, before.text, old), hint="read the file and copy the text exactly")
            if count > 1 and not everywhere:
                raise Refusal(
                    f"the text stands {count} times in {place.name}",
                    hint="add lines around it so that it stands once, or set replace_all",
                )
            after = before.text.replace(old, new)
            written = after != before.text and not dry_run
            if written:
                self._write(place, after, before, replace=True)
        return Edit(path=place.name, diff=_diff(place, before.text, after), replaced=count, written=written)

    def create(self, path: str, text: str, *, overwrite: bool) -> Edit:
        """Write a whole file; an existing one only with `overwrite`."""
        place = self.folders.place(path)
        with self._changing:
            before = _Content("", "\n", b"")
            if overwrite and self.folders.exists(place):
                before = self.read(place)
            after = text.replace("\r\n", "\n")
            self._write(place, after, before, replace=overwrite)
        return Edit(path=place.name, diff=_diff(place, before.text, after), replaced=1, written=True)

    def _write(self, place: Place, text: str, like: _Content, *, replace: bool) -> None:
        content = like.mark + text.replace("\n", like.line_end).encode("utf-8", "surrogatepass")
        if len(content) > MAX_FILE:
            raise Refusal(f"{place.name} would have {format_bytes(len(content))}", hint="write less")
        self.folders.write(place, content, replace=replace)


def _not_found(place: Place, text: str, old: str) -> str:
    """Why a text is not there: most often its white space differs."""
    loose = " ".join(old.split())
    for number, line in enumerate(text.split("\n"), 1):
        first = next((part for part in old.split("\n") if part.strip()), "")
        if first.strip() and " ".join(first.split()) == " ".join(line.split()) and first != line:
            return f"the text is not in {place.name}; line {number} differs from it in white space"
    if loose and loose in " ".join(text.split()):
        return f"the text is not in {place.name}; it differs in white space or line ends"
    return f"the text is not in {place.name}"


def _diff(place: Place, before: str, after: str) -> str:
    lines = difflib.unified_diff(
        before.splitlines(keepends=True), after.splitlines(keepends=True), f"a/{place.name}", f"b/{place.name}"
    )
    text = "".join(line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines)
    shown, cut = clip(text, DIFF_SHOWN)
    return shown + ("\n... the rest of the diff is left out" if cut else "")


def search(
    folders: Folders, place: Place, wanted: str, *, is_regex: bool, ignore_case: bool, names: str, limit: int, tell: Any
) -> Matches:
    """Lines with `wanted` in the text files below a folder. Bounded in time also against hostile expressions."""
    import regex

    if is_regex and (unrolled(wanted) > MAX_UNROLLED or _RECURSION.search(wanted)):
        raise Refusal(
            "the regular expression recurses, or repeats too much by counts like {1000}",
            hint="use smaller counts, or +",
        )
    try:
        pattern = regex.compile(wanted if is_regex else regex.escape(wanted), regex.IGNORECASE if ignore_case else 0)
    except (regex.error, RecursionError) as error:
        raise Refusal(f"the regular expression is wrong: {error}", hint="escape it, or leave regex off") from None
    reach = LINE_SEARCHED if is_regex else MAX_FILE
    one = folders.is_file(place)
    if not one:
        folders.entries(place)  # refuses what is no folder
    deadline = time.monotonic() + SEARCH_SECONDS
    found: list[Match] = []
    searched = 0
    editor = Editor(folders)
    try:
        for entry in [place] if one else (item.place for item in folders.walk(place, limit=WALKED)):
            if not fnmatch.fnmatchcase(entry.parts[-1], names) and not fnmatch.fnmatchcase(entry.name, names):
                continue
            try:
                text = editor.read(entry).text
            except Refusal:
                continue  # too large, or not text
            searched += 1
            if searched % 200 == 0:
                tell(searched)
            for number, line in enumerate(text.split("\n"), 1):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise TimeoutError
                if pattern.search(line[:reach], timeout=left):
                    found.append(Match(path=entry.name, line=number, text=clip(line.strip(), LINE_SHOWN)[0]))
                    if len(found) == limit:
                        return Matches(matches=found, files_searched=searched, truncated=True)
    except TimeoutError:
        if not found:
            raise Refusal(
                f"the search took longer than {SEARCH_SECONDS:g} s", hint="search a smaller folder or a simpler text"
            ) from None
        return Matches(matches=found, files_searched=searched, truncated=True)
    return Matches(matches=found, files_searched=searched, truncated=False)


_TOKEN = re.compile(r"\\.|\{(\d*)|.", re.DOTALL)
_RECURSION = re.compile(r"\(\?(?:R|&|P>|[+-]?\d)")


def unrolled(expression: str) -> int:
    """How many parts `expression` has at most once `x{3}` is written `xxx`. Takes brackets in a class for groups."""
    open_groups, last = [0], 0
    for token in _TOKEN.finditer(expression):
        if token[0] == "(":
            open_groups.append(0)
        elif token[0] == ")":
            last = open_groups.pop() if len(open_groups) > 1 else open_groups[0]
            open_groups[-1] += last
        elif token[1] is not None:
            more = last * (max(1, int(token[1] or 1)) - 1)
            open_groups[-1], last = open_groups[-1] + more, last + more
        else:
            last = 1
            open_groups[-1] += 1
    return sum(open_groups)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The flags of `toolkit mcp run files`."""
    add_folder_options(parser)
    parser.add_argument("--hidden", action="store_true", help="also allow names that begin with a dot (never .git)")


def build(options: argparse.Namespace) -> ToolServer:
    """The server for parsed flags. Raises UsageError for a folder that cannot be allowed."""
    roots = folder_options(options.root, server="files")
    return make(roots, hidden=options.hidden, read_only=options.read_only)


def make(roots: list[Path], *, hidden: bool = False, read_only: bool = False) -> ToolServer:
    """The server over allowed folders."""
    folders = Folders(roots, hidden=hidden)
    editor = Editor(folders)
    server = ToolServer("files", f"Text files under {', '.join(str(root) for root in roots)}.")
    reads = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)

    @server.tool(
        title="List files",
        description=(
            "List the files and folders in an allowed folder, or with a pattern all files below it whose names match. "
            "Use it to find out what there is."
        ),
        annotations=reads,
    )
    def list_files(
        path: Annotated[str, Field(description="A folder, relative to the allowed one."), AtMost(1024)] = ".",
        pattern: Annotated[
            str, Field(description="For all files below: a pattern such as *.py."), AtMost(255, least=0)
        ] = "",
    ) -> FileList:
        place = folders.place(path)
        entries = []
        truncated = False
        if not pattern:
            listed = folders.entries(place)
            truncated = len(listed) > MAX_ENTRIES
            entries = [
                FileEntry(path=entry.place.name, folder=entry.is_folder, bytes=entry.size)
                for entry in listed[:MAX_ENTRIES]
            ]
        else:
            folders.entries(place)  # refuses what is no folder
            for entry in folders.walk(place, limit=WALKED):
                if fnmatch.fnmatchcase(entry.place.parts[-1], pattern) or fnmatch.fnmatchcase(
                    entry.place.name, pattern
                ):
                    if len(entries) == MAX_ENTRIES:
                        truncated = True
                        break
                    entries.append(FileEntry(path=entry.place.name, folder=False, bytes=entry.size))
        return FileList(entries=entries, truncated=truncated)

    @server.tool(
        title="Read a file",
        description=(
            "Read lines of a UTF-8 text file. Use it before editing, since edit_file needs the exact text; long files "
            "are read on with first_line."
        ),
        annotations=reads,
    )
    def read_file(
        path: FilePath,
        first_line: Annotated[int, Field(description="Line to start at, from 1.", ge=1)] = 1,
        lines: Annotated[int, Field(description="How many lines at most, 1 to 2000.", ge=1, le=2000)] = 500,
    ) -> FileText:
        place = folders.place(path)
        all_lines = editor.read(place).text.split("\n")
        if all_lines and all_lines[-1] == "":
            all_lines.pop()
        if first_line > max(1, len(all_lines)):
            raise Refusal(f"{place.name} has only {len(all_lines)} lines", hint="start at an earlier line")
        shown: list[str] = []
        letters = 0
        for line in all_lines[first_line - 1 : first_line - 1 + lines]:
            letters += len(line) + 1
            if letters > SHOWN:
                break
            shown.append(line)
        if not shown and all_lines:
            shown = [all_lines[first_line - 1][:SHOWN]]  # one line longer than an answer
        last = first_line - 1 + len(shown)
        return FileText(
            path=place.name,
            text="\n".join(shown),
            first_line=first_line,
            last_line=last,
            total_lines=len(all_lines),
            truncated=last < len(all_lines),
        )

    @server.tool(
        title="Search in files",
        description=(
            "Search text files below a folder for a text or a regular expression and return the lines that match. Use "
            "it to find where something is defined or used."
        ),
        annotations=reads,
    )
    def search_files(
        text: Annotated[str, Field(description="What to search for."), AtMost(1000)],
        context: Context[Any, Any],
        path: Annotated[str, Field(description="A folder or file to search."), AtMost(1024)] = ".",
        pattern: Annotated[str, Field(description="Only files whose names match, such as *.py."), AtMost(255)] = "*",
        regex: Annotated[bool, Field(description="Whether text is a regular expression.")] = False,
        ignore_case: Annotated[bool, Field(description="Whether case does not matter.")] = False,
        limit: Annotated[int, Field(description="How many lines at most, 1 to 500.", ge=1, le=500)] = 100,
    ) -> Matches:
        def tell(searched: int) -> None:
            from_thread.run(context.report_progress, searched, None, f"{searched} files searched")

        return search(
            folders,
            folders.place(path),
            text,
            is_regex=regex,
            ignore_case=ignore_case,
            names=pattern,
            limit=limit,
            tell=tell,
        )

    if read_only:
        return server

    @server.tool(
        title="Edit a file",
        description=(
            "Replace a text in a file by another and return the diff. The old text must stand exactly once unless "
            "replace_all is set; the file is exchanged whole or not at all."
        ),
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=False, open_world_hint=False
        ),
    )
    def edit_file(
        path: FilePath,
        old_text: Annotated[str, Field(description="The text to replace, exactly as in the file."), AtMost(MAX_TEXT)],
        new_text: Annotated[str, Field(description="The text to put there; may be empty."), AtMost(MAX_TEXT, least=0)],
        replace_all: Annotated[bool, Field(description="Replace every occurrence.")] = False,
        dry_run: Annotated[bool, Field(description="Only show the diff.")] = False,
    ) -> Edit:
        return editor.edit(path, old_text, new_text, everywhere=replace_all, dry_run=dry_run)

    @server.tool(
        title="Write a file",
        description=(
            "Write a whole new text file and return the diff. Use edit_file to change an existing one; overwrite "
            "replaces it completely. The folder must exist."
        ),
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    )
    def write_file(
        path: FilePath,
        text: Annotated[str, Field(description="The whole content."), AtMost(MAX_TEXT, least=0)],
        overwrite: Annotated[bool, Field(description="Replace an existing file.")] = False,
    ) -> Edit:
        return editor.create(path, text, overwrite=overwrite)

    return server
