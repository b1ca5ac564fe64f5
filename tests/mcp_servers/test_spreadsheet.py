import io
import sqlite3
import zipfile
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import openpyxl
import pytest
from mcp.client.client import Client

from mcp_servers import guard
from mcp_servers.spreadsheet import Limits, make


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    inside = tmp_path / "sheets"
    (inside / "old").mkdir(parents=True)
    (inside / "sales.csv").write_text('name,amount,zip\nAnn,50,01234\nBob,150.5,99999\n"Eve, Ms",,00001\n')
    (inside / "old" / "semicolons.csv").write_bytes("Stadt;Fläche\r\nKöln;405,2\r\nBonn;141\r\n".encode("cp1252"))
    (inside / "notes.txt").write_text("not a table")
    book = openpyxl.Workbook()
    first = book.active
    assert first is not None
    first.title = "Q1"
    first.append(["item", "price", "when"])
    first.append(["pen", 1.5, date(2026, 1, 2)])
    first.append(["ink", 20, date(2026, 1, 3)])
    first["D1"], first["D2"] = "double", "=B2*2"
    book.create_sheet("Q2").append(["item", "price"])
    book.save(inside / "shop.xlsx")
    with sqlite3.connect(inside / "people.sqlite") as database:
        database.execute("CREATE TABLE person (id INTEGER PRIMARY KEY, name TEXT NOT NULL, age INTEGER)")
        database.executemany("INSERT INTO person (name, age) VALUES (?, ?)", [("Ann", 30), ("Bob", 40)])
        database.execute("CREATE VIEW adult AS SELECT name FROM person WHERE age >= 18")
    database.close()
    return inside


@dataclass
class Sheets:
    """The server over a folder, connected to for each call."""

    folder: Path
    limits: Limits | None = None

    async def call_tool(self, tool: str, arguments: dict[str, Any]) -> Any:
        async with Client(make([self.folder], limits=self.limits)) as running:
            return await running.call_tool(tool, arguments)


@pytest.fixture
def client(folder: Path) -> Sheets:
    return Sheets(folder)


