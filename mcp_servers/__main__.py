"""`python -P -m mcp_servers NAME [--http PORT] ...`: run one server."""

import sys

from mcp_servers.catalogue import SERVERS, load, parser
from toolkit.core.config import secret
from toolkit.core.errors import ToolkitError, UsageError


def run(name: str, arguments: list[str]) -> None:
    """Serve until the client goes (stdio) or until stopped (HTTP). Raises ToolkitError."""
    from mcp_servers.server import log_without_content

    log_without_content()
    module = load(name)
    options = parser(name).parse_args(arguments)
    server = module.build(options)
    if options.http is None:
        if options.token is not None:
            raise UsageError("a token is for HTTP", hint=f"toolkit mcp run {name} --http 0 --token {options.token}")
        server.serve_stdio()
        return
    token = secret(options.token, what="--token") if options.token is not None else None
    if not 0 <= options.http <= 65535:
        raise UsageError(f"{options.http} is not a port", hint=f"toolkit mcp run {name} --http 0")
    try:
        server.serve_http(options.http, token)
    except OSError as error:
        raise ToolkitError(
            f"cannot listen on 127.0.0.1:{options.http}: {error.strerror}", hint=f"toolkit mcp run {name} --http 0"
        ) from None


def main(arguments: list[str]) -> int:
    """Run the server named first; the exit code."""
    if not arguments or arguments[0] in ("-h", "--help"):
        sys.stderr.write("usage: python -P -m mcp_servers NAME [--http PORT] ...\n")
        sys.stderr.writelines(f"  {name:12} {purpose}\n" for name, purpose in SERVERS.items())
        return 0 if arguments else 2
    try:
        run(arguments[0], arguments[1:])
    except ToolkitError as error:
        sys.stderr.write(f"error: {error.message}\n" + (f"hint: {error.hint}\n" if error.hint else ""))
        return error.exit_code
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
