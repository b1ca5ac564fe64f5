"""CSV, XLSX and SQLite files as named tables: list, read, query, append, update. Knows nothing of MCP.

CSV and XLSX are read into an SQLite database in memory to be queried. Queries run under SQLite's authorizer
(SELECT and functions, nothing else) with limits on time, steps and rows. Formulas are values here: nothing is
evaluated, and a text that a spreadsheet program would run as a formula is written as text.
"""

import csv
import io
import math
import re
import sqlite3
import threading
import time
import zipfile
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from datetime import time as clock_time
from pathlib import PurePosixPath
from typing import Any, NamedTuple

from mcp_servers.google_sheets import PREFIX, Book, Grid
from mcp_servers.guard import Folders, Place, Refusal

Cell = str | int | float | bool | None

FORMATS = {
    ".csv": "csv", ".tsv": "csv", ".xlsx": "xlsx", ".xlsm": "xlsx",
    ".sqlite": "sqlite", ".sqlite3": "sqlite", ".db": "sqlite",
}  # fmt: skip
CSV_TABLE = "data"
MAX_CELL = 2000  # characters of one cell that are shown
MAX_COLUMNS = 500


@dataclass(frozen=True)
class Limits:
    """Bytes of a file, bytes an XLSX may unpack to, rows shown and loaded, seconds and results of a query."""

    file: int = 50 << 20
    unpacked: int = 300 << 20
    loaded_rows: int = 1_000_000
    shown_rows: int = 500
    shown_characters: int = 60_000
    seconds: float = 10.0
    listed_files: int = 200
    value: int = 10 << 20  # bytes of one value a query may build


class SheetFound(NamedTuple):
    """A table, its columns, and how many rows it has."""

    name: str
    columns: list[str]
    rows: int


class FileFound(NamedTuple):
    """A spreadsheet file. `size` in bytes."""

    name: str
    format: str
    size: int
    sheets: list[SheetFound]


class Answer(NamedTuple):
    """Rows to show."""

    columns: list[str]
    rows: list[list[Cell]]
    total: int | None
    truncated: bool


class Written(NamedTuple):
    """What was changed."""

    sheet: str
    rows: int
    total: int


class Sheet(NamedTuple):
    """A whole table in memory."""

    name: str
    columns: list[str]
    rows: list[list[Cell]]