async def call(client: Sheets | Client, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    return dict(answer.structured_content or {})


async def refusal(client: Sheets | Client, tool: str, **arguments: Any) -> str:
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error, answer.structured_content
    text = str(answer.content[0].text)
    assert "Error executing" not in text
    return text


async def query(client: Sheets | Client, file: str, sql: str) -> list[list[Any]]:
    return list((await call(client, "query_spreadsheet", file=file, sql=sql))["rows"])


async def test_the_files_and_their_sheets_are_listed(client: Sheets | Client) -> None:
    files = (await call(client, "list_spreadsheets"))["files"]
    assert [(file["file"], file["format"]) for file in files] == [
        ("people.sqlite", "sqlite"),
        ("sales.csv", "csv"),
        ("shop.xlsx", "xlsx"),
        ("old/semicolons.csv", "csv"),
    ]
    book = (await call(client, "list_spreadsheets", path="shop.xlsx"))["files"][0]["sheets"]
    assert book == [
        {"sheet": "Q1", "columns": ["item", "price", "when", "double"], "rows": 2},
        {"sheet": "Q2", "columns": ["item", "price"], "rows": 0},
    ]
    below = (await call(client, "list_spreadsheets", path="old"))["files"]
    assert [file["file"] for file in below] == ["old/semicolons.csv"]


async def test_a_question_to_each_format_is_answered_by_sql(client: Sheets | Client) -> None:
    assert await query(client, "sales.csv", "SELECT count(*) FROM data WHERE amount > 100") == [[1]]
    assert await query(client, "shop.xlsx", 'SELECT sum(price) FROM "Q1"') == [[21.5]]
    assert (
        await query(client, "people.sqlite", "SELECT name FROM adult ORDER BY age_of LIMIT 0".replace("age_of", "name"))
        == []
    )
    assert await query(client, "people.sqlite", "SELECT avg(age) FROM person") == [[35.0]]


async def test_csv_values_are_numbers_where_they_are_and_text_where_zeros_lead(client: Sheets | Client) -> None:
    rows = (await call(client, "read_spreadsheet", file="sales.csv"))["rows"]
    assert rows == [["Ann", 50, "01234"], ["Bob", 150.5, 99999], ["Eve, Ms", None, "00001"]]


async def test_another_delimiter_and_encoding_are_recognised_and_kept(client: Sheets | Client, folder: Path) -> None:
    assert await query(client, "old/semicolons.csv", "SELECT Stadt FROM data") == [["Köln"], ["Bonn"]]
    await call(client, "append_rows", file="old/semicolons.csv", rows=[{"Stadt": "Ulm", "Fläche": 118}])
    assert (folder / "old" / "semicolons.csv").read_bytes().endswith(b"Bonn;141\r\nUlm;118\r\n")


async def test_rows_are_read_in_pieces(client: Sheets | Client) -> None:
    page = await call(client, "read_spreadsheet", file="sales.csv", first_row=2, rows=1)
    assert (page["rows"], page["total"], page["truncated"]) == ([["Bob", 150.5, 99999]], 3, True)


@pytest.mark.parametrize(
    ("file", "sheet", "row", "where", "values"),
    [
        ("sales.csv", "", {"name": "Zoe", "amount": 7}, {"name": "Ann"}, {"amount": 51}),
        ("shop.xlsx", "Q1", {"item": "cup", "price": 3}, {"item": "pen"}, {"price": 2}),
        ("people.sqlite", "person", {"name": "Zoe", "age": 20}, {"name": "Ann"}, {"age": 31}),
    ],
)
async def test_rows_are_appended_and_updated_in_each_format(
    file: str, sheet: str, row: dict[str, Any], where: dict[str, Any], values: dict[str, Any], client: Sheets | Client
) -> None:
    before = (await call(client, "read_spreadsheet", file=file, sheet=sheet))["rows"]
    added = await call(client, "append_rows", file=file, sheet=sheet, rows=[row])
    changed = await call(client, "update_rows", file=file, sheet=sheet, where=where, values=values)
    after = await call(client, "read_spreadsheet", file=file, sheet=sheet)
    assert (added["rows"], changed["rows"], after["total"]) == (1, 1, len(before) + 1)
    found = [dict(zip(after["columns"], cells, strict=True)) for cells in after["rows"]]
    assert [one for one in found if row.items() <= one.items()]
    assert [one for one in found if (where | values).items() <= one.items()]


async def test_formulas_of_others_stay_and_none_is_brought_in(client: Sheets | Client, folder: Path) -> None:
    await call(client, "append_rows", file="shop.xlsx", rows=[{"item": '=HYPERLINK("http://x")', "price": 1}])
    await call(client, "append_rows", file="sales.csv", rows=[{"name": "=cmd|' /C calc'!A1", "amount": -5}])
    page = openpyxl.load_workbook(folder / "shop.xlsx")["Q1"]
    assert page["D2"].value == "=B2*2"
    assert (page["A4"].value, page["A4"].data_type) == ('=HYPERLINK("http://x")', "s")
    assert (folder / "sales.csv").read_text().splitlines()[-1] == "'=cmd|' /C calc'!A1,-5,"


@pytest.mark.parametrize(
    ("path", "told"), [("gone", "there is no folder gone"), ("notes.txt", "notes.txt is not a folder")]
)
async def test_what_holds_no_spreadsheets_is_told_and_not_listed_as_empty(client: Sheets, path: str, told: str) -> None:
    assert told in await refusal(client, "list_spreadsheets", path=path)


@pytest.mark.parametrize("file", ["sales.csv", "shop.xlsx", "people.sqlite"])
async def test_a_cell_with_control_characters_is_refused(client: Sheets, folder: Path, file: str) -> None:
    before = (folder / file).read_bytes()
    column = "item" if file == "shop.xlsx" else "name"
    text = await refusal(client, "append_rows", file=file, rows=[{column: "a\x00b\x1b[2J"}])
    assert "no control characters" in text
    assert (folder / file).read_bytes() == before


@pytest.mark.parametrize(
    ("tool", "arguments"),
    [
        ("append_rows", {"rows": [{"name": "Zoe"}]}),
        ("update_rows", {"where": {"name": "Ann"}, "values": {"amount": 1}}),
        ("read_spreadsheet", {}),
    ],
)
@pytest.mark.parametrize("file", ["sales.csv", "shop.xlsx", "people.sqlite"])
async def test_a_sheet_that_is_not_there_is_neither_read_nor_written(
    client: Sheets, folder: Path, file: str, tool: str, arguments: dict[str, Any]
) -> None:
    before = (folder / file).read_bytes()
    assert "no sheet named `Q3`; sheets: " in await refusal(client, tool, file=file, sheet="Q3", **arguments)
    assert (folder / file).read_bytes() == before


async def test_errors_name_what_there_is(client: Sheets | Client) -> None:
    assert "no sheet named `Q3`; sheets: Q1, Q2" in await refusal(
        client, "read_spreadsheet", file="shop.xlsx", sheet="Q3"
    )
    assert "no such table: Q9; tables: Q1, Q2" in await refusal(
        client, "query_spreadsheet", file="shop.xlsx", sql="SELECT * FROM Q9"
    )
    assert "no column named `colour` in data; columns: name, amount, zip" in await refusal(
        client, "append_rows", file="sales.csv", rows=[{"colour": 1}]
    )
    assert "no row of data has name = Nobody" in await refusal(
        client, "update_rows", file="sales.csv", where={"name": "Nobody"}, values={"amount": 1}
    )
    assert "notes.txt is not a spreadsheet" in await refusal(client, "read_spreadsheet", file="notes.txt")
    assert "there is no file gone.csv" in await refusal(client, "read_spreadsheet", file="gone.csv")


WRITES = [
    "DELETE FROM person",
    "INSERT INTO person (name) VALUES ('x')",
    "UPDATE person SET age = 0",
    "DROP TABLE person",
    "CREATE TABLE other (a)",
    "CREATE TEMP TABLE other (a)",
    "ALTER TABLE person RENAME TO other",
    "ATTACH DATABASE '/tmp/toolkit-attached.db' AS other",
    "ATTACH ':memory:' AS other",
    "DETACH DATABASE main",
    "PRAGMA journal_mode = DELETE",
    "PRAGMA writable_schema = 1",
    "PRAGMA table_info(person)",
    "VACUUM",
    "VACUUM INTO '/tmp/toolkit-vacuum.db'",
    "REINDEX",
    "ANALYZE",
    "BEGIN",
    "SAVEPOINT a",
    "SELECT load_extension('/tmp/x.so')",
    "SELECT 1; DELETE FROM person",
    "WITH gone AS (SELECT 1) DELETE FROM person",
    "SELECT writefile('/tmp/toolkit-written', 'x')",
    "SELECT readfile('/etc/passwd')",
    "SELECT * FROM pragma_database_list",
    "CREATE VIRTUAL TABLE t USING fts5(a)",
    "EXPLAIN DELETE FROM person",
    "",
    "   ",
    "-- nothing",
    "not sql at all",
    "SELECT",
]


@pytest.mark.parametrize("sql", WRITES)
@pytest.mark.parametrize("file", ["people.sqlite", "sales.csv"])
async def test_a_query_reads_and_nothing_else(sql: str, file: str, client: Sheets | Client, folder: Path) -> None:
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    await refusal(client, "query_spreadsheet", file=file, sql=sql)
    assert {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()} == before
    assert not Path("/tmp/toolkit-vacuum.db").exists()
    assert not Path("/tmp/toolkit-attached.db").exists()


@pytest.mark.parametrize(
    ("sql", "reason"),
    [
        ("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n", "longer than 0.3 s"),
        ("SELECT hex(zeroblob(1000000000))", "too big"),
        ("SELECT replace(hex(zeroblob(500000)), '00', 'xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx')", "too big"),
    ],
)
async def test_a_query_without_end_or_measure_is_stopped(sql: str, reason: str, folder: Path) -> None:
    async with Client(make([folder], limits=Limits(seconds=0.3))) as client:
        assert reason in await refusal(client, "query_spreadsheet", file="sales.csv", sql=sql)


async def test_a_long_answer_is_cut_and_says_so(client: Sheets | Client) -> None:
    endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT i FROM n"
    answer = await call(client, "query_spreadsheet", file="sales.csv", sql=endless)
    assert (len(answer["rows"]), answer["total"], answer["truncated"]) == (500, None, True)


async def test_all_rows_of_a_call_are_written_or_none(client: Sheets | Client, folder: Path) -> None:
    for file in ("sales.csv", "shop.xlsx", "people.sqlite"):
        before = (folder / file).read_bytes()
        await refusal(client, "append_rows", file=file, rows=[{"name": "x", "item": "x"}, {"nothing": 1}])
        assert (folder / file).read_bytes() == before
    await refusal(client, "append_rows", file="people.sqlite", rows=[{"name": "x"}, {"name": None}])
    assert await query(client, "people.sqlite", "SELECT count(*) FROM person") == [[2]]


async def test_a_disk_that_is_full_leaves_the_file_as_it_was(
    client: Sheets | Client, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_: int) -> None:
        raise OSError(28, "No space left on device")

    before = (folder / "sales.csv").read_bytes()
    monkeypatch.setattr(guard.os, "fsync", full)
    text = await refusal(client, "append_rows", file="sales.csv", rows=[{"name": "x"}])
    assert "No space left on device" in text
    assert (folder / "sales.csv").read_bytes() == before


def bomb() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("xl/worksheets/sheet1.xml", b" " * (4 << 20))
    return target.getvalue()


def entities() -> bytes:
    target = io.BytesIO()
    with zipfile.ZipFile(target, "w") as archive:
        lines = "".join(f'<!ENTITY e{n + 1} "{f"&e{n};" * 10}">' for n in range(9))
        archive.writestr(
            "[Content_Types].xml", f'<?xml version="1.0"?><!DOCTYPE x [<!ENTITY e0 "x">{lines}]><x>&e9;</x>'
        )
    return target.getvalue()


@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("bomb.xlsx", bomb, "unpacks to more than is allowed"),
        ("entities.xlsx", entities, "declares a document type"),
        ("damaged.xlsx", lambda: b"PK\x03\x04 and then nothing", "cannot be read as XLSX"),
        ("text.xlsx", lambda: b"a,b\n1,2\n", "cannot be read as XLSX"),
        ("damaged.sqlite", lambda: b"SQLite format 3\0" + b"x" * 5000, "SQLite"),
        ("text.db", lambda: b"hello" * 1000, "SQLite"),
        ("zeros.csv", lambda: b"a,b\n\0\xff\0,1\n", "NUL"),
        ("wide.csv", lambda: b",".join(b"c%d" % n for n in range(2000)) + b"\n", "over 500 columns"),
    ],
)
async def test_a_file_that_is_damaged_or_hostile_is_refused(name: str, content: Any, reason: str, folder: Path) -> None:
    (folder / name).write_bytes(content())
    assert reason in await refusal(Sheets(folder, Limits(unpacked=2 << 20)), "read_spreadsheet", file=name)


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"a\n", b"a,a,A\n1,2,3\n", b"a;b\n1\n1;2;3\n", b"\xef\xbb\xbfa,b\n1,2\n"]
)
async def test_odd_csv_files_are_read(content: bytes, client: Sheets | Client, folder: Path) -> None:
    (folder / "odd.csv").write_bytes(content)
    answer = await client.call_tool("read_spreadsheet", {"file": "odd.csv"})
    assert not answer.is_error or "has no tables" in str(answer.content)


