"""Lighthouse's four scores for a page, with the network off, as it rates a mid-range phone.

Lighthouse comes from npm, in the versions of package-lock.json beside this file, into the build
folder.
"""

import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tools.site.browser import FLAGS, chromium
from tools.site.faults import CheckFailed, Fault, ToolMissing, needed, short

TOOLS = Path(__file__).parent
NO_NODE = (
    "Lighthouse needs Node.js 18.20 or later with npm: install them "
    "(on Debian: apt-get install nodejs npm)"
)
NO_NETWORK = re.compile(r"EAI_AGAIN|ENOTFOUND|ECONN|ETIMEDOUT|\bnetwork\b")
CATEGORIES = ("performance", "accessibility", "best-practices", "seo")
WANTED = 95
RUNS = 3  # of which the median counts, as the speed differs from run to run
SLOWDOWN = 4  # how much slower the phone is than this machine: Lighthouse's own default
NOISE = (
    "Lighthouse's performance depends on the machine and on what else it does; on two cores it "
    f"moves by several points, so each page is rated {RUNS} times and the median counts."
)
SECONDS = 240  # that one run may take
START_SECONDS = 60  # that Chromium may take to start


@dataclass(frozen=True)
class Scores:
    """What Lighthouse says of one page.

    Attributes:
        page: The page's path below the site's folder.
        points: The score of each category, 0 to 100.
        reasons: For each category, what costs it points.
        runs: The performance in each run, where there were several.
    """

    page: str
    points: dict[str, int]
    reasons: dict[str, list[str]]
    runs: tuple[int, ...] = ()

    @property
    def lowest(self) -> int:
        """The lowest of the four scores."""
        return min(self.points.values())

    def faults(self, wanted: int = WANTED) -> list[Fault]:
        """Return a fault for each category below what is wanted."""
        return [
            Fault(
                "lighthouse",
                self.page,
                category,
                f"{points} of 100, wanted {wanted}; " + "; ".join(self.reasons[category]),
            )
            for category, points in self.points.items()
            if points < wanted
        ]


def install(build: Path) -> Path:
    """Install Lighthouse into the build folder, unless the locked version is there already.

    Args:
        build: The build folder, such as ``_build``.

    Returns:
        The program.

    Raises:
        ToolMissing: If npm is not installed, or the registry cannot be reached.
        CheckFailed: If npm fails for another reason.
    """
    needed(NO_NODE, "node")
    npm = needed(NO_NODE, "npm")
    folder = build / "site_check" / "node"
    program = folder / "node_modules" / "lighthouse" / "cli" / "index.js"
    lock, stamp = TOOLS / "package-lock.json", folder / "installed.json"
    if stamp.is_file() and stamp.read_bytes() == lock.read_bytes():
        return program
    stamp.unlink(missing_ok=True)  # npm empties the folder first, whatever comes of it
    folder.mkdir(parents=True, exist_ok=True)
    for file in ("package.json", "package-lock.json"):
        shutil.copy(TOOLS / file, folder)
    options = ["--prefix", str(folder), "--ignore-scripts", "--no-audit", "--no-fund"]
    done = subprocess.run([npm, "ci", *options], capture_output=True, text=True)
    if done.returncode != 0:
        kind = ToolMissing if NO_NETWORK.search(done.stderr) else CheckFailed
        raise kind(f"npm could not install Lighthouse: {short(done.stderr, 400)}")
    shutil.copy(lock, stamp)
    return program


