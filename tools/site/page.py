"""Run and write one page: ``make page PAGE=book/sft/lora``.

Its cells run where they, or what they depend on, have changed since they ran last, and always
with ``--fresh``. The other pages of the site stay as they are; the next ``make book`` writes
all of them.
"""

import argparse
import difflib
import shutil
import sys
from pathlib import Path

from sphinx_external_toc.parsing import parse_toc_yaml

ROOT = Path(__file__).resolve().parents[2]


def page_named(name: str, pages: list[str]) -> str:
    """Return the page that a name means.

    Args:
        name: Such as ``book/sft/lora``, ``sft/lora`` or ``book/sft/lora.md``.
        pages: The book's pages.

    Returns:
        The page.

    Raises:
        ValueError: If no page, or more than one, has the name.
    """
    wanted = name.removeprefix("./").removesuffix(".md").strip("/")
    if wanted in pages:
        return wanted
    ending = [page for page in pages if wanted and f"/{page}".endswith(f"/{wanted}")]
    if len(ending) == 1:
        return ending[0]
    last = wanted.rpartition("/")[2]  # folders would make all pages of a stage alike
    names = [page.rpartition("/")[2] for page in pages]
    close = difflib.get_close_matches(last, sorted(set(names)))
    near = ending or sorted(
        (page for page, name in zip(pages, names, strict=True) if name in close),
        key=lambda page: close.index(page.rpartition("/")[2]),
    )
    hint = f"did you mean {' or '.join(near)}?" if near else "_toc.yml names the pages"
    given = f"PAGE={name} names no page" if len(ending) < 2 else f"PAGE={name} is not one page"
    raise ValueError(f"{given}: {hint}")


def main(arguments: list[str] | None = None) -> int:
    """Build one page.

    Args:
        arguments: The command line.

    Returns:
        The exit status: 0 for a page without a warning.
    """
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("page", nargs="?", default="")
    parser.add_argument("--fresh", action="store_true", help="run the cells in any case")
    parser.add_argument("--root", type=Path, default=ROOT, help="the folder of _config.yml")
    asked = parser.parse_args(arguments)
    root = asked.root.resolve()
    if not asked.page:
        print("Name a page: make page PAGE=book/sft/lora", file=sys.stderr)
        return 2
    site_map = parse_toc_yaml(root / "_toc.yml")
    pages = [name for name in site_map if (root / f"{name}.md").is_file()]
    try:
        page = page_named(asked.page, pages)
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    out = root / "_build" / "html"
    if asked.fresh:
        shutil.rmtree(out.parent / ".jupyter_cache" / page.replace("/", "__"), True)
    if not (out.parent / ".doctrees" / "environment.pickle").is_file():
        print("No build yet: every page is read first, and only this one is run")
    if build(root, out, page):
        return 1
    print(f"The page is ready: {out / page}.html")
    return 0


def build(root: Path, out: Path, page: str) -> bool:
    """Read and write one page as ``jupyter-book build`` would all of them.

    Args:
        root: The folder of the settings.
        out: The folder of the site.
        page: The page's name.

    Returns:
        Whether there was a fault.
    """
    from jupyter_book.sphinx import build_sphinx

    settings = {
        "external_toc_path": (root / "_toc.yml").as_posix(),
        "latex_individualpages": False,
        "nitpicky": True,
        "page_keys_only": page,
    }
    result = build_sphinx(
        root,
        out,
        path_config=root / "_config.yml",
        noconfig=True,
        confoverrides=settings,
        filenames=[str(root / f"{page}.md")],
        warningiserror=True,
        keep_going=True,
    )
    return bool(result)


if __name__ == "__main__":
    raise SystemExit(main())
