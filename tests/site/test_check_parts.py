"""The parts of tools/site/check.py that need no browser, and what it makes of what it finds."""

import gzip
import json
import sys
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from book._ext.chapters import goals_html
from posttrain.core.goals import Goal
from tools.site import check as site_check
from tools.site import checks as site_checks
from tools.site import goals as site_goals
from tools.site.checks import (
    SAMPLE,
    Found,
    Job,
    chosen_pages,
    longest_chapter,
    unseen_listings,
)
from tools.site.faults import Fault, ToolMissing, merged, needed, report
from tools.site.keyboard import absent_controls, pages_with_controls
from tools.site.links import Site
from tools.site.search import TERMS, read_terms
from tools.site.server import SiteServer

ROOT = Path(__file__).parents[2]
LOSS = Goal("pretraining.loss", "loss", 1.5, 1.75, "<=").row("pretraining/gpt", "cpu")
AXE = Goal("site.axe_serious", "faults", 0, 0, "==", n=2)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A site of three pages, of which one only sends the reader on."""
    html = tmp_path / "html"
    (html / "book" / "pretraining").mkdir(parents=True)
    (html / "_static").mkdir()
    (html / "_static" / "logo.svg").write_text("<svg xmlns='http://www.w3.org/2000/svg'/>")
    (html / "_static" / "macros.html").write_text("<a href='nowhere'>no page</a>")
    (html / "index.html").write_text(
        '<meta http-equiv="Refresh" content="0; url=book/index.html">'
    )
    (html / "book" / "index.html").write_text(
        '<link rel="canonical" href="https://me.github.io/book-of/book/index.html">'
        '<img src="../_static/logo.svg"><h1 id="top-of-it">Book</h1>'
        '<a href="pretraining/gpt.html#loss">GPT</a> <a href="https://example.org">out</a>'
        "<!-- goals: totals -->old<!-- end of goals: totals -->"
    )
    (html / "book" / "pretraining" / "gpt.html").write_text(
        '<h2 id="loss">Loss</h2><a href="../index.html#top-of-it">up</a><a href="#">top</a>'
        "<!-- goals: site -->old<!-- end of goals: site -->" + "text " * 50
    )
    (html / "goals.json").write_text(json.dumps([LOSS]))
    return html


def broken(folder: Path, page: str, text: str) -> list[tuple[str, str]]:
    file = folder / page
    file.write_text(file.read_text() + text)
    return [(fault.rule, fault.what) for fault in Site(folder).faults(page)]


def test_a_site_without_broken_links(folder: Path) -> None:
    site = Site(folder)
    assert list(site.pages) == ["book/index.html", "book/pretraining/gpt.html", "index.html"]
    assert [fault for page in site.pages for fault in site.faults(page)] == []
    assert site.address == "https://me.github.io/book-of/" and site.prefix == "/book-of/"
    assert chosen_pages(site, []) == ["book/index.html", "book/pretraining/gpt.html"]


@pytest.mark.parametrize(
    ("text", "rule", "what"),
    [
        ("<a href='gone.html'>", "broken link", "gone.html does not exist"),
        ("<a href='../../index.html'>", "broken link", "../../index.html leaves the site"),
        ("<a href='/other/x.html'>", "broken link", "/other/x.html leaves the site"),
        (
            "<a href='pretraining/gpt.html#gone'>",
            "broken anchor",
            "book/pretraining/gpt.html has nothing named #gone",
        ),
        ("<a href='#gone'>", "broken anchor", "book/index.html has nothing named #gone"),
        (
            "<a href='#field'><input name='field'>",
            "broken anchor",
            "book/index.html has nothing named #field",
        ),
        ("<img src='gone.png'>", "broken image", "gone.png does not exist"),
        ("<img src='x' srcset='gone.png 2x'>", "broken image", "gone.png does not exist"),
        ("<script src='gone.js'></script>", "broken link", "gone.js does not exist"),
        (
            "<link rel='preconnect' href='https://example.org'>",
            "outside file",
            "the page loads https://example.org by itself",
        ),
        (
            "<script src='//example.org/x.js'></script>",
            "outside file",
            "the page loads //example.org/x.js by itself",
        ),
        (
            "<a href='https://me.github.io/book-of/gone.html'>",
            "broken link",
            "https://me.github.io/book-of/gone.html does not exist",
        ),
        (
            "<svg><rect clip-path='url(#cut)'/></svg>",
            "broken picture",
            "nothing in the page is named #cut",
        ),
    ],
)
def test_one_broken_link(folder: Path, text: str, rule: str, what: str) -> None:
    if "srcset" in text:
        (folder / "book" / "x").write_text("")
    assert broken(folder, "book/index.html", text) == [(rule, what)]


@pytest.mark.parametrize(
    "text",
    [
        "<a href='mailto:me@example.org'>", "<a href='https://example.org/gone'>",
        "<a href='.'>", "<a href='pretraining/gpt.html?q=1#loss'>",
        "<a href='https://me.github.io/book-of/book/'>", "<img src='data:image/png;base64,'>",
        "<a href='%67one.html'>", "<a href='#top'>", "<a href='index.html#:~:text=Book'>",
        "<a href='#old'><a name='old'>",
    ],
)  # fmt: skip
def test_links_that_are_not_broken(folder: Path, text: str) -> None:
    (folder / "book" / "gone.html").write_text("there after all")
    assert broken(folder, "book/index.html", text) == []


def get(url: str) -> tuple[int, Any, bytes]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.headers, error.read()


def test_the_server_answers_as_the_published_site_will(folder: Path) -> None:
    (folder / "404.html").write_text("not here")
    (folder / "font.woff2").write_bytes(b"font")
    with SiteServer(folder, "/book-of/") as server:
        status, headers, body = get(server.url("book/index.html?q=1"))
        assert status == 200 and headers["Content-Encoding"] == "gzip"
        assert headers["Content-Type"] == "text/html; charset=utf-8"
        assert gzip.decompress(body) == (folder / "book" / "index.html").read_bytes()
        assert server.files.size("/book-of/book/index.html") == len(body)
        assert get(server.url("book/"))[2] == body
        assert get(server.url("font.woff2"))[2] == b"font"
        status, _, body = get(server.url("gone.html"))
        assert status == 404 and gzip.decompress(body) == b"not here"
        (folder.parent / "secret.txt").write_text("not of the site")
        assert get(server.url("%2e%2e/secret.txt"))[0] == 404
        assert get(server.origin + "/book/index.html")[0] == 404


def test_goals_join_the_site(folder: Path) -> None:
    assert site_goals.record(folder, [AXE]) == ["book/index.html", "book/pretraining/gpt.html"]
    rows = json.loads((folder / "goals.json").read_text())
    assert rows == [LOSS, AXE.row("site", "cpu")]
    home = (folder / "book/index.html").read_text()
    assert "<strong>2 of 2 goals met</strong> in 1 chapter and the site itself" in home
    assert 'href="scoreboard.html"' in home and "old" not in home
    board = (folder / "book/pretraining/gpt.html").read_text()
    assert "The site itself" in board and "site.axe_serious" in board and "✓ met" in board


def test_goals_replace_those_of_the_same_id_only(folder: Path) -> None:
    worse = Goal("site.axe_serious", "faults", 3, 0, "==")
    other = Goal("site.search_hits", "terms \\1", 10, 10, "==")
    site_goals.record(folder, [AXE])
    site_goals.record(folder, [worse, other])
    rows = json.loads((folder / "goals.json").read_text())
    assert [(row["id"], row["value"]) for row in rows] == [
        ("pretraining.loss", 1.5), ("site.axe_serious", 3), ("site.search_hits", 10),
    ]  # fmt: skip
    assert "<strong>2 of 3 goals met</strong>" in (folder / "book/index.html").read_text()
    assert "terms \\1" in (folder / "book/pretraining/gpt.html").read_text()


def fault(where: str = "", what: str = "too pale", page: str = "a.html") -> Fault:
    return Fault("axe", page, "color-contrast", what, "p", where)


def test_faults_are_merged_and_counted() -> None:
    found = merged([fault("light"), fault("dark"), fault("light"), fault(what="x")])
    assert [(each.what, each.where) for each in found] == [
        ("too pale", "light; dark"),
        ("x", ""),
    ]
    assert str(found[0]) == "a.html: color-contrast: too pale, at p (light; dark)."
    text = report([fault(page="b.html")] + [fault(what=f"number {n}") for n in range(5)])
    assert text.count("number") == 3 and "axe: a.html: color-contrast: 2 more." in text
    assert text.index("axe: a.html") < text.index("axe: b.html")


def check(
    monkeypatch: pytest.MonkeyPatch, folder: Path, found: Callable[[Job], Found], *more: str
) -> int:
    monkeypatch.setattr(site_check, "CHECKS", {"search": found})
    monkeypatch.setattr(site_check, "SOURCES", {})
    return site_check.main(["--html", str(folder), "--only", "search", *more])


def test_a_clean_site_passes(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(monkeypatch, folder, lambda job: Found(goals=[AXE])) == 0
    assert "✓ met" in capsys.readouterr().out
    assert len(json.loads((folder / "goals.json").read_text())) == 2


def test_a_failed_goal_or_a_fault_fails_and_is_recorded(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    missed = Goal("site.search_hits", "hits", 9, 10, "==")
    assert check(monkeypatch, folder, lambda job: Found(goals=[missed])) == 1
    assert "✗ not met" in (folder / "book/pretraining/gpt.html").read_text()
    alike = [fault(what=f"number {n}") for n in range(5)]
    assert check(monkeypatch, folder, lambda job: Found(faults=alike)) == 1
    listed = folder.parent / "site_check" / "faults.txt"
    out = capsys.readouterr().out
    assert "color-contrast: 2 more." in out and f"5 faults, all listed in {listed}" in out
    assert "Seconds: search 0; in all 0." in out
    assert len(listed.read_text().splitlines()) == 5
    assert json.loads(listed.with_suffix(".json").read_text())[4]["what"] == "number 4"
    assert check(monkeypatch, folder, lambda job: Found()) == 0
    assert listed.read_text() == ""  # nothing of the run before


def test_a_check_that_breaks_does_not_stop_the_others(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(job: Job) -> Found:
        raise OSError("no space left")

    assert check(monkeypatch, folder, look) == 1
    said = "search: the check itself: failed: OSError: no space left."
    assert said in capsys.readouterr().out


def test_a_check_that_breaks_leaves_no_row_of_an_earlier_run(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hits = Goal("site.search_hits", "hits", 10, 10, "==")

    def breaks(job: Job) -> Found:
        raise OSError("no space left")

    def lacks_a_program(job: Job) -> Found:
        raise ToolMissing("it needs Chromium")

    site_goals.record(folder, [AXE, hits])
    assert check(monkeypatch, folder, lacks_a_program) == 2
    assert len(json.loads((folder / "goals.json").read_text())) == 3
    assert check(monkeypatch, folder, breaks) == 1
    assert json.loads((folder / "goals.json").read_text()) == [LOSS, AXE.row("site", "cpu")]
    board = (folder / "book/pretraining/gpt.html").read_text()
    assert "<code>site.search_hits</code>" in board.partition("Not measured here:")[2]


def test_the_goal_of_each_check_is_known() -> None:
    assert set(site_goals.MEASURED) == set(site_check.NAMES) - {"keyboard"}
    assert sorted(site_goals.MEASURED.values()) == sorted(goals_html.SITE_GOALS)


def listings(folder: Path, count: int) -> list[str]:
    """Add listings of source code to a site, the first the shortest; return their paths."""
    source = folder / "_modules" / "posttrain"
    source.mkdir(parents=True)
    (folder / "_modules" / "index.html").write_text("an index, and none of them")
    for number in range(count):
        (source / f"m{number:02}.html").write_text("line " * (9 + number))
    return [f"_modules/posttrain/m{number:02}.html" for number in range(count)]


def test_a_sample_of_the_listings_of_source_code(folder: Path) -> None:
    paths = listings(folder, 30)
    site = Site(folder)
    pages = chosen_pages(site, [])
    left_out = unseen_listings(site, pages, "a commit")
    assert left_out == unseen_listings(site, list(reversed(pages)), "a commit")[::-1]
    seen = [page for page in pages if page not in left_out]
    assert {"book/index.html", "_modules/index.html", paths[0], paths[-1]} <= set(seen)
    assert len(set(paths) - set(left_out)) == SAMPLE and set(left_out) < set(paths)
    drawn = {
        page
        for n in range(60)
        for page in set(paths) - set(unseen_listings(site, pages, str(n)))
    }
    assert drawn == set(paths)  # in time, each has its turn


def test_a_few_listings_are_all_looked_at(folder: Path) -> None:
    listings(folder, SAMPLE)
    site = Site(folder)
    assert unseen_listings(site, chosen_pages(site, []), "") == []


def look_at_nothing(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Take the browser away; return the list of the pages that are then looked at."""
    seen: list[str] = []

    def in_browsers(server: Any, pages: list[str], *_: Any) -> list[Fault]:
        seen.extend(pages)
        return []

    monkeypatch.setattr(site_checks, "in_browsers", in_browsers)
    monkeypatch.setattr(site_checks, "chromium", lambda: "")
    monkeypatch.setattr(site_checks, "axe_source", lambda: "")
    found = Found(goals=[Goal("site.search_hits", "hits", 10, 10, "==")])
    monkeypatch.setattr(
        site_check, "CHECKS", dict.fromkeys(site_check.CHECKS, lambda job: found)
    )
    monkeypatch.setattr(site_check, "check_elsewhere", lambda name: Found())
    return seen


