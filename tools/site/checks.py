"""The checks of the built site. Each returns its goals and what is wrong."""

import hashlib
import json
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from fnmatch import fnmatch
from importlib import import_module
from pathlib import Path

from tqdm import tqdm

from posttrain.core.goals import Goal
from tools.site import lighthouse
from tools.site.axe import axe_source, look_with_axe
from tools.site.browser import Browser, chromium, in_browsers
from tools.site.faults import Fault, merged, short
from tools.site.keyboard import absent_controls, look_with_keyboard, pages_with_controls
from tools.site.links import Site
from tools.site.offline import look_from_disk, look_offline, open_page
from tools.site.search import look_for_term, read_terms
from tools.site.server import SiteServer

ROOT = Path(__file__).parents[2]
HOME, SCOREBOARD = "book/index.html", "book/scoreboard.html"
# The package's source as the site shows it, a page per module. They are all made alike, so a
# sample of this many may stand for them.
LISTINGS, SAMPLE = "_modules/posttrain/", 8
# Programs beside this one that measure goals of the site: each has `site_goals(root)`, which
# returns a list of goals.
SOURCES = {
    "notebooks": "tools.notebooks.builder",
    "clean-run": "tools.clean.run",
    "wheel": "tools.clean.wheel",
}


@dataclass
class Found:
    """What a check found.

    Attributes:
        goals: The goals that it measured.
        faults: What is wrong.
        notes: Sentences for the person who runs it.
        missing: What must be installed before the check can run.
        seconds: How long each check took.
        ran: The checks that ran, whether or not they came to their end.
    """

    goals: list[Goal] = field(default_factory=list)
    faults: list[Fault] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    missing: list[str] = field(default_factory=list)
    seconds: dict[str, float] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Job:
    """What all checks work on.

    Attributes:
        site: The site, read as text.
        server: Where it is served.
        pages: The pages to look at.
        unseen: Listings of source code that are not looked at: only their links are checked.
        build: The build folder, for what the checks write and for Lighthouse.
        browsers: How many browsers run side by side.
    """

    site: Site
    server: SiteServer
    pages: Sequence[str]
    build: Path
    browsers: int = 2
    unseen: Sequence[str] = ()

    @property
    def folder(self) -> Path:
        """Where the list of faults goes."""
        return self.build / "site_check"

    @property
    def pictures(self) -> Path:
        """Where pictures of faults go."""
        return self.folder / "pictures"

    @property
    def listings(self) -> str:
        """How many of all listings are looked at, in words."""
        seen = sum(page.startswith(LISTINGS) for page in self.pages)
        return f"{seen} of {seen + len(self.unseen)} listings of source code"


def chosen_pages(site: Site, patterns: Sequence[str]) -> list[str]:
    """Return the pages to look at.

    Args:
        site: The site.
        patterns: Such as ``book/sft/*``; all pages if there are none.

    Returns:
        Paths of pages, without those that only send the reader on.

    Raises:
        ValueError: If no page fits.
    """
    pages = [page for page, text in site.pages.items() if not text.forwards]
    if patterns:
        pages = [page for page in pages if any(fnmatch(page, each) for each in patterns)]
    if not pages:
        raise ValueError(f"{site.folder} has no page that fits {' '.join(patterns)}".rstrip())
    return pages


def unseen_listings(site: Site, pages: Sequence[str], seed: str) -> list[str]:
    """Return the listings of source code that a sample leaves out.

    The shortest and the longest are always looked at, the others in turn: which ones depends on
    the seed alone.

    Args:
        site: The site.
        pages: Paths of pages; none but listings are left out.
        seed: Any text, such as the name of a commit.

    Returns:
        Paths of listings, in the order of the pages.
    """
    by_size = sorted(
        (page for page in pages if page.startswith(LISTINGS)),
        key=lambda page: ((site.folder / page).stat().st_size, page),
    )
    if len(by_size) <= SAMPLE:
        return []
    middle = sorted(
        by_size[1:-1], key=lambda page: hashlib.sha256(f"{seed} {page}".encode()).digest()
    )
    left_out = set(middle[SAMPLE - 2 :])
    return [page for page in pages if page in left_out]


