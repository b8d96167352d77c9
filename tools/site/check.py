"""``make site-check``: is the built site what it promises to be?

Serves the site on this machine alone, opens every page in headless Chromium with everything
outside blocked, and checks what the goals of the site say. The goals join goals.json and the
scoreboard; the faults are listed in ``_build/site_check/faults.txt``, with pictures beside it.
The last lines say what was not run. ``--only ci`` is what ``.ci/run`` does within minutes: the
checks that a change is most likely to break, with a sample of the listings of source code.
Exit status 1 if something is wrong, 2 if a check could not be carried out.
"""

import argparse
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from posttrain.core.goals_table import GoalsTable
from tools.notebooks.first_cell import head_of
from tools.notebooks.inline import NotebookError
from tools.site import goals
from tools.site.checks import (
    ROOT,
    SOURCES,
    Found,
    Job,
    check_elsewhere,
    check_keyboard,
    check_lighthouse,
    check_pages,
    check_search,
    chosen_pages,
    unseen_listings,
)
from tools.site.faults import Fault, ToolMissing, report, short, write_faults
from tools.site.links import Site
from tools.site.server import SiteServer

PAGES = ("offline", "axe")  # looked at together, page by page
CHECKS: dict[str, Callable[[Job], Found]] = {
    "keyboard": check_keyboard,
    "search": check_search,
    "lighthouse": check_lighthouse,
}
NAMES = (*PAGES, *CHECKS, *SOURCES)
# One more than cores, as each waits for its page a sixth of the time.
BROWSERS = min(6, (os.cpu_count() or 1) + 1)
CI = "ci"
GROUPS = {CI: ("offline", "axe", "search", "keyboard", "notebooks", "wheel")}
BEFORE = {"clean-run": "notebooks,clean-run"}  # it runs what the other check writes


def options(arguments: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--html", type=Path, default=ROOT / "_build" / "html")
    parser.add_argument(
        "--only", metavar="CHECKS", default="",
        help=f"some of {','.join(NAMES)}; "
        f"{CI} stands for {','.join(GROUPS[CI])}, with a sample of the listings of source code",
    )  # fmt: skip
    parser.add_argument(
        "--pages", nargs="+", default=[], metavar="PATTERN",
        help="look only at these, such as 'book/sft/*'; the goals are then not recorded",
    )  # fmt: skip
    parser.add_argument(
        "--browsers", type=int, default=BROWSERS, help=f"side by side ({BROWSERS})"
    )
    parser.add_argument(
        "--skip-missing", action="store_true",
        help="a check whose program is not installed is left out, and does not count",
    )  # fmt: skip
    asked = parser.parse_args(arguments)
    words = asked.only.replace(",", " ").split() or list(NAMES)
    unknown = sorted(set(words) - {*NAMES, *GROUPS})
    if unknown:
        choice = ", ".join((*NAMES, *GROUPS))
        parser.error(f"unknown check {', '.join(unknown)}: choose from {choice}")
    asked.sample = CI in words
    asked.only = list(
        dict.fromkeys(name for word in words for name in GROUPS.get(word, [word]))
    )
    return asked


def run(job: Job, only: Sequence[str]) -> Found:
    """Run checks one after the other, whatever the others find.

    Args:
        job: What they work on.
        only: Their names.

    Returns:
        What all of them found; a check that lacks its program leaves a fault.
    """
    steps: dict[str, Callable[[], Found]] = {}
    if any(name in only for name in PAGES):
        names = [name for name in PAGES if name in only]
        steps[" and ".join(names)] = lambda: check_pages(job, names)
    for name in only:
        if name in CHECKS:
            steps[name] = lambda name=name: CHECKS[name](job)  # type: ignore[misc]
        elif name in SOURCES:
            steps[name] = lambda name=name: check_elsewhere(name)  # type: ignore[misc]
    total = Found()
    for name, step in steps.items():
        start = time.monotonic()
        try:
            found = step()
        except ToolMissing as error:
            found = Found(missing=[f"{name}: not measured here: {error}"])
        except Exception as error:  # whatever goes wrong there, the other checks go on
            what = short(f"{type(error).__name__}: {error}", 400)
            found = Found(faults=[Fault(name, "the check itself", "failed", what)])
        total.goals += found.goals
        total.faults += found.faults
        total.missing += found.missing
        total.ran += [] if found.missing else name.split(" and ")
        total.notes += found.notes
        total.seconds[name] = time.monotonic() - start
        write_faults(total.faults, job.folder)  # now, in case a later check is interrupted
        print(f"{name}: {total.seconds[name]:.0f} s", flush=True)
    return total


def show(found: Found, folder: Path) -> None:
    """List the faults in the folder; print them and what else was found."""
    file = write_faults(found.faults, folder)
    if found.faults:
        count = f"{len(found.faults)} faults" if len(found.faults) > 1 else "1 fault"
        print(f"\n{report(found.faults)}\n\n{count}, all listed in {file}; pictures beside it.")
    seconds = ", ".join(f"{name} {took:.0f}" for name, took in found.seconds.items())
    found.notes.append(f"Seconds: {seconds}; in all {sum(found.seconds.values()):.0f}.")
    print("\n" + "\n".join(found.notes))
    if found.goals:
        print(f"\n{GoalsTable(goals.rows_of(found.goals))!r}")
    for sentence in dict.fromkeys(found.missing):
        print(f"site-check: {sentence}", file=sys.stderr)


def commit() -> str:
    """Return the commit of this checkout, or nothing where git does not know it."""
    try:
        return head_of(ROOT)
    except NotebookError:
        return ""


def not_run(ran: Sequence[str], job: Job) -> list[str]:
    """Return what this run left out, and how it is run.

    Args:
        ran: The checks that ran.
        job: What they worked on.

    Returns:
        A line for each check; no line if all of them ran on all pages.
    """
    command = "make site-check CHECKS="
    left_out = [name for name in NAMES if name not in ran]
    lines = [f"Not run: {name}: {command}{BEFORE.get(name, name)}" for name in left_out]
    checks = [name for name in PAGES if name in ran]
    if checks and job.unseen:
        names = ",".join(checks)
        lines.append(f"Looked at {job.listings} only; at all of them: {command}{names}")
    return lines


def main(arguments: Sequence[str] | None = None) -> int:
    """Check the built site.

    Args:
        arguments: The command line, without the program's name.

    Returns:
        The exit status.
    """
    asked = options(arguments)
    if not (asked.html / "goals.json").is_file():
        print(f"site-check: no finished site in {asked.html}: run make book", file=sys.stderr)
        return 2
    site = Site(asked.html)
    try:
        pages = chosen_pages(site, asked.pages)
    except ValueError as error:
        print(f"site-check: {error}", file=sys.stderr)
        return 2
    with SiteServer(asked.html, site.prefix) as server:
        unseen = unseen_listings(site, pages, commit()) if asked.sample else []
        pages = [page for page in pages if page not in unseen]
        job = Job(site, server, pages, asked.html.resolve().parent, asked.browsers, unseen)
        shutil.rmtree(job.pictures, ignore_errors=True)  # of an earlier run
        found = run(job, asked.only)
    show(found, job.folder)
    if not asked.pages:
        written = goals.record(asked.html, found.goals, found.ran)
        print(f"\nRecorded in goals.json and on {', '.join(written) or 'no page'}.")
    for line in not_run(found.ran, job):
        print(line)
    if found.faults or not all(goal.passed for goal in found.goals):
        return 1
    return 2 if found.missing and not asked.skip_missing else 0


if __name__ == "__main__":
    sys.exit(main())
