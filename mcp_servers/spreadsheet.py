"""The `spreadsheet` server: CSV, XLSX and SQLite files under allowed folders as tables.

What a table is in each format, `tables` knows; this file says what a model may do with them.
"""

import argparse
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from mcp.types import ToolAnnotations
from pydantic import BaseModel, Field

from mcp_servers.google_sheets import Account, Book, books
from mcp_servers.guard import Folders, add_folder_options, folder_options
from mcp_servers.server import AtMost, ToolServer
from mcp_servers.tables import Cell, Limits, Tables
from toolkit.core.errors import UsageError

File = Annotated[str, Field(description="Path of the file, for example sales.csv."), AtMost(1024)]
Sheet = Annotated[str, Field(description="Name of the sheet or table; empty for the first."), AtMost(200, least=0)]


class SheetInfo(BaseModel):
    """One table of a file."""

    sheet: str
    columns: list[str]
    rows: int


class FileInfo(BaseModel):
    """One spreadsheet file."""

    file: str
    format: str
    bytes: int
    sheets: list[SheetInfo] = Field(description="Filled when a single file is asked for.")


class Listing(BaseModel):
    """The spreadsheets there are."""

    files: list[FileInfo]
    truncated: bool


class Rows(BaseModel):
    """Rows of a table or of an answer."""

    columns: list[str]
    rows: list[list[Cell]]
    total: int | None = Field(description="Rows of the whole table; null where not counted.")
    truncated: bool = Field(description="Whether there are more rows than these.")


class Changed(BaseModel):
    """What was written."""

    file: str
    sheet: str
    rows: int = Field(description="How many rows were changed or added.")
    total: int = Field(description="Rows of the table now.")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The flags of `toolkit mcp run spreadsheet`."""
    add_folder_options(parser)
    parser.add_argument(
        "--google-sheet", action="append", default=[], metavar="NAME=ID", help="a spreadsheet of Google's, repeatable"
    )
    parser.add_argument(
        "--google-credentials",
        metavar="FILE",
        help="key file of a service account (default: GOOGLE_APPLICATION_CREDENTIALS)",
    )


def build(options: argparse.Namespace) -> ToolServer:
    """The server for parsed flags. Raises UsageError for a folder that cannot be allowed."""
    roots = folder_options(options.root, server="spreadsheet")
    if not options.google_sheet:
        return make(roots, read_only=options.read_only)
    key_file = options.google_credentials or os.environ.get("GOOGLE_APPLICATION_CREDENTIALS")
    if not key_file:
        raise UsageError("Google Sheets needs the key file of a service account", hint="--google-credentials FILE")
    account = Account(Path(key_file).expanduser())
    return make(roots, read_only=options.read_only, remote=books(account, options.google_sheet))


def make(
    roots: list[Path], *, read_only: bool = False, limits: Limits | None = None, remote: Sequence[Book] = ()
) -> ToolServer:
    """The server over allowed folders and spreadsheets of Google's."""
    tables = Tables(Folders(roots), limits or Limits(), remote)
    server = ToolServer("spreadsheet", f"Spreadsheets under {', '.join(str(root) for root in roots)}.")
    reads = ToolAnnotations(read_only_hint=True, destructive_hint=False, idempotent_hint=True, open_world_hint=False)

    @server.tool(
        title="List spreadsheets",
        description=(
            "List the CSV, XLSX and SQLite files that can be used, or the sheets and columns of one of them. Use it "
            "to find out names before reading or querying."
        ),
        annotations=reads,
    )
    def list_spreadsheets(
        path: Annotated[str, Field(description="A folder or one file."), AtMost(1024)] = ".",
    ) -> Listing:
        found, truncated = tables.files(path)
        return Listing(
            files=[
                FileInfo(
                    file=file.name,
                    format=file.format,
                    bytes=file.size,
                    sheets=[SheetInfo(sheet=s.name, columns=s.columns, rows=s.rows) for s in file.sheets],
                )
                for file in found
            ],
            truncated=truncated,
        )

    @server.tool(
        title="Read a spreadsheet",
        description=(
            "Read rows of a CSV, XLSX or SQLite file as they stand. Use it to look at data; to count, filter or sum "
            "use query_spreadsheet."
        ),
        annotations=reads,
    )
    def read_spreadsheet(
        file: File,
        sheet: Sheet = "",
        first_row: Annotated[int, Field(description="First row to return; row 1 follows the header.", ge=1)] = 1,
        rows: Annotated[int, Field(description="How many rows to return, 1 to 500.", ge=1, le=500)] = 50,
    ) -> Rows:
        answer = tables.read(file, sheet, first_row, rows)
        return Rows(columns=answer.columns, rows=answer.rows, total=answer.total, truncated=answer.truncated)

    @server.tool(
        title="Query a spreadsheet",
        description=(
            "Query a CSV, XLSX or SQLite file with a read-only SQL SELECT, each sheet being a table. Use it to "
            "filter, count, sum, join or sort rows of a spreadsheet."
        ),
        annotations=reads,
    )
    def query_spreadsheet(
        file: File,
        sql: Annotated[
            str,
            Field(description="One SELECT in SQLite's dialect. A CSV file's table is named `data`."),
            AtMost(20_000),
        ],
    ) -> Rows:
        answer = tables.query(file, sql)
        return Rows(columns=answer.columns, rows=answer.rows, total=answer.total, truncated=answer.truncated)

    if read_only:
        return server

    @server.tool(
        title="Append rows",
        description=(
            "Add rows at the end of a CSV, XLSX or SQLite table, each given as an object from column name to value. "
            "Nothing is written if a column does not exist."
        ),
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=False, idempotent_hint=False, open_world_hint=False
        ),
    )
    def append_rows(
        file: File,
        rows: Annotated[list[dict[str, Any]], Field(description="Rows as objects: column name to value.")],
        sheet: Sheet = "",
    ) -> Changed:
        done = tables.append(file, sheet, rows)
        return Changed(file=file, sheet=done.sheet, rows=done.rows, total=done.total)

    @server.tool(
        title="Update rows",
        description=(
            "Change cells in every row of a CSV, XLSX or SQLite table whose columns equal the given values. Refused "
            "where no row matches; the file is replaced whole or not at all."
        ),
        annotations=ToolAnnotations(
            read_only_hint=False, destructive_hint=True, idempotent_hint=True, open_world_hint=False
        ),
    )
    def update_rows(
        file: File,
        where: Annotated[dict[str, Any], Field(description="Column name to the value a row must have there.")],
        values: Annotated[dict[str, Any], Field(description="Column name to the new value.")],
        sheet: Sheet = "",
    ) -> Changed:
        done = tables.update(file, sheet, where, values)
        return Changed(file=file, sheet=done.sheet, rows=done.rows, total=done.total)

    return server
