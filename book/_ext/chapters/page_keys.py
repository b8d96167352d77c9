"""Sphinx extension: a page whose key is unchanged is not run again, and a site is never stale.

Two decisions, both by content and never by dates:

- *Which cells run.* Each page with cells has a jupyter-cache of its own in a folder named by
  its key (`posttrain.core.page_key`: cells, modules, lock, recorded results, processor). A page
  that ran to its end leaves there what it displayed and the rows of its goals; the next build
  takes both. A page that failed leaves nothing, so it runs again.
- *Which pages are read and written.* The last build leaves a hash of all that the site is made
  of: every file of the book and of the package, the settings, the lock, the commit and the
  processor. If it is the same, Sphinx may reuse what it read. If anything differs, or the last
  build did not end without a warning, all pages are read and written again.

``make book FRESH=1`` removes both first. ``make page`` sets `page_keys_only`: that page is read
and written, the others stay as they are, and the next build of the book writes all.
"""

import contextlib
import hashlib
import json
import os
import shutil
import time
import traceback
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jupyter_cache.executors.utils as executors
from docutils import nodes
from jupyter_cache.cache.main import JupyterCacheBase
from myst_nb.core.execute import cache as cache_client
from nbclient.exceptions import DeadKernelError
from sphinx.application import ENV_PICKLE_FILENAME, Sphinx
from sphinx.builders.html import StandaloneHTMLBuilder
from sphinx.config import Config
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

from posttrain.core.goals import goals_file
from posttrain.core.page_key import PageKey, describe_processor, page_key
from posttrain.core.storage.files import write_json_atomic

logger = logging.getLogger(__name__)
BOOK = "book/"
STATE = "page_keys.json"  # beside the doctrees: what the last build was made of
PAGES = "page_names.json"
FINISHED = "page.json"  # in the folder of a key: written last
ROWS = "goals.json"
KEPT = 3  # keys of a page: to go back to another branch or processor runs nothing
FAILED = "This page stopped before its end"
SEARCH = "searchindex.js"
RUNS: list[float] = []  # when cells were run in this process


@dataclass
class Build:
    """What one build knows of its pages.

    Attributes:
        fingerprint: The hash of all that the site is made of.
        processor: What `describe_processor` returned.
        keys: Key and folder of each page with cells that was read.
        runs: How often cells were run in this process before each page was read.
        ran: Pages whose cells ran.
        failed: Pages whose cells did not run to their end.
        names: The pages of the build before this one.
        written: The pages that were written.
        search: The search's index as the build before this one left it.
        root: The folder of all pages' caches; None before the first page is read.
    """

    fingerprint: str = ""
    processor: dict[str, str] = field(default_factory=dict)
    keys: dict[str, tuple[PageKey, Path]] = field(default_factory=dict)
    runs: dict[str, int] = field(default_factory=dict)
    ran: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)
    names: list[str] = field(default_factory=list)
    written: set[str] = field(default_factory=set)
    search: bytes = b""
    root: Path | None = None


class TaglessCache(JupyterCacheBase):
    """A cache to which two notebooks are the same that differ in their cells' tags only."""

    def create_hashed_notebook(
        self, nb: Any, nb_metadata: Any = ("kernelspec",), cell_metadata: Any = ()
    ) -> Any:
        """Hash a notebook by its code."""
        return super().create_hashed_notebook(nb, nb_metadata, cell_metadata)

    def merge_match_into_notebook(
        self, nb: Any, nb_meta: Any = ("kernelspec", "language_info", "widgets"),
        cell_meta: Any = (),
    ) -> Any:  # fmt: skip
        """Take outputs from the cache, and tags from the page."""
        return super().merge_match_into_notebook(nb, nb_meta, cell_meta)


def build_of(app: Sphinx) -> Build:
    """Return what this build knows."""
    if not hasattr(app, "page_keys"):
        app.page_keys = Build()  # type: ignore[attr-defined]
    return app.page_keys  # type: ignore[attr-defined]


def inputs(root: Path, package: str) -> Iterator[Path]:
    """Yield the files that the site is made of.

    Args:
        root: The folder of the settings.
        package: The name of the package in ``code/``.

    Yields:
        All files in ``book/``, in the package, and directly in the root; none that is hidden.
    """
    yield from (file for file in root.iterdir() if file.is_file())
    for folder in (root / "book", root / "code" / package):
        yield from (file for file in folder.rglob("*") if file.is_file())


def fingerprint(root: Path, package: str, *more: Any) -> str:
    """Hash the files that the site is made of, and more.

    Args:
        root: The folder of the settings.
        package: The name of the package in ``code/``.
        more: What else decides, as values that JSON can hold.

    Returns:
        SHA-256 in hexadecimal digits.
    """
    digest = hashlib.sha256(json.dumps(more, sort_keys=True, default=repr).encode())
    for file in sorted(set(inputs(root, package))):
        name = file.relative_to(root)
        if not any(part.startswith(".") or part == "__pycache__" for part in name.parts):
            digest.update(name.as_posix().encode())
            digest.update(hashlib.sha256(file.read_bytes()).digest())
    return digest.hexdigest()


