from pathlib import Path

import platformdirs
import pytest

from posttrain.core.storage import paths


def test_home_is_the_users_cache_unless_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.delenv("POSTTRAIN_HOME", raising=False)
    assert paths.home() == Path(platformdirs.user_cache_dir("posttrain", appauthor=False))
    monkeypatch.setenv("POSTTRAIN_HOME", str(tmp_path))
    assert paths.home() == tmp_path


def test_an_empty_variable_counts_as_unset(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("POSTTRAIN_DATA", " ")
    assert paths.data_folder() is None


def test_a_tilde_and_a_relative_folder_become_absolute(monkeypatch, tmp_path: Path):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("POSTTRAIN_DATA", "~/texts")
    assert paths.data_folder() == tmp_path / "texts"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("POSTTRAIN_DATA", "here")
    assert paths.data_folder() == tmp_path / "here"


def test_goals_lie_in_home_unless_set(monkeypatch: pytest.MonkeyPatch, store, tmp_path: Path):
    monkeypatch.delenv("POSTTRAIN_GOALS", raising=False)
    assert paths.goals_folder() == store / "goals"
    monkeypatch.setenv("POSTTRAIN_GOALS", str(tmp_path / "mine"))
    assert paths.goals_folder() == tmp_path / "mine"


def test_a_package_is_found_without_importing_it(monkeypatch, tmp_path: Path):
    package = tmp_path / "explosive"
    package.mkdir()
    (package / "__init__.py").write_text("raise SystemExit('imported')")
    monkeypatch.syspath_prepend(tmp_path)
    assert paths.package_folder("explosive") == package
    assert paths.package_folder("no_such_package_here") is None
