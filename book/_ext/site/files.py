"""Sphinx extension: the files of the site that are no pages of the book.

``robots.txt``, ``llms.txt``, ``feed.xml``, ``404.html`` and the first ``index.html``, which
leads on to the book's first page. (sphinx-sitemap writes ``sitemap.xml``.) A project's site
lies in a folder of its host, where crawlers do not look for ``robots.txt``; it counts once the
site has a host of its own.
"""

import datetime
import html
from pathlib import Path
from string import Template
from typing import Any

from sphinx.application import Sphinx
from sphinx.errors import ExtensionError

from book._ext.site.feed import atom_feed, read_releases
from book._ext.site.pages import CHANGELOG_PAGE, FEED, git, parts
from posttrain.core.storage.files import atomic_path, write_text_atomic

NOT_FOUND = Path(__file__).with_name("not_found.html")
REDIRECT = Template("""\
<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>$title</title>
<meta name="description" content="$summary">
<meta http-equiv="refresh" content="0; url=$page">
<link rel="canonical" href="$site$page">
</head>
<body><main><h1><a href="$page">$title</a></h1></main></body>
</html>
""")


def page_address(app: Sphinx, page: str) -> str:
    """Return a page's address below the site's root."""
    return app.builder.get_target_uri(page)


def robots(app: Sphinx) -> str:
    """Return ``robots.txt``: everything may be read, and where the sitemap is."""
    return f"User-agent: *\nAllow: /\n\nSitemap: {app.config.html_baseurl}sitemap.xml\n"


def llms(app: Sphinx) -> str:
    """Return ``llms.txt``: title, summary, and a line for each page, in the book's order."""
    env, site, root = app.env, app.config.html_baseurl, app.config.root_doc
    lines = [f"# {app.config.html_title}", "", f"> {env.metadata[root].get('summary', '')}"]
    if app.config.html_copy_source:
        source = env.doc2path(root, base=False) + app.config.html_sourcelink_suffix
        lines += [
            "",
            "The Markdown source of each page is published too. That of "
            f"{site}{page_address(app, root)} is {site}_sources/{source}.",
        ]
    for caption, names in parts(env, root):
        lines += ["", f"## {caption or 'Pages'}", ""]
        for name in names:
            summary = env.metadata[name].get("summary")
            line = f"- [{env.titles[name].astext()}]({site}{page_address(app, name)})"
            lines.append(f"{line}: {summary}" if summary else line)
    return "\n".join(lines) + "\n"


def redirect(app: Sphinx) -> str:
    """Return the page at the site's root, which leads to the book's first page."""
    return REDIRECT.substitute(
        title=html.escape(app.config.html_title),
        summary=html.escape(app.env.metadata[app.config.root_doc].get("summary", "")),
        page=page_address(app, app.config.root_doc),
        site=app.config.html_baseurl,
    )


def not_found(app: Sphinx) -> str:
    """Return the page for an address that leads nowhere.

    The server shows it in place of a page of any folder, so its links start at the site's root.
    It needs no other file.
    """
    path = "/" + app.config.html_baseurl.split("://")[1].partition("/")[2]
    listed = []
    for caption, names in parts(app.env, app.config.root_doc):
        items = "".join(
            f'<li><a href="{page_address(app, name)}">'
            f"{html.escape(app.env.titles[name].astext())}</a></li>"
            for name in names
        )
        heading = f"<h2>{html.escape(caption)}</h2>\n" if caption else ""
        listed.append(f"{heading}<ul>{items}</ul>")
    return Template(NOT_FOUND.read_text(encoding="utf-8")).substitute(
        root=html.escape(path),
        title=html.escape(app.config.html_title),
        first=page_address(app, app.config.root_doc),
        pages="\n".join(listed),
    )


def feed(app: Sphinx, changelog: Path) -> bytes:
    """Return the Atom feed of the changelog."""
    commit = git(changelog.parent, "log", "-1", "--format=%cI", "--", changelog.name)
    changed = (
        datetime.datetime.fromisoformat(commit)
        if commit
        else datetime.datetime.fromtimestamp(changelog.stat().st_mtime, datetime.UTC)
    )
    try:
        releases = read_releases(changelog.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ExtensionError(str(error)) from error
    site = app.config.html_baseurl
    return atom_feed(
        releases,
        title=f"{app.config.html_title}: changes",
        author=app.config.author,
        feed=site + FEED,
        page=site + page_address(app, CHANGELOG_PAGE),
        changed=changed,
    )


def search_without_server(options: str) -> str:
    """Keep a search that runs from a folder quiet.

    Results show an excerpt of each page, which a browser fetches from a server only.

    Args:
        options: Sphinx's ``documentation_options.js``.

    Returns:
        The same, with excerpts switched off where the address starts with ``file:``.
    """
    return options.replace(
        "SHOW_SEARCH_SUMMARY: true", "SHOW_SEARCH_SUMMARY: location.protocol !== 'file:'"
    )


def write_files(app: Sphinx, exception: Exception | None) -> None:
    """Write the files beside a finished HTML site."""
    if exception is not None or app.builder.name != "html":
        return
    out, changelog = Path(app.outdir), Path(app.srcdir) / "CHANGELOG.md"
    for name, text in {"robots.txt": robots, "llms.txt": llms, "404.html": not_found}.items():
        write_text_atomic(out / name, text(app))
    if app.config.root_doc != "index":
        write_text_atomic(out / "index.html", redirect(app))
    if changelog.is_file():
        with atomic_path(out / FEED) as temporary:
            temporary.write_bytes(feed(app, changelog))
    options = out / "_static" / "documentation_options.js"
    write_text_atomic(options, search_without_server(options.read_text(encoding="utf-8")))


def setup(app: Sphinx) -> dict[str, Any]:
    """Write when all pages are written."""
    app.setup_extension("book._ext.site.pages")
    app.connect("build-finished", write_files)
    return {"version": "1", "parallel_read_safe": True, "parallel_write_safe": True}
