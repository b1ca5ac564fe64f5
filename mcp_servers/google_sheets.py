"""Spreadsheets of Google Sheets as tables, through Google's own client and a service account.

Only those named at the start of the server can be used. Values are written raw: nothing is taken for a formula.
"""

from collections.abc import Callable, Mapping
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from mcp_servers.guard import Refusal
from toolkit.core.errors import UsageError

SCOPE = "https://www.googleapis.com/auth/spreadsheets"
SECONDS = 20
MAX_ROWS = 100_000
PREFIX = "google:"


class Grid(NamedTuple):
    """One sheet as it stands: the first row is the header. Rows may be shorter than it."""

    title: str
    rows: list[list[Any]]


class Account:
    """A service account. `endpoint` replaces Google's own, for a stand-in.

    Raises UsageError for a key file that is none, or without Google's client installed.
    """

    def __init__(self, key_file: Path, *, endpoint: str | None = None) -> None:
        try:
            from google.oauth2 import service_account
        except ImportError:
            raise UsageError(
                "Google Sheets needs Google's client", hint="pip install 'local-llm-toolkit[google-sheets]'"
            ) from None
        try:
            read: Callable[..., Any] = service_account.Credentials.from_service_account_file
            self.credentials = read(str(key_file), scopes=[SCOPE])
        except (OSError, ValueError) as error:
            raise UsageError(
                f"{key_file} is not the key file of a service account ({type(error).__name__})",
                hint="download it from the Google Cloud console: IAM, Service accounts, Keys",
            ) from None
        self._endpoint = endpoint

    @property
    def email(self) -> str:
        """Whom a spreadsheet must be shared with."""
        return str(self.credentials.service_account_email)

    def service(self) -> Any:
        """A connection of its own: Google's client is not made for several threads."""
        import google_auth_httplib2
        import httplib2
        from googleapiclient.discovery import build

        options = {"api_endpoint": self._endpoint} if self._endpoint else None
        http = google_auth_httplib2.AuthorizedHttp(self.credentials, http=httplib2.Http(timeout=SECONDS))
        return build("sheets", "v4", http=http, client_options=options, cache_discovery=False, static_discovery=True)


class Book:
    """One spreadsheet of Google Sheets. Every method raises Refusal with what to do instead."""

    def __init__(self, account: Account, name: str, identifier: str) -> None:
        self.account = account
        self.name = f"{PREFIX}{name}"
        self._identifier = identifier

    def grids(self) -> list[Grid]:
        """All sheets, in their order."""
        found = self._ask(
            lambda sheets: sheets.get(spreadsheetId=self._identifier, fields="sheets.properties(title,gridProperties)")
        )
        properties = [sheet["properties"] for sheet in found.get("sheets", [])]
        for sheet in properties:
            if sheet.get("gridProperties", {}).get("rowCount", 0) > MAX_ROWS:
                raise Refusal(f"{sheet['title']} has over {MAX_ROWS:,} rows", hint="choose a smaller spreadsheet")
        titles = [str(sheet["title"]) for sheet in properties]
        if not titles:
            return []
        values = self._ask(
            lambda sheets: sheets.values().batchGet(
                spreadsheetId=self._identifier,
                ranges=[quoted(title) for title in titles],
                valueRenderOption="UNFORMATTED_VALUE",
                dateTimeRenderOption="FORMATTED_STRING",
            )
        )
        ranges = values.get("valueRanges", [])
        return [Grid(title, found.get("values", [])) for title, found in zip(titles, ranges, strict=True)]

    def append(self, title: str, rows: list[list[Any]]) -> None:
        """Add rows below the table."""
        self._ask(
            lambda sheets: sheets.values().append(
                spreadsheetId=self._identifier,
                range=quoted(title),
                valueInputOption="RAW",
                insertDataOption="INSERT_ROWS",
                body={"values": rows},
            )
        )

    def update(self, title: str, cells: Mapping[tuple[int, int], Any]) -> None:
        """Set cells by (row, column), both from 1, in one request."""
        data = [
            {"range": f"{quoted(title)}!{letters(column)}{row}", "values": [["" if value is None else value]]}
            for (row, column), value in cells.items()
        ]
        self._ask(
            lambda sheets: sheets.values().batchUpdate(
                spreadsheetId=self._identifier, body={"valueInputOption": "RAW", "data": data}
            )
        )

    @cached_property
    def _hint(self) -> str:
        return f"ask the user to share {self.name} with {self.account.email}"

    def _ask(self, question: Callable[[Any], Any]) -> Any:
        from google.auth.exceptions import GoogleAuthError
        from googleapiclient.errors import HttpError

        try:
            service = self.account.service()
            try:
                return question(service.spreadsheets()).execute()
            finally:
                service.close()
        except HttpError as error:
            if error.status_code in (403, 404):
                raise Refusal(f"Google gives no access to {self.name}", hint=self._hint) from None
            if error.status_code == 429:
                raise Refusal("Google says: too many requests", hint="wait a minute, then try again") from None
            raise Refusal(f"Google answers with status {error.status_code}", hint="try again") from None
        except GoogleAuthError:
            raise Refusal("Google does not accept the service account", hint="tell the user") from None
        except OSError:
            raise Refusal("Google Sheets cannot be reached; this machine may be offline", hint="try again") from None


def quoted(title: str) -> str:
    """A sheet's title in A1 notation."""
    return "'" + title.replace("'", "''") + "'"


def letters(column: int) -> str:
    """The name of a column, from 1: A, B, ... Z, AA."""
    name = ""
    while column:
        column, rest = divmod(column - 1, 26)
        name = chr(65 + rest) + name
    return name


def books(account: Account, named: list[str]) -> list[Book]:
    """The spreadsheets given as NAME=ID. Raises UsageError."""
    found = []
    for text in named:
        name, _, identifier = text.partition("=")
        if not name or not identifier or not name.replace("-", "").replace("_", "").isalnum():
            raise UsageError(f"{text} is not NAME=ID", hint="--google-sheet budget=1AbC...  (the ID in its address)")
        found.append(Book(account, name, identifier))
    return found
