"""Sphinx extension: what each page says about itself to search engines, feeds and chats.

The summary of a page is made of the first sentences of its first paragraph. The head carries it
as the description, with a social card and a link to the feed of changes; the footer carries the
version and the commit that the page was built from.
"""

import html
import posixpath
import re
import subprocess
from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.config import Config
from sphinx.environment import BuildEnvironment

from book._ext.site.cards import SIZE, Card, card_name, write_card
from posttrain import __version__

CHANGELOG_PAGE = "book/changelog"
FEED = "feed.xml"
CARDS = "_images/cards"
SUMMARY_LENGTH = 200  # characters; more is cut by search engines
VERSION_TITLE = re.compile(r"\[?(\d[\w.]*)\]?(?: - \d{4}-\d{2}-\d{2})?")


def plain_text(node: nodes.Node) -> str:
    """Return the words of a node, without citations, comments and what cells fill in later."""
    if isinstance(node, nodes.Text):
        return str(node)
    if isinstance(node, nodes.raw | nodes.Invisible):
        return ""
    if isinstance(node, addnodes.pending_xref) and node.get("refdomain") == "cite":
        return ""
    return "".join(map(plain_text, node.children))


LEAD = "pt-lead"  # a box around the first words, where the page sets one


def summary_of(doctree: nodes.document) -> str:
    """Return the first sentences of a page, as many as fit.

    Args:
        doctree: The page, before its references are resolved.

    Returns:
        At most `SUMMARY_LENGTH` characters; nothing for a page that opens with no paragraph.
    """
    section = next(iter(doctree.findall(nodes.section)), doctree)
    leads = (box for box in section.findall(nodes.container) if LEAD in box["classes"])
    opening = [*(node for box in leads for node in box.children), *section.children]
    paragraphs = (node for node in opening if isinstance(node, nodes.paragraph))
    text = " ".join(plain_text(next(paragraphs, nodes.paragraph())).split())
    text = re.sub(r"\s+([.,;:?!])", r"\1", text)
    if len(text) <= SUMMARY_LENGTH:
        return text
    kept = ""
    for sentence in re.split(r"(?<=[.?!])\s+", text):
        if len(kept) + len(sentence) >= SUMMARY_LENGTH:
            break
        kept += " " * bool(kept) + sentence
    return kept or text[: SUMMARY_LENGTH - 1].rsplit(" ", 1)[0] + "…"


def note_page(app: Sphinx, doctree: nodes.document) -> None:
    """Keep the summary of a page that was read; give the changelog's versions their anchors."""
    app.env.metadata[app.env.docname]["summary"] = summary_of(doctree)
    if app.env.docname == CHANGELOG_PAGE:
        for section in doctree.findall(nodes.section):
            if match := VERSION_TITLE.fullmatch(section[0].astext()):
                section["ids"].append(version_anchor(match[1]))


def version_anchor(version: str) -> str:
    """Return the anchor of a version on the page of changes."""
    return f"version-{version}"


def parts(env: BuildEnvironment, root: str) -> list[tuple[str, list[str]]]:
    """Return the book's parts: a caption each, and the pages below it in their order."""

    def pages(name: str) -> list[str]:
        below = [page for child in env.toctree_includes.get(name, []) for page in pages(child)]
        return [name, *below]

    trees = env.get_doctree(root).findall(addnodes.toctree)
    return [
        (
            tree.get("caption") or "",
            [page for _, name in tree["entries"] if name in env.titles for page in pages(name)],
        )
        for tree in trees
    ]


def git(folder: Path, *arguments: str) -> str:
    """Return what git prints, or nothing where git or the repository is missing."""
    try:
        run = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return run.stdout.strip()


def stamp(folder: Path, repository: str) -> str:
    """Return the footer's line: version and commit.

    Args:
        folder: Where the book's source lies.
        repository: The repository's address, for a link to the commit.

    Returns:
        HTML. The commit is ``unknown`` outside a repository, and is not linked where tracked
        files differ from it.
    """
    commit = git(folder, "rev-parse", "HEAD")
    changed = bool(git(folder, "status", "--porcelain", "--untracked-files=no"))
    shown = html.escape(commit[:10] or "unknown")
    if changed:
        shown += " with changes"
    elif commit:
        shown = f'<a href="{html.escape(repository)}/commit/{commit}">{shown}</a>'
    return f"<p>Version {html.escape(__version__)}, commit {shown}.</p>"


def set_stamp(app: Sphinx, config: Config) -> None:
    """Make the footer's line part of the settings, so that a new commit renews all pages."""
    config.html_context["site_stamp"] = stamp(
        Path(app.srcdir), config.html_context["repository_url"]
    )


def add_footer(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Add version and commit to the footer."""
    footer = context.get("theme_extra_footer", "")
    context["theme_extra_footer"] = footer + context["site_stamp"]


def add_head(
    app: Sphinx, pagename: str, template: str, context: dict[str, Any], doctree: Any
) -> None:
    """Add description, social card and feed to a page's head."""
    tags = []
    book = app.config.html_title
    if (Path(app.srcdir) / "CHANGELOG.md").is_file():
        tags.append(
            f'<link rel="alternate" type="application/atom+xml" href='
            f'"{context["pathto"](FEED, 1)}" title="{html.escape(f"{book}: changes")}" />'
        )
    if pagename in app.env.titles:
        title = app.env.titles[pagename].astext()
        summary = app.env.metadata[pagename].get("summary") or f"{title}: a page of {book}."
        image = posixpath.join(app.config.html_baseurl, make_card(app, pagename))
        alt = f"{book}: {title}" if title != book else book
        if 'name="description"' not in context.get("metatags", ""):  # a page may bring its own
            tags.append(_tag("name", "description", summary))
        tags += [
            _tag("property", "og:type", "website" if title == book else "article"),
            _tag("property", "og:site_name", book),
            _tag("property", "og:title", title),
            _tag("property", "og:description", summary),
            _tag("property", "og:url", context["pageurl"]),
            _tag("property", "og:image", image),
            _tag("property", "og:image:width", str(SIZE[0])),
            _tag("property", "og:image:height", str(SIZE[1])),
            _tag("property", "og:image:alt", f"A card: {alt}"),
            _tag("name", "twitter:card", "summary_large_image"),
        ]
    context["metatags"] = "\n".join([context.get("metatags", ""), *tags, ""])


def _tag(key: str, name: str, content: str) -> str:
    return f'<meta {key}="{name}" content="{html.escape(content)}" />'


def make_card(app: Sphinx, page: str) -> str:
    """Draw the social card of a page, if it is not there yet.

    Args:
        app: The build.
        page: The page's name.

    Returns:
        The picture's path below the site's root.
    """
    title, book = app.env.titles[page].astext(), app.config.html_title
    captions = {
        name: caption
        for caption, names in parts(app.env, app.config.root_doc)
        for name in names
    }
    card = Card(
        book=book,
        part=captions.get(page, ""),
        title=title,
        summary=app.env.metadata[page].get("summary", ""),
        address=app.config.html_baseurl.split("://")[1].rstrip("/"),
    )
    name = f"{CARDS}/{card_name(card, page)}"
    if not (Path(app.outdir) / name).is_file():
        write_card(card, Path(app.outdir) / name)
    return name


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the steps of a build."""
    app.setup_extension("book._ext.site.address")
    app.connect("config-inited", set_stamp, priority=310)  # after the addresses
    app.connect("doctree-read", note_page)
    app.connect("html-page-context", add_head)
    app.connect("html-page-context", add_footer)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
