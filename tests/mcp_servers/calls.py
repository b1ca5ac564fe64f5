"""One call of each server that needs nothing of the outside, and how it is answered."""

from typing import Any

CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "python": ("run_python", {"code": "6 * 7"}),
    "spreadsheet": ("query_spreadsheet", {"file": "t.csv", "sql": "SELECT sum(a) FROM data"}),
    "prices": ("crypto_price", {"coin": "btc"}),
    "web": ("read_page", {"url": "http://127.0.0.1/"}),
    "files": ("read_file", {"path": "t.csv"}),
    "images": ("list_image_models", {}),
}
ARGUMENTS = {
    "prices": ["--coingecko", "http://127.0.0.1:9", "--coinbase", "http://127.0.0.1:9"],
    "images": ["--url", "http://127.0.0.1:9"],
}
OFFLINE = {
    "prices": "no price service answers",
    "web": "only public pages can be read",
    "images": "no web UI answers",
}