class Tables:
    """The spreadsheets below the allowed folders. Every method raises Refusal with what to do instead."""

    def __init__(self, folders: Folders, limits: Limits, books: Sequence[Book] = ()) -> None:
        self.folders = folders
        self.limits = limits
        self.books = {book.name: book for book in books}
        self._changing = threading.Lock()

    def files(self, path: str) -> tuple[list[FileFound], bool]:
        """The spreadsheet files below a folder, or one file with its sheets; and whether the list was cut."""
        if path.startswith(PREFIX):
            book = self._book(path)
            with self._database(book) as database:
                return [FileFound(book.name, "google", 0, _sheets(database))], False
        place = self.folders.place(path)
        if place.parts and _suffix(place) in FORMATS and not place.path.is_dir():
            size = self._check(place)
            with self._database(place) as database:
                return [FileFound(place.name, FORMATS[_suffix(place)], size, _sheets(database))], False
        if place.parts:
            self.folders.entries(place)  # refuses what is no folder
        found = [FileFound(name, "google", 0, []) for name in self.books if not place.parts]
        for root in self.folders.roots if not place.parts else (place.root,):
            for entry in self.folders.walk(Place(root, place.parts), limit=20_000):
                kind = FORMATS.get(_suffix(entry.place))
                if kind is not None:
                    if len(found) == self.limits.listed_files:
                        return found, True
                    found.append(FileFound(entry.place.name, kind, entry.size, []))
        return found, False

    def read(self, file: str, sheet: str, first: int, count: int) -> Answer:
        """`count` rows from row `first` (1 is the first below the header)."""
        place = self._file(file)
        with self._database(place) as database:
            name = _choose(sheet, [found for found, _ in _tables(database)], place)
            table = _quoted(name)
            total = int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608  quoted
            cursor = database.execute(
                f"SELECT * FROM {table} LIMIT ? OFFSET ?",  # noqa: S608  quoted
                (min(count, self.limits.shown_rows), first - 1),
            )
            columns = [column[0] for column in cursor.description]
            rows, cut = self._shown(cursor)
        return Answer(columns, rows, total, cut or first - 1 + len(rows) < total)

    def query(self, file: str, sql: str) -> Answer:
        """The rows of one SELECT."""
        place = self._file(file)
        with self._database(place) as database:
            tables = ", ".join(name for name, _ in _tables(database))
            deadline = time.monotonic() + self.limits.seconds
            database.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
            database.setlimit(sqlite3.SQLITE_LIMIT_LENGTH, self.limits.value)
            database.setlimit(sqlite3.SQLITE_LIMIT_ATTACHED, 0)
            database.set_authorizer(_only_reading)
            try:
                cursor = database.execute(sql)
                if cursor.description is None:
                    raise Refusal("only a SELECT can be run", hint="write one SELECT statement")
                columns = [column[0] for column in cursor.description]
                rows, cut = self._shown(cursor)
            except sqlite3.ProgrammingError as error:
                raise Refusal(f"one statement at a time: {error}", hint="write one SELECT statement") from None
            except (sqlite3.Error, sqlite3.Warning) as error:
                raise _sql_refusal(error, tables, self.limits) from None
            except (OverflowError, MemoryError):
                raise Refusal("the query makes values that are too large", hint="select less") from None
        return Answer(columns, rows, None if cut else len(rows), cut)

    def append(self, file: str, sheet: str, rows: Sequence[Mapping[str, Any]]) -> Written:
        """Add rows; all or none."""
        if not rows:
            raise Refusal("there are no rows to append", hint="give at least one row")
        cells = [{column: _cell_in(value) for column, value in row.items()} for row in rows]
        place = self._file(file)
        with self._changing, self._change(place, sheet) as change:
            for row in cells:
                change.append(row)
            return Written(change.sheet, len(cells), change.total())

    def update(self, file: str, sheet: str, where: Mapping[str, Any], values: Mapping[str, Any]) -> Written:
        """Set `values` in every row where all of `where` is equal; all or none."""
        if not where or not values:
            raise Refusal("both `where` and `values` need at least one column", hint="name a column and a value")
        wanted = {column: _cell_in(value) for column, value in where.items()}
        new = {column: _cell_in(value) for column, value in values.items()}
        place = self._file(file)
        with self._changing, self._change(place, sheet) as change:
            changed = change.update(wanted, new)
            if not changed:
                shown = ", ".join(f"{column} = {value}" for column, value in wanted.items())
                raise Refusal(f"no row of {change.sheet} has {shown[:200]}", hint="read or query the table first")
            return Written(change.sheet, changed, change.total())

    def _book(self, file: str) -> Book:
        if file not in self.books:
            known = ", ".join(self.books) or "none"
            raise Refusal(f"no spreadsheet of Google named {file[:60]}; known: {known}", hint="use one of them")
        return self.books[file]

    def _file(self, file: str) -> Place | Book:
        if file.startswith(PREFIX):
            return self._book(file)
        place = self.folders.place(file)
        if _suffix(place) not in FORMATS:
            known = ", ".join(FORMATS)
            raise Refusal(
                f"{place.name} is not a spreadsheet this server reads ({known})", hint="list the spreadsheets"
            )
        self._check(place)
        return place

    def _check(self, place: Place) -> int:
        size = self.folders.check_file(place)
        if size > self.limits.file:
            from toolkit.core.units import format_bytes

            raise Refusal(
                f"{place.name} has {format_bytes(size)}; the limit is {format_bytes(self.limits.file)}",
                hint="choose a smaller file",
            )
        return size

    @contextmanager
    def _database(self, place: Place | Book) -> Iterator[sqlite3.Connection]:
        """The file as an SQLite database that cannot write to it."""
        if isinstance(place, Place) and FORMATS[_suffix(place)] == "sqlite":
            with _open_sqlite(place, "ro", self.limits.seconds) as database:
                yield database
            return
        database = sqlite3.connect(":memory:")
        try:
            for sheet in self._sheets(place):
                _load(database, sheet)
            database.execute("PRAGMA query_only = 1")
            yield database
        finally:
            database.close()

    def _sheets(self, place: Place | Book) -> list[Sheet]:
        if isinstance(place, Book):
            return [_from_grid(grid) for grid in place.grids()]
        content = self.folders.read(place, limit=self.limits.file)
        if FORMATS[_suffix(place)] == "csv":
            return [_from_csv(content, place, self.limits)]
        return _from_xlsx(content, place, self.limits)

    @contextmanager
    def _change(
        self, place: Place | Book, sheet: str
    ) -> "Iterator[_CsvChange | _XlsxChange | _SqliteChange | _GoogleChange]":
        """Changes that are written when the block ends, and not at all if it fails."""
        if isinstance(place, Book):
            remote = _GoogleChange(place, sheet)
            yield remote
            remote.send()
            return
        kind = FORMATS[_suffix(place)]
        if kind == "sqlite":
            with _open_sqlite(place, "rw", self.limits.seconds) as database:
                name = _choose(sheet, [found for found, _ in _tables(database)], place)
                with database:  # one transaction
                    yield _SqliteChange(database, name)
            return
        content = self.folders.read(place, limit=self.limits.file)
        if kind == "csv":
            _choose(sheet, [CSV_TABLE], place)
        change = (
            _CsvChange(content, place, self.limits)
            if kind == "csv"
            else _XlsxChange(content, place, sheet, self.limits)
        )
        yield change
        self.folders.write(place, change.content(), replace=True)

    def _shown(self, cursor: Iterable[Sequence[Any]]) -> tuple[list[list[Cell]], bool]:
        rows: list[list[Cell]] = []
        letters = 0
        for row in cursor:
            cells = [_cell_out(value) for value in row]
            letters += sum(len(str(cell)) for cell in cells)
            if len(rows) == self.limits.shown_rows or letters > self.limits.shown_characters:
                return rows, True
            rows.append(cells)
        return rows, False


