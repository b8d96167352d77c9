"""The extension live_code: a button on the pages that fit, and nothing on the others."""

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

pytest.importorskip("sphinx")
from docutils import nodes

from book._ext.chapters import live_code

PAGE = """---
jupytext:
  text_representation: {extension: .md, format_name: myst}
kernelspec: {display_name: Python 3, language: python, name: python3}
---

# Title

```{code-cell} ipython3
:tags: [remove-cell]

import json
```

Text.

```{code-cell} ipython3
print(json.dumps("</script>"))
```

```{code-cell} ipython3
:tags: [hide-input]

x = 1
```

```{code-cell} ipython3
:tags: [remove-input]

"<!-- <script> </script>"
```
"""
TABLE = {"pages": {"book/a/small": {"binder": True}, "book/a/large": {"binder": False}}}


@pytest.fixture
def app(tmp_path: Path) -> Any:
    for name in ("small", "large", "other"):
        file = tmp_path / f"book/a/{name}.md"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(PAGE)
    options = {"repository_url": "https://github.com/owner/name/", "repository_branch": "main"}
    added: list[str] = []
    return SimpleNamespace(
        srcdir=tmp_path,
        config=SimpleNamespace(html_theme_options=options),
        env=SimpleNamespace(doc2path=lambda page: tmp_path / f"{page}.md", launch_table=TABLE),
        added=added,
        add_js_file=lambda name, **options: added.append(name),
    )


def context() -> dict[str, Any]:
    return {"header_buttons": [{"label": "launch-buttons", "buttons": [1]}], "body": "<p>Text."}


def document() -> Any:
    return nodes.document(None, None)  # type: ignore[arg-type]


def test_a_page_that_fits_gets_a_button_and_its_cells(app: Any) -> None:
    page = context()
    live_code.add_button(app, "book/a/small", "page.html", page, document())
    assert page["header_buttons"][0]["buttons"] == [1, live_code.BUTTON]
    assert "needs the network" in live_code.BUTTON["tooltip"]
    assert app.added == ["live_code.js"]
    found = re.fullmatch(r"<p>Text\.<script [^>]*>(.*)</script>\n", page["body"])
    assert found and "<" not in found[1]
    assert json.loads(found[1]) == {
        "repository": "owner/name",
        "branch": "main",
        "folder": "book/a",
        "cells": ["import json", None, None, '"<!-- <script> </script>"'],
    }


@pytest.mark.parametrize("name", ["book/a/large", "book/a/other"])
def test_other_pages_get_nothing(app: Any, name: str) -> None:
    page = context()
    live_code.add_button(app, name, "page.html", page, document())
    assert page == context() and app.added == []


def test_pages_without_a_source_or_a_launch_menu_get_nothing(app: Any) -> None:
    page, bare = context(), {"header_buttons": [], "body": ""}
    live_code.add_button(app, "book/a/small", "search.html", page, None)
    live_code.add_button(app, "book/a/small", "page.html", bare, document())
    assert page == context() and bare["body"] == "" and app.added == []