def rate(program: Path, page: str, url: str) -> Scores:
    """Rate a page `RUNS` times.

    Args:
        program: What `install` returned.
        page: The page's path below the site's folder.
        url: Where it is served.

    Returns:
        The scores of the run with the median performance; of every other category, the median.

    Raises:
        ToolMissing: If Chromium or Node.js is missing.
        CheckFailed: If Lighthouse failed twice in one run.
    """
    options = (
        f"--only-categories={','.join(CATEGORIES)}",
        f"--throttling.cpuSlowdownMultiplier={SLOWDOWN}",
    )
    rated = [read_report(page, _run_or_again(program, url, *options)) for _ in range(RUNS)]
    rated.sort(key=lambda scores: scores.points["performance"])
    middle = rated[RUNS // 2]
    points, reasons = dict(middle.points), dict(middle.reasons)
    for name in CATEGORIES[1:]:
        by_points = sorted((scores.points[name], at) for at, scores in enumerate(rated))
        points[name], at = by_points[RUNS // 2]
        reasons[name] = rated[at].reasons[name]
    runs = tuple(scores.points["performance"] for scores in rated)
    return Scores(page, points, reasons, runs)


def _run_or_again(program: Path, url: str, *options: str) -> dict[str, Any]:
    try:
        return run(program, url, *options)
    except CheckFailed:
        return run(program, url, *options)


def run(program: Path, url: str, *options: str) -> dict[str, Any]:
    """Run Lighthouse once, in a Chromium of its own, and return its report."""
    node = needed(NO_NODE, "node")
    with tempfile.TemporaryDirectory() as folder, _chromium_on_a_port() as port:
        output = Path(folder) / "report.json"
        command = [
            node, str(program), url, f"--port={port}", "--output=json", "--quiet",
            f"--output-path={output}", "--no-enable-error-reporting", *options,
        ]  # fmt: skip
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=SECONDS)
        except subprocess.TimeoutExpired as error:
            raise CheckFailed(f"Lighthouse took longer than {SECONDS} s for {url}") from error
        if done.returncode != 0 or not output.is_file():
            raise CheckFailed(f"Lighthouse failed: {short(done.stderr[-400:], 400)}")
        report: dict[str, Any] = json.loads(output.read_text(encoding="utf-8"))
    return report


@contextmanager
def _chromium_on_a_port() -> Iterator[int]:
    """Run Chromium with an empty profile and yield the port that Lighthouse drives it by."""
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        started = subprocess.Popen(
            [chromium(), "--headless=new", *FLAGS, f"--user-data-dir={profile}",
             "--remote-debugging-port=0", "about:blank"],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True,
        )  # fmt: skip
        try:
            yield _port(Path(profile) / "DevToolsActivePort")
        finally:
            os.killpg(started.pid, signal.SIGKILL)
            started.wait()


def _port(file: Path) -> int:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if file.is_file() and (lines := file.read_text().split()):
            return int(lines[0])
        time.sleep(0.1)
    raise CheckFailed(f"Chromium did not start within {START_SECONDS} s")


def read_report(page: str, report: dict[str, Any]) -> Scores:
    """Return the scores of a report and what costs points.

    Args:
        page: The page's path below the site's folder.
        report: Lighthouse's report, read from JSON.

    Returns:
        The scores; a category that could not be rated has 0 points.
    """
    points: dict[str, int] = {}
    reasons: dict[str, list[str]] = {}
    for name in CATEGORIES:
        category = report["categories"][name]
        points[name] = round(100 * (category["score"] or 0))
        reasons[name] = []
        for reference in sorted(category["auditRefs"], key=lambda each: -each["weight"]):
            audit = report["audits"][reference["id"]]
            score = 1 if audit["score"] is None else audit["score"]
            if reference["weight"] and score < 0.9 and audit["scoreDisplayMode"] != "manual":
                reasons[name].append(_reason(audit))
        if report.get("runtimeError"):
            reasons[name].append(short(report["runtimeError"].get("message", "")))
    return Scores(page, points, reasons)


def _reason(audit: dict[str, Any]) -> str:
    text: str = audit["title"]
    if audit.get("displayValue"):
        text += f" ({audit['displayValue']})"
    items = audit.get("details", {}).get("items", [])
    if items and isinstance(items[0].get("node"), dict):
        text += f", first at {items[0]['node'].get('selector', '')}"
    elif items and "description" in items[0]:
        text += f", first: {short(str(items[0]['description']), 80)}"
    return short(text, 200)
