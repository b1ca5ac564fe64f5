import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from mcp.client.client import Client

from mcp_servers.catalogue import parser
from mcp_servers.google_sheets import Account, Book, books, letters, quoted
from mcp_servers.spreadsheet import build, make
from tests.mcp_servers.stand_ins import Answer, Asked, StandIn, serving
from toolkit.core.errors import UsageError


class Google:
    """A stand-in for Google's token endpoint and Sheets API v4
    (https://developers.google.com/workspace/sheets/api/reference/rest)."""

    def __init__(self) -> None:
        self.grids: dict[str, list[list[Any]]] = {
            "Q1": [["item", "price"], ["pen", 1.5], ["ink", 20], ["cap", ""]],
            "It's": [["a"]],
        }
        self.status = 200

    def __call__(self, asked: Asked) -> Answer:
        if asked.path == "/token":
            return Answer({"access_token": "t", "expires_in": 3600, "token_type": "Bearer"})
        if asked.headers.get("authorization") != "Bearer t":
            return Answer({"error": {"code": 401, "status": "UNAUTHENTICATED"}}, status=401)
        if self.status != 200:
            return Answer({"error": {"code": self.status, "message": "no", "status": "X"}}, status=self.status)
        path = unquote(asked.path).removeprefix("/v4/spreadsheets/sheet-id")
        body = json.loads(asked.body) if asked.body else {}
        if path == "":
            size = {"rowCount": 1000, "columnCount": 26}
            return Answer({"sheets": [{"properties": {"title": t, "gridProperties": size}} for t in self.grids]})
        if path == "/values:batchGet":
            return Answer({"valueRanges": [{"range": t, "values": rows} for t, rows in self.grids.items()]})
        if path == "/values/'Q1':append":
            assert asked.query["valueInputOption"] == "RAW"
            self.grids["Q1"] += body["values"]
            return Answer({"updates": {"updatedRows": len(body["values"])}})
        if path == "/values:batchUpdate":
            assert body["valueInputOption"] == "RAW"
            for change in body["data"]:
                column, row = re.fullmatch(r"'Q1'!([A-Z])(\d+)", change["range"]).groups()  # type: ignore[union-attr]
                self.grids["Q1"][int(row) - 1][ord(column) - 65] = change["values"][0][0]
            return Answer({"totalUpdatedCells": len(body["data"])})
        return Answer({"error": {"code": 404}}, status=404)


@pytest.fixture
def google() -> Google:
    return Google()


@pytest.fixture
def api(google: Google) -> Iterator[StandIn]:
    with serving(google) as running:
        yield running


@pytest.fixture(scope="module")
def private_key() -> str:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


@pytest.fixture
def key_file(api: StandIn, private_key: str, tmp_path: Path) -> Path:
    path = tmp_path / "key.json"
    account = {
        "type": "service_account",
        "project_id": "p",
        "private_key_id": "1",
        "private_key": private_key,
        "client_email": "robot@p.iam.gserviceaccount.com",
        "token_uri": f"{api.url}/token",
    }
    path.write_text(json.dumps(account))
    return path


@pytest.fixture
def remote(api: StandIn, key_file: Path) -> list[Book]:
    return books(Account(key_file, endpoint=api.url), ["budget=sheet-id"])


async def ask(remote: list[Book], folder: Path, tool: str, **arguments: Any) -> Any:
    async with Client(make([folder], remote=remote)) as client:
        return await client.call_tool(tool, arguments)


async def test_a_spreadsheet_of_google_is_listed_and_queried_like_a_file(remote: list[Book], tmp_path: Path) -> None:
    listed = (await ask(remote, tmp_path, "list_spreadsheets")).structured_content
    assert listed["files"] == [{"file": "google:budget", "format": "google", "bytes": 0, "sheets": []}]
    sheets = (await ask(remote, tmp_path, "list_spreadsheets", path="google:budget")).structured_content["files"][0]
    assert [(sheet["sheet"], sheet["rows"]) for sheet in sheets["sheets"]] == [("Q1", 3), ("It's", 0)]
    sql = 'SELECT sum(price) FROM "Q1"'
    answer = await ask(remote, tmp_path, "query_spreadsheet", file="google:budget", sql=sql)
    assert answer.structured_content["rows"] == [[21.5]]


async def test_rows_are_appended_and_cells_updated_raw(remote: list[Book], google: Google, tmp_path: Path) -> None:
    new = [{"item": "=1+1", "price": 3}]
    added = await ask(remote, tmp_path, "append_rows", file="google:budget", sheet="Q1", rows=new)
    values: dict[str, Any] = {"where": {"item": "ink"}, "values": {"price": 21}}
    changed = await ask(remote, tmp_path, "update_rows", file="google:budget", sheet="Q1", **values)
    assert (added.structured_content["total"], changed.structured_content["rows"]) == (4, 1)
    assert google.grids["Q1"] == [["item", "price"], ["pen", 1.5], ["ink", 21], ["cap", ""], ["=1+1", 3]]


async def test_nothing_is_sent_where_a_row_does_not_fit(remote: list[Book], api: StandIn, tmp_path: Path) -> None:
    rows = [{"item": "x"}, {"colour": "red"}]
    answer = await ask(remote, tmp_path, "append_rows", file="google:budget", sheet="Q1", rows=rows)
    assert "no column named `colour` in Q1; columns: item, price" in answer.content[0].text
    assert not any("append" in path for path in api.paths)


@pytest.mark.parametrize(
    ("status", "reason"),
    [(403, "share google:budget with robot@p.iam.gserviceaccount.com"), (404, "no access"), (429, "too many requests")],
)
async def test_what_google_refuses_is_told(
    status: int, reason: str, remote: list[Book], google: Google, tmp_path: Path
) -> None:
    google.status = status
    answer = await ask(remote, tmp_path, "read_spreadsheet", file="google:budget")
    assert reason in answer.content[0].text


async def test_a_spreadsheet_that_was_not_named_at_the_start_cannot_be_reached(
    remote: list[Book], api: StandIn, tmp_path: Path
) -> None:
    answer = await ask(remote, tmp_path, "read_spreadsheet", file="google:other")
    assert "no spreadsheet of Google named google:other; known: google:budget" in answer.content[0].text
    assert api.paths == []


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--google-sheet", "budget=1"], "needs the key file"),
        (["--google-sheet", "budget=1", "--google-credentials", "/nowhere.json"], "is not the key file"),
    ],
)
def test_a_start_without_credentials_is_refused(
    arguments: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("GOOGLE_APPLICATION_CREDENTIALS", raising=False)
    with pytest.raises(UsageError, match=message):
        build(parser("spreadsheet").parse_args(arguments))


def test_a_name_without_an_identifier_is_refused(key_file: Path) -> None:
    with pytest.raises(UsageError, match="is not NAME=ID"):
        books(Account(key_file), ["budget"])


def test_columns_and_titles_are_written_as_google_does() -> None:
    assert [letters(column) for column in (1, 26, 27, 702, 703)] == ["A", "Z", "AA", "ZZ", "AAA"]
    assert quoted("It's") == "'It''s'"