def _suffix(place: Place) -> str:
    return PurePosixPath(place.parts[-1]).suffix.lower() if place.parts else ""


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _choose(sheet: str, names: Sequence[str], place: Place | Book) -> str:
    """The table meant by `sheet`; the only or first one where nothing is said."""
    if not names:
        raise Refusal(f"{place.name} has no tables", hint="choose another file")
    if not sheet:
        return names[0]
    if sheet in names:
        return sheet
    raise Refusal(f"no sheet named `{sheet[:60]}`; sheets: {', '.join(names[:50])}", hint="use one of them")


def _tables(database: sqlite3.Connection) -> list[tuple[str, str]]:
    try:
        found = database.execute(
            "SELECT name, type FROM sqlite_master"
            " WHERE type IN ('table', 'view') AND name NOT LIKE 'sqlite!_%' ESCAPE '!'"
        ).fetchall()
    except sqlite3.DatabaseError as error:
        raise Refusal(f"it is not an SQLite database: {error}", hint="choose another file") from None
    return [(str(name), str(kind)) for name, kind in found]


def _sheets(database: sqlite3.Connection) -> list[SheetFound]:
    sheets = []
    for name, _ in _tables(database):
        table = _quoted(name)
        columns = [column[0] for column in database.execute(f"SELECT * FROM {table} LIMIT 0").description]  # noqa: S608
        rows = int(database.execute(f"SELECT count(*) FROM {table}").fetchone()[0])  # noqa: S608
        sheets.append(SheetFound(name, columns, rows))
    return sheets


_READING = {sqlite3.SQLITE_SELECT, sqlite3.SQLITE_READ, sqlite3.SQLITE_FUNCTION, sqlite3.SQLITE_RECURSIVE}
_BAD_FUNCTIONS = {"load_extension", "fts3_tokenizer", "readfile", "writefile", "edit"}


def _only_reading(action: int, first: str | None, second: str | None, database: str | None, trigger: str | None) -> int:
    if action not in _READING:
        return sqlite3.SQLITE_DENY
    if action == sqlite3.SQLITE_FUNCTION and (second or "").lower() in _BAD_FUNCTIONS:
        return sqlite3.SQLITE_DENY
    return sqlite3.SQLITE_OK


