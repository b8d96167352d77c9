"""Does the site's search put the right page first? Typed and read as a reader does."""

from pathlib import Path

import yaml

from tools.site.browser import Browser
from tools.site.faults import Fault, short

TERMS = Path(__file__).with_name("search_terms.yml")
FIELD = "input[type=search]"
OPENS = "[class*=search-button]:visible, button[aria-label^=Search]:visible"
LIST = ":is(#search-results, .search-results)"
READY = """list => {
    const text = document.querySelector(list)?.innerText || "";
    return document.querySelector(list + " li a") || /did not match|no results/i.test(text);
}"""


def read_terms(file: Path = TERMS) -> dict[str, str]:
    """Return the terms to search for, each with the page that must come first.

    Args:
        file: A YAML file: a mapping from terms to pages, without ``.html``.

    Returns:
        The terms with paths of pages.

    Raises:
        ValueError: If the file holds something else.
    """
    terms = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(terms, dict) or not all(isinstance(p, str) for p in terms.values()):
        raise ValueError(f"{file} must map each term to a page, such as NF4: book/sft/qlora")
    return {str(term): f"{page}.html" for term, page in terms.items()}


def search(browser: Browser, start: str, term: str, *, disk: bool = False) -> list[str]:
    """Type a term into the search field of a page and return what is found.

    Args:
        browser: The browser to use.
        start: The page on which the reader begins.
        term: What is typed.
        disk: Whether the page is opened as a file, without the server.

    Returns:
        The paths of the pages in the list of results, best first.
    """
    visit = browser.open(start, disk=disk)
    field = visit.tab.locator(f"{FIELD}:visible").first
    if not field.is_visible():
        visit.tab.locator(OPENS).first.click()
    field.fill(term)
    field.press("Enter")
    visit.tab.wait_for_selector(LIST)
    visit.tab.wait_for_function(READY, arg=LIST)
    links = visit.tab.eval_on_selector_all(f"{LIST} li a", "all => all.map(link => link.href)")
    home = f"{visit.origin}/" if disk else browser.server.url("")
    return [link.partition("#")[0].partition("?")[0].removeprefix(home) for link in links]


def look_for_term(
    browser: Browser, start: str, term: str, page: str, *, disk: bool = False
) -> list[Fault]:
    """Search for a term; a fault if the page that it must find is not the first result.

    Args:
        browser: The browser to use.
        start: The page on which the reader begins.
        term: What is typed.
        page: The path of the page that must come first.
        disk: Whether the page is opened as a file, without the server.

    Returns:
        One fault, or none.
    """
    from playwright.sync_api import Error

    try:
        found = search(browser, start, term, disk=disk)
    except Error as error:
        what = f"searching for {term!r} failed: {short(str(error))}"
    else:
        if found[:1] == [page]:
            return []
        what = f"{term!r} finds {found[0] if found else 'nothing'} first"
    where = "opened as a file" if disk else ""
    return [Fault("search", page, "not the first result", what, where=where)]
