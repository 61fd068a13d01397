"""`efflab site --serve`: the built pages on this machine's own address, for nobody else."""

import os
import sys
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from efflab.errors import require

HOST = "127.0.0.1"
TYPES = {
    ".css": "text/css; charset=utf-8",
    ".gz": "application/gzip",
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".json": "application/json",
    ".mjs": "text/javascript; charset=utf-8",
    ".svg": "image/svg+xml",
    ".wasm": "application/wasm",
    ".webp": "image/webp",
}
"""What browsers insist on: a system's own table may call a module "text/plain"."""


class Handler(SimpleHTTPRequestHandler):
    """Serves files, and says nothing about each."""

    extensions_map = SimpleHTTPRequestHandler.extensions_map | TYPES

    lasts = False
    """Whether a browser may keep the reply. An asset's name changes with its content; pages, and
    what was not found, are asked for again."""

    def send_response(self, code, message=None):
        is_there = code in (HTTPStatus.OK, HTTPStatus.NOT_MODIFIED)  # a bad request has no path
        self.lasts = is_there and self.path.startswith("/assets/")
        super().send_response(code, message)

    def end_headers(self):
        self.send_header("Cache-Control", "max-age=31536000" if self.lasts else "no-cache")
        super().end_headers()

    def log_message(self, *args):
        pass


class Server(ThreadingHTTPServer):
    """On localhost; a reader who leaves a page while it loads is no error."""

    def handle_error(self, request, client_address):
        if not isinstance(sys.exc_info()[1], ConnectionError):
            super().handle_error(request, client_address)


def require_port(port: int) -> None:
    """Refuse a port that no machine has."""
    require(0 <= port <= 65_535, "--port", port, "0 (a free one) to 65535")


def make_server(folder: Path, port: int = 0) -> Server:
    """A server of `folder`; `port` 0 is a free one. `OSError` where it is taken."""
    require_port(port)
    return Server((HOST, port), partial(Handler, directory=folder))


def serve(folder: Path, port: int = 0, say=print) -> None:
    """Serve `folder` until Ctrl+C."""
    with make_server(folder, port) as server, suppress(KeyboardInterrupt):
        say(f"open http://{HOST}:{server.server_port}/ (Ctrl+C stops it)")
        server.serve_forever()
    say("stopped")


def build_or_serve(folder: Path, port: int | None, say=print) -> None:
    """Build the site, or with a port serve the one that is there, built first if need be."""
    if port is not None:
        require_port(port)
    index = folder / "index.html"
    if port is None or not index.exists():
        from efflab.publishing.site.build import build_site

        build_site(folder, say=say)
    if port is None:
        return say(f"open {os.path.relpath(index)}, or: efflab site --serve")
    serve(folder, port, say)
