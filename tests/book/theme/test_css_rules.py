"""book/_ext/theme/css_rules.py: only what nothing can match is left out of a style sheet."""

import pytest

pytest.importorskip("sphinx")
from book._ext.theme.css_rules import classes_of, moved, needed, rules_of, selectors_of


def test_rules_are_split_where_braces_say_so_and_not_strings() -> None:
    css = """
    /*! License { */ /* a note } */
    @charset "UTF-8";
    a::before { content: "}\\"{"; }
    .icon { background: url(data:image/svg+xml;utf8,<svg>{}</svg>) }
    @media (min-width: 10px) { p { color: red } q { color: blue } }
    """
    rules = [str(rule) for rule in rules_of(css)]
    assert rules == [
        "/*! License { */",
        '@charset "UTF-8";',
        'a::before{content: "}\\"{";}',
        ".icon{background: url(data:image/svg+xml;utf8,<svg>{}</svg>)}",
        "@media (min-width: 10px){p { color: red } q { color: blue }}",
    ]


@pytest.mark.parametrize("css", ["p { color: red", "p { } }", "p { } q"])
def test_a_broken_style_sheet_is_refused(css: str) -> None:
    with pytest.raises(ValueError, match=r"brace is closed|ends inside a rule"):
        list(rules_of(css))


@pytest.mark.parametrize(
    ("selector", "classes"),
    [
        ("p", set()),
        (".a.b > .c:hover", {"a", "b", "c"}),
        ("a:not(.b, :is(.c)) .d", {"d"}),
        (":is(.a, .b) p", set()),
        ('a[href$=".pdf"]', set()),
        (r".sm\:p-1\.5", {"sm:p-1.5"}),
        ("h1.5", set()),
    ],
)
def test_the_classes_that_a_selector_needs(selector: str, classes: set[str]) -> None:
    assert classes_of(selector) == classes


def test_selectors_are_split_at_outer_commas_only() -> None:
    assert selectors_of("a:is(b, c), d[title='x,y'] ,e") == [
        "a:is(b, c)",
        "d[title='x,y']",
        "e",
    ]


def test_what_nothing_can_match_is_left_out() -> None:
    css = """
    /*! License */
    @charset "UTF-8";
    .used, .unused { color: red }
    .unused p { color: blue }
    p:not(.unused) { color: green }
    @media print { .unused { color: red } }
    @media print { .used { color: red } .unused { color: red } }
    @supports (gap: 1px) { @media print { .unused { gap: 1px } } }
    @font-face { font-family: unused }
    """
    assert needed(css, {"used"}).splitlines() == [
        "/*! License */",
        ".used{color: red}",
        "p:not(.unused){color: green}",
        "@media print{",
        ".used{color: red}",
        "}",
        "@font-face{font-family: unused}",
    ]


def test_what_is_needed_stays_when_it_is_asked_again() -> None:
    css = needed("@media print{.a{color:red}}\n.b .c{x:y}", {"a", "b", "c"})
    assert needed(css, {"a", "b", "c"}) == css


@pytest.mark.parametrize(
    ("address", "folder", "new"),
    [
        ("../fonts/a.woff2", "styles", 'url("fonts/a.woff2")'),
        ("'images/b.svg'", "styles/deep", 'url("styles/deep/images/b.svg")'),
        ("./c.png", "", 'url("c.png")'),
        ('"data:image/png;base64,AA=="', "styles", 'url("data:image/png;base64,AA==")'),
        ("#gradient", "styles", "url(#gradient)"),
    ],
)
def test_addresses_move_with_the_style_sheet(address: str, folder: str, new: str) -> None:
    assert moved(f"p{{background:url({address})}}", folder) == f"p{{background:{new}}}"
