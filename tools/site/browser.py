"""Headless Chromium on pages of the site, with everything outside this machine blocked.

Pages come from the server of `tools.site.server`, or straight from the disk.
"""

import os
import re
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from queue import Empty, Queue
from types import TracebackType
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from tools.site.faults import Fault, ToolMissing, needed, short
from tools.site.server import SiteServer

if TYPE_CHECKING:
    from playwright.sync_api import Page, Request, Response, Route

NO_CHROMIUM = (
    "the browser checks need Chromium: install it (on Debian: apt-get install chromium), "
    "or name the program in the environment variable CHROMIUM"
)
NO_PLAYWRIGHT = "the browser checks need the Python package playwright: run make install"
# Chromium itself must not ask for anything either: no name but this machine's is looked up.
FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync",
    "--disable-background-networking", "--disable-component-update", "--disable-dev-shm-usage",
    "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
]  # fmt: skip
THEMES = ("light", "dark")
DESKTOP, PHONE = (1280, 800), (390, 844)
PATIENCE = 60_000  # milliseconds: other work may share the machine
STILL = "*,*::before,*::after{transition:none!important;animation:none!important}"
SET_THEME = """theme => {
    for (const name of ["mode", "theme"]) {
        document.documentElement.dataset[name] = theme;
        localStorage.setItem(name, theme);
    }
    return new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)));
}"""
# Whatever waits until it is seen (formulas, pictures) gets its turn.
SHOW = """async () => {
    for (let y = 0; y < document.body.scrollHeight; y += innerHeight) {
        scrollTo(0, y);
        await new Promise(done => setTimeout(done, 20));
    }
    scrollTo(0, 0);
}"""
# What is folded is unfolded as a reader does it, so that what it holds is checked too.
UNFOLD = """() => {
    document.querySelectorAll("main details").forEach(box => (box.open = true));
    document.querySelectorAll(".toggle-hidden button.toggle-button")
        .forEach(button => button.click());
}"""
FOLD = """() => {
    document.querySelectorAll("main details").forEach(box => (box.open = false));
    document.querySelectorAll(".toggle:not(.toggle-hidden) button.toggle-button")
        .forEach(button => button.click());
}"""


def chromium() -> str:
    """Return the path of Chromium.

    Raises:
        ToolMissing: If it is not installed.
    """
    return needed(NO_CHROMIUM, os.environ.get("CHROMIUM", ""), "chromium", "chromium-browser")


class Visit:
    """A page that is open in the browser.

    Attributes:
        page: The page's path below the site's folder.
        tab: Playwright's page.
        faults: What was found while it was loaded.
        addresses: The site's own files that it asked for, without pictures.
    """

    def __init__(self, page: str, tab: "Page", origin: str) -> None:
        self.page, self.tab, self.origin = page, tab, origin
        self.faults: list[Fault] = []
        self.addresses: set[str] = set()
        tab.on("pageerror", lambda error: self.add("JavaScript error", str(error)))
        tab.on("console", lambda message: self._console(message.type, message.text))
        tab.on("request", self._request)
        tab.on("response", self._response)
        tab.on("requestfailed", self._failed)
        tab.on("websocket", lambda socket: self._outside(socket.url))

    def add(self, rule: str, what: str, element: str = "", where: str = "") -> None:
        """Note a fault, once."""
        fault = Fault("offline", self.page, rule, short(what), short(element), where)
        if fault not in self.faults:
            self.faults.append(fault)

    def _console(self, kind: str, text: str) -> None:
        # Files that could not be loaded are reported by what they are.
        if kind == "error" and not text.startswith("Failed to load resource"):
            self.add("JavaScript error", text)

    def _outside(self, address: str) -> None:
        self.add("outside request", f"the page asked for {address}")

    def _request(self, request: "Request") -> None:
        address = request.url
        if urlsplit(address).scheme in ("data", "blob", "about"):
            return
        if not address.startswith(self.origin + "/"):
            self._outside(address)
        elif request.resource_type != "image":
            self.addresses.add(address)

    def _response(self, response: "Response") -> None:
        if response.status >= 400:
            path = urlsplit(response.url).path
            self.add("missing file", f"{path} was answered with {response.status}")

    def _failed(self, request: "Request") -> None:
        # A file from the disk has no status. What is outside was blocked, and noted already.
        if request.url.startswith("file:") and request.url.startswith(self.origin + "/"):
            path = request.url.removeprefix(self.origin)
            self.add("missing file", f"{path} is not there, or may not be read from the disk")

    def set(self, theme: str, size: tuple[int, int]) -> None:
        """Show the page in a theme (``light`` or ``dark``) and at a size in pixels."""
        if self.tab.viewport_size != {"width": size[0], "height": size[1]}:
            self.tab.set_viewport_size({"width": size[0], "height": size[1]})
        self.tab.evaluate(SET_THEME, theme)


