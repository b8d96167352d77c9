"""book/_ext/theme/row_headers.py: tables whose first column has no title have row headers."""

import io
from pathlib import Path

import pytest

pytest.importorskip("sphinx")
from sphinx.application import Sphinx
from sphinx.util.docutils import docutils_namespace

TABLE = """
.. list-table::
   :header-rows: {heads}

   * - {corner}
     - predicted
   * - time
     - 12 s
"""


def build(folder: Path, text: str) -> str:
    (folder / "index.rst").write_text("Title\n=====\n" + text)
    warnings = io.StringIO()
    with docutils_namespace():
        app = Sphinx(
            str(folder),
            None,
            str(folder / "html"),
            str(folder / "doctrees"),
            "html",
            confoverrides={
                "extensions": ["book._ext.theme.row_headers"],
                "html_theme": "basic",
                "source_suffix": {".rst": "restructuredtext"},
            },
            status=None,
            warning=warnings,
        )
        app.build()
    assert warnings.getvalue() == ""
    return (folder / "html/index.html").read_text()


def test_rows_are_named_by_a_column_without_a_title(tmp_path: Path) -> None:
    html = build(tmp_path, TABLE.format(heads=1, corner=""))
    assert '<th class="stub"><p>time</p></th>' in html and "<td><p>12 s</p></td>" in html
    assert '<th class="head"><p>predicted</p></th>' in html


@pytest.mark.parametrize(("heads", "corner"), [(1, "what"), (0, "")])
def test_other_tables_stay_as_they_are(tmp_path: Path, heads: int, corner: str) -> None:
    html = build(tmp_path, TABLE.format(heads=heads, corner=corner))
    assert "stub" not in html and "<td><p>time</p></td>" in html