def decide(app: Sphinx, config: Config) -> None:
    """Forget what was read before, unless the site would be made of the same things."""
    build, doctrees = build_of(app), Path(app.doctreedir)
    build.processor = describe_processor()
    mode = getattr(config, "nb_execution_mode", "")
    commit = config.html_context.get("site_stamp", "")  # in the footer of every page
    build.fingerprint = fingerprint(
        Path(app.srcdir), config.page_keys_package, build.processor, mode, commit
    )
    before = _read_json(doctrees / STATE)
    build.names = list(_read_json(doctrees / PAGES) or [])
    (doctrees / STATE).unlink(missing_ok=True)  # until this build has ended well
    if before != build.fingerprint and not config.page_keys_only:
        (doctrees / ENV_PICKLE_FILENAME).unlink(missing_ok=True)
        shutil.rmtree(Path(app.outdir) / "_modules", ignore_errors=True)  # they hold the menu


def remember_search(app: Sphinx) -> None:
    """Remember the search's index; leave the search out where no page ever was written."""
    if isinstance(app.builder, StandaloneHTMLBuilder):
        index = Path(app.outdir, SEARCH)
        build_of(app).search = index.read_bytes() if index.is_file() else b""
        if app.config.page_keys_only and not index.is_file():
            app.builder.search = False


def only_one(app: Sphinx, env: BuildEnvironment, docnames: list[str]) -> None:
    """Read the one page that was asked for; what else is new too where it never was read."""
    if app.config.page_keys_only in env.all_docs:
        docnames[:] = [app.config.page_keys_only]


def prepare(app: Sphinx, docname: str, source: list[str]) -> None:
    """Point a page that is about to be read to the folder of its key."""
    env, build, only = app.env, build_of(app), app.config.page_keys_only
    if app.config.nb_execution_mode != "cache":
        return
    base = env.mystnb_config  # type: ignore[attr-defined]
    build.root = build.root or Path(base.execution_cache_path)
    build.keys.pop(docname, None)

    def use(folder: Path, mode: str = "cache") -> None:
        env.mystnb_config = base.copy(  # type: ignore[attr-defined]
            execution_mode=mode, execution_cache_path=str(folder)
        )

    lock = Path(app.srcdir, app.config.page_keys_lock)
    package = app.config.page_keys_package
    key = page_key(Path(env.doc2path(docname)), lock, build.processor, package=package)
    folder = build.root / docname.replace("/", "__") / key.key[:16]
    known = (folder / FINISHED).is_file()
    other = only not in ("", docname)
    quiet = {*app.config.suppress_warnings} - {"mystnb.glue"}
    app.config.suppress_warnings = [*quiet, *(["mystnb.glue"] if other and not known else ())]
    if not key.has_cells or (other and not known):
        use(build.root / "none", "off" if other else "cache")
        return
    if known:
        os.utime(folder)
        place = rows_of(docname)
        if place is not None and (folder / ROWS).is_file():
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(folder / ROWS, place)
    else:
        _say_why(docname, key, folder.parent)
        shutil.rmtree(folder, ignore_errors=True)
    Path(app.outdir, "reports", f"{docname}.err.log").unlink(missing_ok=True)
    build.keys[docname], build.runs[docname] = (key, folder), len(RUNS)
    use(folder)


def keep(app: Sphinx, doctree: nodes.document) -> None:
    """Keep a page that ran to its end; mark one that did not."""
    docname, build = app.env.docname, build_of(app)
    if docname not in build.keys:
        return
    key, folder = build.keys[docname]
    run = app.env.nb_metadata[docname].get("exec_data")  # type: ignore[attr-defined]
    if not run:
        return
    if len(RUNS) == build.runs[docname]:  # from the cache, which keeps no time zone
        run["mtime"] = (_read_json(folder / FINISHED) or {}).get("when", run["mtime"])
        return
    build.ran.append(docname)
    if not run["succeeded"]:
        build.failed.append(docname)
        shutil.rmtree(folder, ignore_errors=True)
        title = next(iter(doctree.findall(nodes.title)))
        box = failure_box(run["error"] or "", run["traceback"] or "")
        title.parent.insert(title.parent.index(title) + 1, box)
        return
    rows = rows_of(docname)
    if rows is not None and rows.is_file():
        shutil.copyfile(rows, folder / ROWS)
    write_json_atomic(folder / FINISHED, {"when": run["mtime"], "key": key.key, **key.parts})
    others = sorted(folder.parent.iterdir(), key=lambda path: path.stat().st_mtime)
    for old in [path for path in others if path != folder][: -(KEPT - 1)]:
        shutil.rmtree(old, ignore_errors=True)