def check_pages(job: Job, wanted: Sequence[str]) -> Found:
    """Look at the pages in the browser, for the checks ``offline`` and ``axe``."""
    from playwright.sync_api import Error

    chromium()  # missing? then before the first page
    if "axe" in wanted:
        axe_source()
    on_disk = {HOME, SCOREBOARD, longest_chapter(job.site)} if "offline" in wanted else set()

    def look_once(browser: Browser, page: str) -> list[Fault]:
        visit, faults = open_page(browser, page), []
        if "offline" in wanted:
            faults += look_offline(browser, job.site, visit, job.pictures)
        if "axe" in wanted:
            faults += look_with_axe(visit, job.pictures)
        if page in on_disk:
            faults += look_from_disk(browser, page)
        return faults

    def look(browser: Browser, page: str) -> list[Fault]:
        with suppress(Error):  # a browser may crash or hang once
            return look_once(browser, page)
        browser.restart()
        try:
            return look_once(browser, page)
        except Error as error:
            browser.restart()
            what = f"the browser could not show it: {short(str(error))}"
            return [Fault(name, page, "page failed", what) for name in wanted]

    # The longest first: no browser is then left alone with one at the end.
    pages = sorted(job.pages, key=lambda page: -(job.site.folder / page).stat().st_size)
    with tqdm(total=len(pages), desc="pages", unit="page") as bar:
        faults = in_browsers(job.server, pages, look, bar.update, job.browsers)
    if "offline" in wanted:
        faults += [fault for page in job.unseen for fault in job.site.faults(page)]
    found = Found(faults=merged(faults))
    spoiled = {fault.page for fault in found.faults if fault.check == "offline"}
    grave = sum(fault.check == "axe" for fault in found.faults)
    total = len(job.pages)
    of = f", {job.listings} among them" if job.unseen else ""
    if "offline" in wanted:
        text = f"pages clean with the network off{of}"
        found.goals.append(
            Goal("site.offline_pages", text, total - len(spoiled), total, "==", n=total)
        )
    if "axe" in wanted:
        text = f"serious or critical accessibility faults, light and dark (axe-core){of}"
        found.goals.append(Goal("site.axe_serious", text, grave, 0, "==", n=total))
    return found


def check_keyboard(job: Job) -> Found:
    """Reach, see and work each kind of control without a mouse."""
    pairs = pages_with_controls(job.site)
    found = Found(faults=absent_controls(pairs))
    with Browser(job.server) as browser:
        for control, page in tqdm(pairs, desc="keyboard"):
            found.faults += look_with_keyboard(browser, control, page, job.pictures)
    found.faults = merged(found.faults)
    return found


def check_search(job: Job) -> Found:
    """Type each term of tools/site/search_terms.yml into the search field.

    The first is typed once more into a page that is opened as a file.
    """
    found, terms = Found(), read_terms()
    with Browser(job.server) as browser:
        for term, page in tqdm(terms.items(), desc="search", unit="term"):
            found.faults += look_for_term(browser, HOME, term, page)
        hits, text = len(terms) - len(found.faults), "search terms whose page comes first"
        term, page = next(iter(terms.items()))
        found.faults += look_for_term(browser, HOME, term, page, disk=True)
    found.goals.append(Goal("site.search_hits", text, hits, len(terms), "==", n=len(terms)))
    return found


def longest_chapter(site: Site) -> str:
    """Return the largest page of those that check goals; of all, if none does."""
    file = site.folder / "goals.json"
    rows = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else []
    chapters = {f"book/{row['chapter']}.html" for row in rows} & site.pages.keys()
    return max(chapters or site.pages, key=lambda page: (site.folder / page).stat().st_size)


def check_lighthouse(job: Job) -> Found:
    """Rate the first page and the longest chapter."""
    program = lighthouse.install(job.build)
    found, scores = Found(), []
    for page in tqdm([HOME, longest_chapter(job.site)], desc="lighthouse", unit="page"):
        rated = lighthouse.rate(program, page, job.server.url(page))
        scores.append(rated)
        found.faults += rated.faults()
        points = ", ".join(f"{name} {value}" for name, value in rated.points.items())
        runs = ", ".join(map(str, rated.runs))
        found.notes.append(f"Lighthouse, {page}: {points} (performance by run: {runs})")
    lowest = min(rated.lowest for rated in scores)
    found.notes.append(lighthouse.NOISE)
    text = (
        "lowest Lighthouse score of the first page and the longest chapter, on a phone "
        f"{lighthouse.SLOWDOWN} times slower than this machine, median of "
        f"{lighthouse.RUNS} runs"
    )
    n = sum(len(rated.points) for rated in scores)
    wanted = lighthouse.WANTED
    found.goals.append(Goal("site.lighthouse_min", text, lowest, wanted, ">=", n=n))
    return found


def check_elsewhere(name: str) -> Found:
    """Ask another program beside this one for its goals."""
    goals: list[Goal] = import_module(SOURCES[name]).site_goals(ROOT)
    faults = [
        Fault(
            name,
            goal.id,
            "not met",
            f"{goal.goal}: {goal.value}, not {goal.op} {goal.threshold}",
        )
        for goal in goals
        if not goal.passed
    ]
    return Found(goals, faults)
