"""Sphinx extension: the arrows that unfold a part of the sidebar get a name.

The theme draws them as a ``summary`` that holds only a picture, so a screen reader has nothing
to say. The name is that of the page whose sections the arrow shows, as a text that is not seen.
"""

from collections.abc import Callable
from typing import Any

from bs4 import BeautifulSoup
from docutils import nodes
from sphinx.application import Sphinx


def with_names(make: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap the theme's function that makes the sidebar's contents."""

    def make_named(*args: Any, **options: Any) -> Any:
        made = make(*args, **options)
        for summary in made.select("details > summary") if hasattr(made, "select") else []:
            page = summary.parent.parent.find("a")
            if page is not None and not summary.get_text(strip=True):
                name = BeautifulSoup().new_tag("span", attrs={"class": "visually-hidden"})
                name.string = f"Pages of {page.get_text(strip=True)}"
                summary.append(name)
        return made

    return make_named


def name_toggles(
    app: Sphinx,
    pagename: str,
    templatename: str,
    context: dict[str, Any],
    doctree: nodes.document | None,
) -> None:
    """Let a page's template use the wrapped function."""
    if "generate_toctree_html" in context:
        context["generate_toctree_html"] = with_names(context["generate_toctree_html"])


def setup(app: Sphinx) -> dict[str, Any]:
    """Come after the theme, which gives the function to the page."""
    app.connect("html-page-context", name_toggles, priority=900)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
