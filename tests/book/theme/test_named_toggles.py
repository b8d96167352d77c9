"""The extension named_toggles: the sidebar's arrows have names that a screen reader can say."""

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("bs4")
pytest.importorskip("sphinx")
from bs4 import BeautifulSoup

from book._ext.theme import named_toggles

ROOT = Path(__file__).resolve().parents[3]

SIDEBAR = """
<ul><li class="has-children"><a href="api.html">API reference</a>
<details><summary><span><i></i></span></summary><ul><li><a href="x.html">X</a></li></ul>
</details>
</li></ul>
<ul><li class="has-children"><details><summary><p>Part</p></summary></details></li></ul>
"""


def contents(kind: str) -> Any:
    return BeautifulSoup(SIDEBAR, "html.parser") if kind == "sidebar" else "text"


def test_an_arrow_has_the_name_of_its_page():
    context: dict[str, Any] = {"generate_toctree_html": contents}
    named_toggles.name_toggles(None, "page", "page.html", context, None)
    made = context["generate_toctree_html"](kind="sidebar")
    names = [summary.get_text(strip=True) for summary in made.select("summary")]
    assert names == ["Pages of API reference", "Part"]  # the second one has a text
    assert made.select_one("summary > span.visually-hidden").string == names[0]


def test_other_results_and_pages_stay_as_they_are():
    assert named_toggles.with_names(contents)("raw") == "text"
    context: dict[str, Any] = {}
    named_toggles.name_toggles(None, "page", "page.html", context, None)
    assert context == {}


def test_the_theme_still_gives_the_function(tmp_path: Path):
    theme = pytest.importorskip("pydata_sphinx_theme.toctree")
    text = Path(theme.__file__).read_text(encoding="utf-8")
    assert 'context["generate_toctree_html"]' in text