def _sql_refusal(error: Exception, tables: str, limits: Limits) -> Refusal:
    text = str(error)
    if "interrupted" in text:
        return Refusal(f"the query ran longer than {limits.seconds:g} s", hint="filter more, join less")
    if "not authorized" in text or "prohibited" in text or "readonly" in text:
        return Refusal("only a SELECT can be run", hint="write one SELECT; to change rows use update_rows")
    if "no such table" in text:
        return Refusal(f"{text}; tables: {tables}", hint="use one of them")
    return Refusal(f"SQLite says: {text}", hint="list the spreadsheets to see sheets and columns")


@contextmanager
def _open_sqlite(place: Place, mode: str, seconds: float) -> Iterator[sqlite3.Connection]:
    """The file itself, so that SQLite's own locks hold against whoever else has it open.

    Only the last step goes by path: `place` was opened without following links just before.
    """
    from urllib.parse import quote

    uri = f"file:{quote(place.path.as_posix())}?mode={mode}"
    database = sqlite3.connect(uri, uri=True, timeout=5, isolation_level="IMMEDIATE")
    try:
        database.execute("PRAGMA trusted_schema = 0")  # a schema may call functions; not ours to run
        deadline = time.monotonic() + seconds
        database.set_progress_handler(lambda: time.monotonic() > deadline, 10_000)
        yield database
    except sqlite3.OperationalError as error:
        raise Refusal(f"{place.name}: SQLite says: {error}", hint="try again, or choose another file") from None
    except sqlite3.DatabaseError as error:
        raise Refusal(f"{place.name} is not a sound SQLite database: {error}", hint="choose another file") from None
    finally:
        database.close()


# CSV -----------------------------------------------------------------------------------------------------------

_INTEGER = re.compile(r"[+-]?(0|[1-9][0-9]{0,17})")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.[0-9]*|\.[0-9]+|[0-9]+)([eE][+-]?[0-9]{1,3})?")


def _csv_text(content: bytes, place: Place) -> str:
    for encoding in ("utf-8-sig", "utf-16") if content[:2] in (b"\xff\xfe", b"\xfe\xff") else ("utf-8-sig",):
        try:
            return content.decode(encoding)
        except UnicodeDecodeError:
            continue
    if b"\0" in content:
        raise Refusal(f"{place.name} is not a CSV file: it holds NUL bytes", hint="choose another file")
    return content.decode("cp1252", "replace")


def _dialect(text: str, place: Place) -> type[csv.Dialect]:
    class Chosen(csv.excel):
        delimiter = "\t" if _suffix(place) == ".tsv" else ","
        lineterminator = "\r\n" if "\r\n" in text[:10_000] else "\n"

    if _suffix(place) != ".tsv":
        header = text[: text.find("\n")] if "\n" in text else text
        header = re.sub(r'"(?:[^"]|"")*"', "", header)
        counts = {mark: header.count(mark) for mark in (",", ";", "\t", "|")}
        if max(counts.values()):
            Chosen.delimiter = max(counts, key=lambda mark: counts[mark])
    return Chosen


def _csv_rows(text: str, place: Place, limits: Limits) -> tuple[list[str], list[list[str]], type[csv.Dialect]]:
    dialect = _dialect(text, place)
    csv.field_size_limit(limits.value)
    try:
        reader = csv.reader(io.StringIO(text, newline=""), dialect, strict=False)
        header = next(reader, [])
        rows: list[list[str]] = []
        for row in reader:
            if len(rows) == limits.loaded_rows:
                raise Refusal(f"{place.name} has over {limits.loaded_rows:,} rows", hint="convert it to SQLite")
            if row:
                rows.append(row)
    except csv.Error as error:
        raise Refusal(f"{place.name} is not a CSV file: {error}", hint="choose another file") from None
    if len(header) > MAX_COLUMNS:
        raise Refusal(f"{place.name} has over {MAX_COLUMNS} columns", hint="choose another file")
    return header, rows, dialect


def _from_csv(content: bytes, place: Place, limits: Limits) -> Sheet:
    header, rows, _ = _csv_rows(_csv_text(content, place), place, limits)
    columns = _column_names(header)
    return Sheet(CSV_TABLE, columns, [_fitted([_value(text) for text in row], len(columns)) for row in rows])


