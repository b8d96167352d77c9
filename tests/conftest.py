"""Fixtures that all tests share."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from posttrain.core.assets import load_tokenizer
from posttrain.core.errors import AssetError
from posttrain.core.storage.paths import home

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase


@pytest.fixture(scope="session", autouse=True)
def _own_store(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Keep tests out of the user's store, but share the conversions of models in it."""
    assets = home() / "assets"
    assets.mkdir(parents=True, exist_ok=True)
    folder = tmp_path_factory.mktemp("home")
    (folder / "assets").symlink_to(assets, target_is_directory=True)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("POSTTRAIN_HOME", str(folder))
        patch.delenv("POSTTRAIN_GOALS", raising=False)
        yield


@pytest.fixture(scope="module", autouse=True)
def _one_thread() -> Iterator[None]:
    """Tiny models gain nothing from threads, and lose much where the cores are shared."""
    torch = sys.modules.get("torch")  # what a test module did not import it need not wait for
    if torch is None:
        yield
        return
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


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


@pytest.fixture(scope="session")
def tokenizer() -> PreTrainedTokenizerBase:
    """SmolLM2's tokenizer; tests that change it must copy it."""
    try:
        return load_tokenizer("smollm2-135m-instruct")
    except AssetError as error:
        pytest.skip(str(error))