def test_what_a_change_is_checked_by(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    paths, seen = listings(folder, 30), look_at_nothing(monkeypatch)
    assert site_check.main(["--html", str(folder), "--only", "ci"]) == 0
    assert seen[0] == "book/pretraining/gpt.html"  # the longest first
    assert {"book/index.html", paths[0], paths[-1]} <= set(seen) and len(seen) == 3 + SAMPLE
    offline = json.loads((folder / "goals.json").read_text())[1]
    assert offline["goal"].endswith(f", {SAMPLE} of 30 listings of source code among them")
    assert offline["value"] == offline["n"] == len(seen)
    assert capsys.readouterr().out.splitlines()[-3:] == [
        "Not run: lighthouse: make site-check CHECKS=lighthouse",
        "Not run: clean-run: make site-check CHECKS=notebooks,clean-run",
        f"Looked at {SAMPLE} of 30 listings of source code only; at all of them: "
        "make site-check CHECKS=offline,axe",
    ]
    board = (
        (folder / "book/pretraining/gpt.html").read_text().partition("Not measured here:")[2]
    )
    assert "<code>site.lighthouse_min</code>" in board
    assert "<code>site.notebook_clean_run</code>" in board
    assert "site.offline_pages" not in board and "site.search_hits" not in board


def test_listings_that_are_not_looked_at_must_have_sound_links(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for path in listings(folder, 30):
        (folder / path).write_text("<a href='gone.html'>" + (folder / path).read_text())
    seen = look_at_nothing(monkeypatch)
    assert site_check.main(["--html", str(folder), "--only", "ci"]) == 1
    assert capsys.readouterr().out.count("gone.html does not exist") == 30 - SAMPLE
    offline = json.loads((folder / "goals.json").read_text())[1]
    assert offline["id"] == "site.offline_pages" and not offline["passed"]
    assert not any(page in seen for page in unseen_listings(Site(folder), sorted(seen), ""))


@pytest.mark.parametrize("only", ["", "offline,axe"])
def test_else_all_listings_are_looked_at(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], only: str
) -> None:
    paths, seen = listings(folder, 30), look_at_nothing(monkeypatch)
    assert site_check.main(["--html", str(folder), "--only", only]) == 0
    out = capsys.readouterr().out
    assert set(paths) < set(seen) and "Looked at" not in out
    assert out.count("Not run: ") == (6 if only else 0)


def test_a_check_without_its_program_is_named_at_the_end(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    look_at_nothing(monkeypatch)
    listings(folder, 30)
    monkeypatch.setattr(site_checks, "chromium", lambda: needed("no Chromium", "none-such"))
    assert site_check.main(["--html", str(folder), "--only", "ci", "--skip-missing"]) == 0
    out = capsys.readouterr().out
    assert (
        "Not run: offline: make site-check CHECKS=offline\n" in out and "Looked at" not in out
    )


def test_some_pages_only_record_nothing(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []

    def look(job: Job) -> Found:
        seen.extend(job.pages)
        return Found(goals=[AXE])

    assert check(monkeypatch, folder, look, "--pages", "book/pretraining/*") == 0
    assert seen == ["book/pretraining/gpt.html"]
    assert json.loads((folder / "goals.json").read_text()) == [LOSS]


def test_a_missing_program_is_named_and_its_goal_is_not_measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def look(job: Job) -> Found:
        needed("it needs Chromium: install it", "surely-not-installed")
        return Found(goals=[AXE])

    assert check(monkeypatch, folder, look) == 2
    said = "site-check: search: not measured here: it needs Chromium: install it\n"
    assert capsys.readouterr().err == said
    assert check(monkeypatch, folder, look, "--skip-missing") == 0
    board = (folder / "book/pretraining/gpt.html").read_text()
    assert "Not measured here: <code>site.offline_pages</code>" in board
    assert "site.axe_serious" in board and "✗" not in board


def test_no_site_and_no_page(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert site_check.main(["--html", str(folder / "nowhere")]) == 2
    assert "run make book" in capsys.readouterr().err
    assert site_check.main(["--html", str(folder), "--pages", "zebra*"]) == 2
    assert "no page that fits zebra*" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        site_check.main(["--only", "spelling"])
    assert "unknown check spelling" in capsys.readouterr().err


def test_goals_from_other_programs(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(site_checks, "SOURCES", {"wheel": "made_up_wheel_check"})
    with pytest.raises(ModuleNotFoundError, match="made_up_wheel_check"):
        site_checks.check_elsewhere("wheel")
    (tmp_path / "made_up_wheel_check.py").write_text(
        "from posttrain.core.goals import Goal\n"
        "def site_goals(root):\n"
        "    return [Goal('site.wheel', str(root), False, True, '==')]\n"
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    found = site_checks.check_elsewhere("wheel")
    assert found.goals[0].goal == str(ROOT)
    assert [each.rule for each in found.faults] == ["not met"]
    sys.modules.pop("made_up_wheel_check")


def test_the_longest_chapter_is_one_that_checks_goals(folder: Path) -> None:
    (folder / "genindex.html").write_text("word " * 9000)
    assert longest_chapter(Site(folder)) == "book/pretraining/gpt.html"


def test_each_control_is_looked_for_on_a_short_page_that_has_it(folder: Path) -> None:
    page = folder / "book" / "pretraining" / "gpt.html"
    page.write_text(page.read_text() + '<div class="solution dropdown admonition">')
    found = pages_with_controls(Site(folder))
    pairs = {control.name: page for control, page in found}
    assert pairs["folded solution"] == "book/pretraining/gpt.html"
    assert pairs["search"] == "book/index.html" and "tab" not in pairs
    assert [each.what for each in absent_controls(found)] == [
        "no page has the card",
        "no page has the folded cell or box",
    ]


def test_the_search_terms(tmp_path: Path) -> None:
    terms = read_terms()
    assert len(terms) >= 10
    for term, page in terms.items():
        source = (ROOT / page.replace(".html", ".md")).read_text(encoding="utf-8")
        assert term.lower() in source.lower()
    assert TERMS.name == "search_terms.yml"
    (tmp_path / "terms.yml").write_text("- NF4\n")
    with pytest.raises(ValueError, match="must map each term to a page"):
        read_terms(tmp_path / "terms.yml")