def _value(text: str) -> Cell:
    """Numbers as numbers, so that they compare and sum; identifiers with leading zeros stay text."""
    stripped = text.strip()
    if not stripped:
        return None
    if _INTEGER.fullmatch(stripped):
        return int(stripped)
    if _DECIMAL.fullmatch(stripped) and not re.match(r"[+-]?0[0-9]", stripped):
        value = float(stripped)
        return value if math.isfinite(value) else text
    return text


def _column_names(header: Sequence[object]) -> list[str]:
    """Every column named, none twice (SQLite compares names without case)."""
    names: list[str] = []
    taken: set[str] = set()
    for number, given in enumerate(header, 1):
        base = str(given).strip() if given not in (None, "") else f"column{number}"
        name, again = base or f"column{number}", 2
        while name.lower() in taken:
            name, again = f"{base}_{again}", again + 1
        taken.add(name.lower())
        names.append(name)
    return names


def _fitted(row: list[Cell], width: int) -> list[Cell]:
    return row[:width] + [None] * (width - len(row))


def _load(database: sqlite3.Connection, sheet: Sheet) -> None:
    if not sheet.columns:
        return
    columns = ", ".join(_quoted(column) for column in sheet.columns)
    database.execute(f"CREATE TABLE {_quoted(sheet.name)} ({columns})")
    marks = ", ".join("?" * len(sheet.columns))
    database.executemany(f"INSERT INTO {_quoted(sheet.name)} VALUES ({marks})", sheet.rows)  # noqa: S608  quoted
    database.commit()


class _CsvChange:
    def __init__(self, content: bytes, place: Place, limits: Limits) -> None:
        self.sheet = CSV_TABLE
        self._mark = b"\xef\xbb\xbf" if content.startswith(b"\xef\xbb\xbf") else b""
        header, self._rows, self._dialect = _csv_rows(_csv_text(content, place), place, limits)
        self._header = header
        self._columns = _column_names(header)

    def append(self, row: Mapping[str, Cell]) -> None:
        _known(row, self._columns, self.sheet)
        self._rows.append([_csv_out(row.get(column)) for column in self._columns])

    def update(self, where: Mapping[str, Cell], values: Mapping[str, Cell]) -> int:
        _known([*where, *values], self._columns, self.sheet)
        at = {column: number for number, column in enumerate(self._columns)}
        changed = 0
        for row in self._rows:
            row += [""] * (len(self._columns) - len(row))
            if all(_same(_value(row[at[column]]), value) for column, value in where.items()):
                for column, value in values.items():
                    row[at[column]] = _csv_out(value)
                changed += 1
        return changed

    def total(self) -> int:
        return len(self._rows)

    def content(self) -> bytes:
        text = io.StringIO(newline="")
        csv.writer(text, self._dialect).writerows([self._header, *self._rows])
        return self._mark + text.getvalue().encode("utf-8")


def _csv_out(value: Cell) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        # What a spreadsheet program would run when the file is opened stays text (OWASP: CSV injection).
        return f"'{value}" if value.startswith(("=", "+", "-", "@", "\t", "\r")) and _value(value) == value else value
    return str(value)


# XLSX ----------------------------------------------------------------------------------------------------------


def _workbook(content: bytes, place: Place, limits: Limits, *, read_only: bool) -> Any:
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            unpacked = sum(member.file_size for member in archive.infolist())
            if unpacked > limits.unpacked or len(archive.infolist()) > 10_000:
                raise Refusal(f"{place.name} unpacks to more than is allowed", hint="choose a smaller file")
            for member in archive.infolist():
                if member.filename.endswith((".xml", ".rels")):
                    with archive.open(member) as part:
                        if b"<!DOCTYPE" in part.read(4096).upper():
                            raise Refusal(f"{place.name} declares a document type", hint="choose another file")
        import openpyxl

        return openpyxl.load_workbook(
            io.BytesIO(content),
            read_only=read_only,
            data_only=read_only,  # results to read; formulas kept when the file is written back
            keep_links=not read_only,
            keep_vba=not read_only and _suffix(place) == ".xlsm",
        )
    except Refusal:
        raise
    except Exception as error:
        # openpyxl raises whatever its parsers meet (KeyError, ValueError, XML errors) for a damaged file.
        raise Refusal(
            f"{place.name} cannot be read as XLSX ({type(error).__name__})", hint="choose another file"
        ) from None


