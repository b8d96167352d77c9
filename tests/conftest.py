"""Fixtures that all tests share."""

import os
from pathlib import Path

import pytest

from posttrain.core.paths import home


@pytest.fixture(scope="session", autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory):
    """Keep tests out of the user's store, but share the conversions of models in it."""
    assets = home() / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    folder = tmp_path_factory.mktemp("home")
    (folder / "assets").symlink_to(assets, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTTRAIN_HOME", str(folder))
        patch.delenv("POSTTRAIN_GOALS", raising=False)
        yield


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty POSTTRAIN_HOME for one test."""
    monkeypatch.setenv("POSTTRAIN_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def data() -> Path:
    """The folder of real data, where this machine has one in POSTTRAIN_DATA."""
    folder = Path(os.environ.get("POSTTRAIN_DATA", ""))
    if not os.environ.get("POSTTRAIN_DATA") or not folder.is_dir():
        pytest.skip("POSTTRAIN_DATA names no folder")
    return folder
