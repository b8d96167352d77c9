"""Lighthouse for the site check: installing it, running it, and reading what it says."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from tools.site import lighthouse
from tools.site.faults import CheckFailed, ToolMissing

ROOT = Path(__file__).parents[2]


def lighthouse_report(speed: float | None) -> dict[str, Any]:
    audits = {
        "tbt": {"title": "Blocking", "displayValue": "2 s", "score": 0.1,
                "scoreDisplayMode": "numeric"},
        "ok": {"title": "Fine", "score": 1, "scoreDisplayMode": "binary"},
    }  # fmt: skip
    refs = [{"id": "ok", "weight": 1}, {"id": "tbt", "weight": 3}]
    names = lighthouse.CATEGORIES
    categories = {name: {"score": 1, "auditRefs": refs[:1]} for name in names}
    categories["performance"] = {"score": speed, "auditRefs": refs}
    return {"categories": categories, "audits": audits}


def test_lighthouse_scores_and_what_costs_points() -> None:
    scores = lighthouse.read_report("a.html", lighthouse_report(0.69))
    assert scores.lowest == 69 and scores.points["seo"] == 100
    (fault,) = scores.faults()
    assert fault.what == "69 of 100, wanted 95; Blocking (2 s)"
    assert lighthouse.read_report("a.html", lighthouse_report(None)).lowest == 0


def test_the_median_of_three_runs_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    speeds = iter([0.99, 0.7, CheckFailed("Chromium crashed"), 0.8])

    def run(program: Path, url: str, *options: str) -> dict[str, Any]:
        speed = next(speeds)
        if isinstance(speed, CheckFailed):
            raise speed
        return lighthouse_report(speed)

    monkeypatch.setattr(lighthouse, "run", run)
    scores = lighthouse.rate(Path("x"), "a.html", "url")
    assert scores.points["performance"] == 80 and scores.runs == (70, 80, 99)
    assert scores.points["seo"] == 100
    assert [fault.rule for fault in scores.faults()] == ["performance"]


def test_the_phone_is_as_slow_on_every_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[str, ...]] = []

    def run(program: Path, url: str, *options: str) -> dict[str, Any]:
        asked.append(options)
        return lighthouse_report(1)

    monkeypatch.setattr(lighthouse, "run", run)
    lighthouse.rate(Path("x"), "a.html", "url")
    assert len(asked) == lighthouse.RUNS
    assert all("--throttling.cpuSlowdownMultiplier=4" in options for options in asked)


def test_lighthouse_that_fails_twice_is_no_missing_program(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def run(program: Path, url: str, *options: str) -> dict[str, Any]:
        raise CheckFailed("Lighthouse failed")

    monkeypatch.setattr(lighthouse, "run", run)
    with pytest.raises(CheckFailed, match="Lighthouse failed"):
        lighthouse.rate(Path("x"), "a.html", "url")


def test_npm_is_missing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ToolMissing, match=r"needs Node.js .* with npm: install"):
        lighthouse.install(tmp_path)


@pytest.mark.parametrize(
    ("said", "kind"),
    [
        ("npm error code EAI_AGAIN", ToolMissing),
        ("npm error network This is a problem related to network connectivity", ToolMissing),
        ("npm error code EINTEGRITY", CheckFailed),
        ("npm error code EUSAGE: package.json and package-lock.json differ", CheckFailed),
    ],
)
def test_only_without_a_network_is_lighthouse_missing_where_npm_fails(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, said: str, kind: type[Exception]
) -> None:
    failed = SimpleNamespace(returncode=1, stderr=said)
    monkeypatch.setattr(lighthouse, "needed", lambda what, name: name)
    monkeypatch.setattr(lighthouse.subprocess, "run", lambda *a, **k: failed)
    stamp = tmp_path / "site_check" / "node" / "installed.json"
    stamp.parent.mkdir(parents=True)
    stamp.write_text("an older version")
    with pytest.raises(kind, match=f"npm could not install Lighthouse: {said}"):
        lighthouse.install(tmp_path)
    assert not stamp.exists()


def test_an_installed_lighthouse_is_used_again(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(lighthouse, "needed", lambda what, name: name)
    done: list[list[str]] = []

    def run(command: list[str], **_: Any) -> Any:
        done.append(command)
        return SimpleNamespace(returncode=0)

    monkeypatch.setattr(lighthouse.subprocess, "run", run)
    program = lighthouse.install(tmp_path)
    assert program.is_relative_to(tmp_path / "site_check" / "node")
    assert lighthouse.install(tmp_path) == program
    assert len(done) == 1 and done[0][:2] == ["npm", "ci"]


def test_lighthouse_is_pinned_without_addresses() -> None:
    tools = ROOT / "tools" / "site"
    (pin,) = json.loads((tools / "package.json").read_text())["dependencies"].items()
    lock = json.loads((tools / "package-lock.json").read_text())["packages"]
    assert lock[f"node_modules/{pin[0]}"]["version"] == pin[1]
    assert not any("resolved" in package for package in lock.values())
    assert all(package.get("integrity") for name, package in lock.items() if name)