class Browser:
    """One headless Chromium; use it in the thread that made it, in a ``with`` block."""

    def __init__(self, server: SiteServer) -> None:
        self.server = server
        try:
            from playwright.sync_api import sync_playwright
        except ImportError as error:
            raise ToolMissing(NO_PLAYWRIGHT) from error
        path = chromium()
        self._playwright = sync_playwright().start()
        self._start = partial(
            self._playwright.chromium.launch,
            executable_path=path,
            args=FLAGS,
            timeout=2 * PATIENCE,
        )
        self._context: Any = None
        try:
            self._chromium = self._start()
        except BaseException:
            self._playwright.stop()
            raise

    def __enter__(self) -> "Browser":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        try:
            with suppress(Exception):  # one that has crashed is closed already
                self._chromium.close()
        finally:
            self._playwright.stop()

    def restart(self) -> None:
        """Begin anew with a fresh Chromium, after one that hangs or has crashed."""
        self._context = None
        with suppress(Exception):
            self._chromium.close()
        self._chromium = self._start()

    def open(
        self, page: str, size: tuple[int, int] = DESKTOP, query: str = "", disk: bool = False
    ) -> Visit:
        """Open a page as on a first visit, in the light theme, and wait until it is loaded.

        Args:
            page: Its path below the site's folder.
            size: Width and height of the window in pixels.
            query: What follows the path, such as ``?q=term``.
            disk: Whether to open the file itself, without the server.

        Returns:
            The open page.
        """
        folder = self.server.files.folder
        origin = folder.as_uri() if disk else self.server.origin
        address = f"{origin}/{page}" if disk else self.server.url(page)
        self.close()
        self._context = self._chromium.new_context(
            viewport={"width": size[0], "height": size[1]},
            reduced_motion="reduce",
            service_workers="block",
        )
        self._context.set_default_timeout(PATIENCE)
        own = re.escape(origin + "/")
        self._context.route(re.compile(f"^(?!{own}|data:|blob:|about:)"), _refuse)
        visit = Visit(page, self._context.new_page(), origin)
        visit.tab.goto(address + query, wait_until="load")
        visit.tab.add_style_tag(content=STILL)
        return visit

    def close(self) -> None:
        """Close the page that is open, if there is one."""
        if self._context is not None:
            self._context.close()
        self._context = None


def _refuse(route: "Route") -> None:
    route.abort("blockedbyclient")


def in_browsers(
    server: SiteServer,
    pages: Sequence[str],
    look: Callable[[Browser, str], list[Fault]],
    done: Callable[[], object],
    browsers: int = 2,
) -> list[Fault]:
    """Look at pages in several browsers at a time.

    Args:
        server: Where the pages are.
        pages: Their paths below the site's folder.
        look: Looks at one page in the browser that it is given.
        done: Called after each page, in this thread.
        browsers: How many browsers run side by side.

    Returns:
        The faults of all pages.

    Raises:
        ToolMissing: If Chromium or playwright is not installed.
    """
    chromium()
    waiting: Queue[str] = Queue()
    results: Queue[list[Fault] | BaseException] = Queue()
    for page in pages:
        waiting.put(page)

    def work() -> None:
        try:
            with Browser(server) as browser:
                while True:
                    results.put(look(browser, waiting.get_nowait()))
        except Empty:
            pass
        except BaseException as error:
            results.put(error)

    threads = [threading.Thread(target=work, daemon=True) for _ in range(browsers)]
    for thread in threads:
        thread.start()
    faults: list[Fault] = []
    for _ in pages:
        result = results.get()
        if isinstance(result, BaseException):
            with suppress(Empty):
                while True:
                    waiting.get_nowait()  # the other browsers end after their present page
            for thread in threads:
                thread.join()
            raise result
        faults += result
        done()
    for thread in threads:
        thread.join()
    return faults


def screenshot(visit: Visit, folder: Path | None, name: str, selector: str = "") -> None:
    """Keep a picture of the window, or of one element, if there is a folder for pictures."""
    if folder is None:
        return
    from playwright.sync_api import Error

    folder.mkdir(parents=True, exist_ok=True)
    file = folder / (re.sub(r"[^\w.-]+", "_", f"{visit.page}-{name}")[:120] + ".png")
    try:
        if selector:
            visit.tab.locator(selector).first.screenshot(path=file, timeout=3000)
        else:
            visit.tab.screenshot(path=file)
    except Error:
        pass  # an element that cannot be shown