def failure_box(error: str, trace: str) -> nodes.admonition:
    """Return the box that opens a page whose cells did not run to their end.

    Args:
        error: The name of the exception.
        trace: What was printed of it.

    Returns:
        A box with the error; with its text too where the cell does not show it.
    """
    box = nodes.admonition(classes=["danger", "pt-page-failed"])
    box += nodes.title("", FAILED)
    said = f"{error} stopped a cell of this page. What follows it was not computed."
    box += nodes.paragraph("", said)
    if error != "CellExecutionError":
        text = trace.rpartition(f"{error}: ")[2].strip() or error
        box += nodes.literal_block(text, text, language="none")
    return box


def rows_of(docname: str) -> Path | None:
    """Return the file of a page's goals in this build; None where there can be none."""
    folder = os.environ.get("POSTTRAIN_GOALS")
    with contextlib.suppress(ValueError):  # not a name that a chapter can have
        return goals_file(docname.removeprefix(BOOK), Path(folder)) if folder else None
    return None


def pages_with_tables(app: Sphinx, env: BuildEnvironment) -> list[str]:
    """Return the pages that list how long others ran: `make page` left them as they were."""
    data = getattr(env, "nb_metadata", {})
    return [page for page in data if data[page].get("has_exec_table")]


def note_written(app: Sphinx, page: str, *rest: Any) -> None:
    """Note a page that is written."""
    build_of(app).written.add(page)


def keep_lists(app: Sphinx, exception: Exception | None) -> None:
    """Leave sitemap and search of the last whole build, where this one wrote only some pages.

    The sitemap would name only those, and Sphinx's search would lose the symbols of the others.
    """
    build = build_of(app)
    if app.builder.format != "html" or app.env.found_docs <= build.written:
        return
    links = getattr(app, "sitemap_links", None)  # of sphinx-sitemap: what was written
    while links is not None and not links.empty():
        links.get_nowait()
    if build.search:
        Path(app.outdir, SEARCH).write_bytes(build.search)


def finish(app: Sphinx, exception: Exception | None) -> None:
    """Say what ran, remove pages that are no more, and remember a build that ended well."""
    build = build_of(app)
    if exception is not None:
        return
    if build.keys:
        ran, all_of_them = len(build.ran), len(build.keys)
        logger.info("pages with cells: %d run, %d as before", ran, all_of_them - ran)
    for page in build.failed:
        logger.info("stopped before its end: %s", page)
    if app.config.page_keys_only:
        return
    for gone in set(build.names) - app.env.found_docs:
        if app.builder.format == "html":
            Path(app.outdir, f"{gone}.html").unlink(missing_ok=True)
    doctrees = Path(app.doctreedir)
    write_json_atomic(doctrees / PAGES, sorted(app.env.found_docs))
    if not app._warncount and not app.statuscode:
        write_json_atomic(doctrees / STATE, build.fingerprint)


def run_cells(*args: Any, **kwargs: Any) -> executors.ExecutionResult:
    """Run a page's cells; a kernel that dies is an error of the page, not of the build."""
    begin = time.perf_counter()
    RUNS.append(begin)
    try:
        return executors.single_nb_execution(*args, **kwargs)
    except DeadKernelError as error:
        notebook = args[0] if args else kwargs["nb"]
        seconds = time.perf_counter() - begin
        return executors.ExecutionResult(
            notebook, kwargs.get("cwd", ""), seconds, error, traceback.format_exc()
        )


def _say_why(docname: str, key: PageKey, folder: Path) -> None:
    """Say which parts of a page's key have changed since it ran last."""
    older = [file.parent for file in folder.glob(f"*/{FINISHED}")]
    if not older:
        return
    last = max(older, key=lambda path: path.stat().st_mtime)
    changed = key.differs_in(_read_json(last / FINISHED) or {})
    shown = ", ".join(changed[:5]) + (f" and {len(changed) - 5} more" if changed[5:] else "")
    logger.info("\n%s runs again, because of %s", docname, shown)


def _read_json(file: Path) -> Any:
    try:
        return json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the settings and the steps of a build."""
    app.setup_extension("myst_nb")
    cache_client.single_nb_execution, cache_client.get_cache = run_cells, TaglessCache
    app.add_config_value("page_keys_lock", "requirements.lock", "")
    app.add_config_value("page_keys_package", "posttrain", "")
    app.add_config_value("page_keys_only", "", "")
    app.connect("config-inited", decide, priority=990)
    app.connect("builder-inited", remember_search)
    app.connect("env-before-read-docs", only_one)
    app.connect("source-read", prepare, priority=990)
    app.connect("doctree-read", keep)
    app.connect("env-updated", pages_with_tables)
    app.connect("html-page-context", note_written)
    app.connect("build-finished", keep_lists, priority=100)
    app.connect("build-finished", finish, priority=1000)
    return {"version": "1", "parallel_read_safe": False, "parallel_write_safe": True}
