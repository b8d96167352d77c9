"""The extension offline_assets: MathJax out of a package, into the site, with its license."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("sphinx")
from sphinx.errors import ExtensionError

from book._ext.theme import offline_assets


def app(folder: Path, builder: str = "html") -> Any:
    return SimpleNamespace(outdir=folder, builder=SimpleNamespace(format=builder))


@pytest.fixture(scope="module")
def mathjax(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("mathjax")
    folder = tmp_path_factory.mktemp("site")
    offline_assets.copy_mathjax(app(folder), None)
    return folder / "_static" / "mathjax"


def test_pages_are_pointed_to_the_copy_and_keep_their_other_settings() -> None:
    config: Any = SimpleNamespace(mathjax3_config={"options": {"a": 1}}, mathjax_path="")
    offline_assets.configure(app(Path()), config)
    assert config.mathjax_path == "mathjax/startup.js"
    assert config.mathjax3_config["options"] == {"a": 1}
    json.dumps(config.mathjax3_config)


def test_the_copy_holds_all_that_is_loaded(mathjax: Path) -> None:
    for part in offline_assets.LOADED:
        assert (mathjax / f"{part}.js").is_file()
    assert "Apache License" in (mathjax / "LICENSE").read_text()
    fonts = [font.name for font in (mathjax / "output/chtml/fonts/woff-v2").iterdir()]
    assert "MathJax_Main-Regular.woff" in fonts and "MathJax_Math-Italic.woff" in fonts
    # These are loaded where a formula needs them.
    autoload = {"boldsymbol", "cancel", "color", "mathtools", "textmacros"}
    extensions = {file.stem for file in (mathjax / "input/tex/extensions").iterdir()}
    assert autoload <= extensions


def test_the_copy_is_version_3_and_small(mathjax: Path) -> None:
    version = re.search(r'VERSION="(\d+)\.', (mathjax / "startup.js").read_text())
    assert version and version[1] == "3"
    size = sum(file.stat().st_size for file in mathjax.rglob("*") if file.is_file())
    assert size < 2_500_000
    assert not list(mathjax.rglob("menu.js")) and not list(mathjax.rglob("*.map"))


@pytest.mark.parametrize(
    ("builder", "error"), [("latex", None), ("html", ValueError("failed"))]
)
def test_only_a_finished_html_site_gets_one(
    tmp_path: Path, builder: str, error: Exception | None
) -> None:
    offline_assets.copy_mathjax(app(tmp_path, builder), error)
    assert not list(tmp_path.iterdir())


def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing(name: str) -> None:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(offline_assets, "files", missing)
    with pytest.raises(ExtensionError, match="django-static-mathjax: run make install"):
        offline_assets.mathjax_files()