def _from_xlsx(content: bytes, place: Place, limits: Limits) -> list[Sheet]:
    book = _workbook(content, place, limits, read_only=True)
    sheets = []
    loaded = 0
    try:
        for page in book.worksheets:
            page.reset_dimensions()  # what the file claims about its size is not to be trusted
            rows = page.iter_rows(values_only=True, max_col=MAX_COLUMNS)
            header = list(next(rows, ()))
            while header and header[-1] is None:
                header.pop()
            columns = _column_names(header)
            table: list[list[Cell]] = []
            for row in rows:
                loaded += 1
                if loaded > limits.loaded_rows:
                    raise Refusal(f"{place.name} has over {limits.loaded_rows:,} rows", hint="convert it to SQLite")
                cells = _fitted([_cell_xlsx(value) for value in row], len(columns))
                if any(cell is not None for cell in cells):
                    table.append(cells)
            sheets.append(Sheet(str(page.title), columns, table))
    except Refusal:
        raise
    except Exception as error:
        raise Refusal(
            f"{place.name} cannot be read as XLSX ({type(error).__name__})", hint="choose another file"
        ) from None
    finally:
        book.close()
    return sheets


def _cell_xlsx(value: object) -> Cell:
    if isinstance(value, datetime | date | clock_time):
        return value.isoformat()
    if isinstance(value, timedelta):
        return str(value)
    return value if isinstance(value, str | int | float | bool) or value is None else str(value)


class _XlsxChange:
    def __init__(self, content: bytes, place: Place, sheet: str, limits: Limits) -> None:
        self._book = _workbook(content, place, limits, read_only=False)
        names = [str(page.title) for page in self._book.worksheets]
        self.sheet = _choose(sheet, names, place)
        self._page = self._book[self.sheet]
        header = [cell.value for cell in self._page[1]] if self._page.max_row else []
        while header and header[-1] is None:
            header.pop()
        self._columns = _column_names(header)

    def append(self, row: Mapping[str, Cell]) -> None:
        _known(row, self._columns, self.sheet)
        at = self._page.max_row + 1
        for number, column in enumerate(self._columns, 1):
            self._put(at, number, row.get(column))

    def update(self, where: Mapping[str, Cell], values: Mapping[str, Cell]) -> int:
        _known([*where, *values], self._columns, self.sheet)
        at = {column: number for number, column in enumerate(self._columns, 1)}
        changed = 0
        for number in range(2, self._page.max_row + 1):
            cells = {column: _cell_xlsx(self._page.cell(number, at[column]).value) for column in where}
            if all(_same(cells[column], value) for column, value in where.items()):
                for column, value in values.items():
                    self._put(number, at[column], value)
                changed += 1
        return changed

    def _put(self, row: int, column: int, value: Cell) -> None:
        cell = self._page.cell(row, column)
        cell.value = value
        if isinstance(value, str):
            cell.data_type = "s"  # a text that looks like a formula stays a text

    def total(self) -> int:
        return max(0, int(self._page.max_row) - 1)

    def content(self) -> bytes:
        target = io.BytesIO()
        self._book.save(target)
        return target.getvalue()


# SQLite --------------------------------------------------------------------------------------------------------


class _SqliteChange:
    def __init__(self, database: sqlite3.Connection, sheet: str) -> None:
        self.sheet = sheet
        self._database = database
        self._table = _quoted(sheet)
        self._columns = [
            column[0]
            for column in database.execute(f"SELECT * FROM {self._table} LIMIT 0").description  # noqa: S608
        ]

    def append(self, row: Mapping[str, Cell]) -> None:
        _known(row, self._columns, self.sheet)
        columns, marks = ", ".join(map(_quoted, row)), ", ".join("?" * len(row))
        self._database.execute(f"INSERT INTO {self._table} ({columns}) VALUES ({marks})", list(row.values()))  # noqa: S608

    def update(self, where: Mapping[str, Cell], values: Mapping[str, Cell]) -> int:
        _known([*where, *values], self._columns, self.sheet)
        new = ", ".join(f"{_quoted(column)} = ?" for column in values)
        same = " AND ".join(f"{_quoted(column)} IS ?" for column in where)
        done = self._database.execute(
            f"UPDATE {self._table} SET {new} WHERE {same}",  # noqa: S608  quoted
            [*values.values(), *where.values()],
        )
        return done.rowcount

    def total(self) -> int:
        return int(self._database.execute(f"SELECT count(*) FROM {self._table}").fetchone()[0])  # noqa: S608


