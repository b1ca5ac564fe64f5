"""How long an MCP server takes from its start to its list of tools, as a multiple of importing the SDK alone."""

import json
import statistics
import subprocess
import sys
import tempfile
import time

from mcp_servers.catalogue import SERVERS

ROUNDS = 7
HELLO = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {"protocolVersion": "2025-06-18", "capabilities": {}, "clientInfo": {"name": "bench", "version": "1"}},
}
REST = [{"jsonrpc": "2.0", "method": "notifications/initialized"}, {"jsonrpc": "2.0", "id": 2, "method": "tools/list"}]


def until_tools(name: str, folder: str) -> float:
    """Wall seconds from the start of a server to its list of tools."""
    start = time.perf_counter()
    command = [sys.executable, "-P", "-m", "mcp_servers", name]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=folder, text=True
    ) as server:
        assert server.stdin is not None
        assert server.stdout is not None
        server.stdin.write(json.dumps(HELLO) + "\n")
        server.stdin.flush()
        server.stdout.readline()
        server.stdin.write("".join(json.dumps(message) + "\n" for message in REST))
        server.stdin.flush()
        listed = json.loads(server.stdout.readline())
        took = time.perf_counter() - start
        assert listed["result"]["tools"]
    return took


def importing() -> float:
    """Wall seconds of a Python that only imports the SDK's server."""
    start = time.perf_counter()
    subprocess.run([sys.executable, "-P", "-c", "from mcp.server import MCPServer"], check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the median of each server and the median of its ratio to the import, pair by pair."""
    with tempfile.TemporaryDirectory() as folder:
        importing()
        for name in SERVERS:
            pairs = [(until_tools(name, folder), importing()) for _ in range(ROUNDS)]
            ours, base = statistics.median(a for a, _ in pairs), statistics.median(b for _, b in pairs)
            ratio = statistics.median(a / b for a, b in pairs)
            print(f"{name:12} {ours * 1000:6.0f} ms   import of the SDK {base * 1000:6.0f} ms   ratio {ratio:5.2f}")
