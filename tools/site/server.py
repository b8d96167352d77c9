"""A server for the built site on this machine alone, answering as GitHub Pages does.

Text is sent compressed, pages may be kept for ten minutes, and an address that does not exist
gets ``404.html``. The server also knows how many bytes a file costs a reader.
"""

import gzip
import posixpath
import threading
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from urllib.parse import unquote, urlsplit

TYPES = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "application/javascript; charset=utf-8",
    ".mjs": "application/javascript; charset=utf-8",
    ".json": "application/json; charset=utf-8",
    ".svg": "image/svg+xml",
    ".xml": "application/xml; charset=utf-8",
    ".txt": "text/plain; charset=utf-8",
    ".md": "text/markdown; charset=utf-8",
    ".ipynb": "application/json; charset=utf-8",
    ".png": "image/png",
    ".jpg": "image/jpeg",
    ".ico": "image/x-icon",
    ".woff": "font/woff",
    ".woff2": "font/woff2",
    ".ttf": "font/ttf",
}
COMPRESSED = (
    "text/", "application/javascript", "application/json", "application/xml", "image/svg",
)  # fmt: skip
KEPT = "max-age=600"


class Files:
    """The files of a site, in the form in which they travel."""

    def __init__(self, folder: Path, prefix: str = "/") -> None:
        self.folder = folder.resolve()
        self.prefix = prefix
        self._bodies: dict[tuple[Path, int, int], bytes] = {}

    def find(self, address: str) -> Path | None:
        """Return the file at an address such as ``/name/index.html?q=a``, if there is one."""
        path = unquote(urlsplit(address).path)
        if not path.startswith(self.prefix):
            return None
        path = posixpath.normpath("/" + path.removeprefix(self.prefix)).lstrip("/")
        file = (self.folder / path).resolve()
        if file.is_dir():
            file /= "index.html"
        return file if file.is_file() and file.is_relative_to(self.folder) else None

    def body(self, file: Path) -> tuple[bytes, str, bool]:
        """Return what is sent for a file, its type, and whether it is compressed."""
        kind = TYPES.get(file.suffix.lower(), "application/octet-stream")
        packed = kind.startswith(COMPRESSED)
        state = file.stat()
        key = (file, state.st_mtime_ns, state.st_size)
        if key not in self._bodies:
            raw = file.read_bytes()
            self._bodies[key] = gzip.compress(raw, 6, mtime=0) if packed else raw
        return self._bodies[key], kind, packed

    def size(self, address: str) -> int:
        """Return how many bytes travel for an address, without headers; 0 for nothing."""
        file = self.find(address)
        return len(self.body(file)[0]) if file else 0


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD out of `Files`."""

    protocol_version = "HTTP/1.1"

    def __init__(self, files: Files, *args: object) -> None:
        self.files = files
        super().__init__(*args)  # type: ignore[arg-type]

    def do_GET(self) -> None:
        """Send a file."""
        self._answer(with_body=True)

    def do_HEAD(self) -> None:
        """Send the headers of a file."""
        self._answer(with_body=False)

    def _answer(self, *, with_body: bool) -> None:
        file, status = self.files.find(self.path), HTTPStatus.OK
        if file is None:
            file, status = self.files.find(self.files.prefix + "404.html"), HTTPStatus.NOT_FOUND
        body, kind, packed = self.files.body(file) if file else (b"", "text/plain", False)
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(body)))
        self.send_header("Cache-Control", KEPT)
        if packed:
            self.send_header("Content-Encoding", "gzip")
        self.end_headers()
        if with_body:
            self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


class QuietServer(ThreadingHTTPServer):
    """A server that does not complain about a browser that hangs up."""

    daemon_threads = True

    def handle_error(self, request: object, client_address: object) -> None:
        """Say nothing: what a page misses is reported by the page's own check."""


class SiteServer:
    """Serves a folder on a free port of 127.0.0.1 while the ``with`` block runs.

    Args:
        folder: The built site.
        prefix: The path below which it is served, such as ``/post-training-hands-on/``.
    """

    def __init__(self, folder: Path, prefix: str = "/") -> None:
        self.files = Files(folder, prefix)
        self._server = QuietServer(("127.0.0.1", 0), partial(Handler, self.files))
        self.origin = f"http://127.0.0.1:{self._server.server_port}"

    def url(self, page: str) -> str:
        """Return the address of a page such as ``book/index.html``."""
        return self.origin + self.files.prefix + page

    def __enter__(self) -> "SiteServer":
        threading.Thread(target=self._server.serve_forever, args=(0.05,), daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()