# Google Sheets -------------------------------------------------------------------------------------------------


def _from_grid(grid: Grid) -> Sheet:
    columns = _column_names(grid.rows[0] if grid.rows else [])
    rows = [_fitted([None if cell == "" else cell for cell in row], len(columns)) for row in grid.rows[1:]]
    return Sheet(grid.title, columns, [row for row in rows if any(cell is not None for cell in row)])


class _GoogleChange:
    """Rows and cells are gathered, and sent when all of them are known to fit."""

    def __init__(self, book: Book, sheet: str) -> None:
        grids = {grid.title: grid for grid in book.grids()}
        self.sheet = _choose(sheet, list(grids), book)
        self._book = book
        self._rows = grids[self.sheet].rows
        self._columns = _column_names(self._rows[0] if self._rows else [])
        self._new: list[list[Cell]] = []
        self._cells: dict[tuple[int, int], Cell] = {}

    def append(self, row: Mapping[str, Cell]) -> None:
        _known(row, self._columns, self.sheet)
        self._new.append(["" if row.get(column) is None else row[column] for column in self._columns])

    def update(self, where: Mapping[str, Cell], values: Mapping[str, Cell]) -> int:
        _known([*where, *values], self._columns, self.sheet)
        at = {column: number for number, column in enumerate(self._columns)}
        changed = 0
        for number, row in enumerate(self._rows[1:], 2):
            cells = _fitted([None if cell == "" else cell for cell in row], len(self._columns))
            if all(_same(cells[at[column]], value) for column, value in where.items()):
                self._cells |= {(number, at[column] + 1): value for column, value in values.items()}
                changed += 1
        return changed

    def total(self) -> int:
        return max(0, len(self._rows) - 1) + len(self._new)

    def send(self) -> None:
        if self._new:
            self._book.append(self.sheet, self._new)
        if self._cells:
            self._book.update(self.sheet, self._cells)


def _known(given: Iterable[str], columns: Sequence[str], sheet: str) -> None:
    for column in given:
        if column not in columns:
            raise Refusal(
                f"no column named `{column[:60]}` in {sheet}; columns: {', '.join(columns[:60])}",
                hint="use one of them",
            )


def _same(cell: Cell, wanted: Cell) -> bool:
    if isinstance(cell, int | float) and isinstance(wanted, int | float):
        return cell == wanted
    return str(cell) == str(wanted) if cell is not None and wanted is not None else cell is wanted


_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f]")  # what XLSX cannot hold


def _cell_in(value: object) -> Cell:
    if value is None or isinstance(value, str | bool | int | float):
        if isinstance(value, float) and not math.isfinite(value):
            raise Refusal("a cell holds a text, a finite number, true, false or null", hint="use null for nothing")
        if isinstance(value, int) and not -(2**63) <= value < 2**63:
            raise Refusal(f"{str(value)[:30]} is too large for a cell", hint="write it as a text")
        if isinstance(value, str) and len(value) > 32_000:
            raise Refusal("a cell holds at most 32,000 characters", hint="shorten the text")
        if isinstance(value, str) and _CONTROL.search(value):
            raise Refusal("a cell holds no control characters but tabs and line ends", hint="leave them out")
        return value
    raise Refusal("a cell holds a text, a number, true, false or null, not a list or an object", hint="flatten it")


def _cell_out(value: object) -> Cell:
    if isinstance(value, bytes):
        return f"<{len(value)} bytes>"
    if isinstance(value, str):
        return value if len(value) <= MAX_CELL else value[:MAX_CELL] + "..."
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    return value if isinstance(value, int | float) or value is None else str(value)