async def test_names_of_tables_and_columns_cannot_carry_sql(client: Sheets | Client, folder: Path) -> None:
    (folder / "evil.csv").write_text('"a""); DROP TABLE data; --",b\n1,2\n')
    with sqlite3.connect(folder / "evil.sqlite") as database:
        database.execute('CREATE TABLE "x""; DROP TABLE y; --" (a)')
        database.execute("CREATE TABLE y (a)")
    database.close()
    assert (await call(client, "read_spreadsheet", file="evil.csv"))["columns"] == ['a"); DROP TABLE data; --', "b"]
    await call(client, "append_rows", file="evil.sqlite", sheet='x"; DROP TABLE y; --', rows=[{"a": 1}])
    assert await query(client, "evil.sqlite", "SELECT count(*) FROM y") == [[0]]


async def test_a_database_in_use_by_another_program_is_read_and_written_with_its_locks(
    client: Sheets | Client, folder: Path
) -> None:
    with sqlite3.connect(folder / "people.sqlite", isolation_level=None) as other:
        other.execute("PRAGMA journal_mode = WAL")
        other.execute("INSERT INTO person (name, age) VALUES ('Cy', 50)")
        assert await query(client, "people.sqlite", "SELECT count(*) FROM person") == [[3]]
        await call(client, "append_rows", file="people.sqlite", sheet="person", rows=[{"name": "Di"}])
        assert other.execute("SELECT count(*) FROM person").fetchone() == (4,)
    other.close()


async def test_read_only_offers_no_tool_that_writes(folder: Path) -> None:
    async with Client(make([folder], read_only=True)) as client:
        tools = (await client.list_tools()).tools
    assert {tool.name for tool in tools} == {"list_spreadsheets", "read_spreadsheet", "query_spreadsheet"}
    assert all(tool.annotations and tool.annotations.read_only_hint for tool in tools)
