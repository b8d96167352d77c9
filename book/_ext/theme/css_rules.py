"""Read style sheets, and leave out the rules that no page of a site can need.

A rule is left out only where it asks for a class that no page and no script mentions: then
nothing can match it. What is not understood is kept as it is.
"""

import re
from collections.abc import Iterator, Set
from dataclasses import dataclass

GROUPS = ("@media", "@supports", "@layer", "@container")
COMMENT = re.compile(r"/\*.*?\*/", re.DOTALL)
# What a style sheet consists of, as far as braces matter: strings and comments may hold some.
PART = re.compile(
    r"""/\*.*?\*/|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*'|url\([^)"']*\)|\\.|[{};]|[^{};"'/\\u]+|.""",
    re.DOTALL,
)
CLASS = re.compile(r"\.(-?[A-Za-z_](?:[\w-]|\\.)*)")
OUTSIDE = re.compile(r"data:|https?:|//|#|/")
URL = re.compile(r"""url\(\s*(["']?)([^"')]+)\1\s*\)""")


@dataclass(frozen=True)
class Rule:
    """A rule, or a statement such as ``@charset`` where `body` is None.

    Attributes:
        prelude: What stands before the braces.
        body: What stands between them.
    """

    prelude: str
    body: str | None

    def __str__(self) -> str:
        return f"{self.prelude};" if self.body is None else f"{self.prelude}{{{self.body}}}"


def rules_of(css: str) -> Iterator[Rule | str]:
    """Split a style sheet into its outermost rules.

    Args:
        css: The style sheet.

    Yields:
        Its rules, and its comments that begin with ``/*!``: those are licenses.

    Raises:
        ValueError: If the braces do not match.
    """
    prelude, body, depth = "", "", 0
    for match in PART.finditer(css):
        part = match[0]
        if part.startswith("/*"):
            if depth == 0 and part.startswith("/*!"):
                yield part
            continue
        if part == "}":
            depth -= 1
            if depth == 0:
                yield Rule(" ".join(prelude.split()), body.strip())
                prelude, body = "", ""
                continue
        if depth < 0:
            raise ValueError(
                f"a brace is closed that was never opened, before {css[match.end() :][:60]!r}"
            )
        if depth:
            body += part
        elif part == ";":
            if prelude.strip():
                yield Rule(" ".join(prelude.split()), None)
            prelude = ""
        elif part != "{":
            prelude += part
        depth += part == "{"
    if depth or prelude.strip():
        raise ValueError(f"a style sheet ends inside a rule: {prelude.strip()[:60]!r}")


def needed(css: str, words: Set[str]) -> str:
    """Leave out the rules that nothing can match.

    Args:
        css: A style sheet.
        words: Every word that pages and scripts mention, class names among them.

    Returns:
        The rest, one rule on a line.
    """
    kept: list[str] = []
    for rule in rules_of(css):
        if isinstance(rule, str):
            kept.append(rule)
        elif rule.body is None:
            if not rule.prelude.startswith("@charset"):
                kept.append(str(rule))
        elif rule.prelude.startswith(GROUPS):
            inner = needed(rule.body, words)
            if inner:
                kept.append(str(Rule(rule.prelude, f"\n{inner}\n")))
        elif rule.prelude.startswith("@"):
            kept.append(str(rule))
        else:
            selectors = [s for s in selectors_of(rule.prelude) if classes_of(s) <= words]
            if selectors:
                kept.append(str(Rule(",".join(selectors), rule.body)))
    return "\n".join(kept)


def selectors_of(prelude: str) -> list[str]:
    """Split ``a, b:is(c, d)`` at its outermost commas."""
    selectors, depth = [""], 0
    for part in re.findall(r"""[(),\[\]]|\\.|"[^"]*"|'[^']*'|[^(),\[\]"'\\]+|.""", prelude):
        depth += (part in "([") - (part in ")]")
        if part == "," and depth == 0:
            selectors.append("")
        else:
            selectors[-1] += part
    return [selector.strip() for selector in selectors]


def classes_of(selector: str) -> set[str]:
    """Return the classes without which a selector matches nothing.

    What stands in parentheses may be negated or one of several, so it is not looked at, and
    neither are values in brackets.
    """
    plain, before = selector, ""
    while plain != before:
        before, plain = plain, re.sub(r"\([^()]*\)|\[[^][]*\]", "", plain)
    return {re.sub(r"\\(.)", r"\1", name) for name in CLASS.findall(plain)}


def moved(css: str, folder: str) -> str:
    """Rewrite the addresses of a style sheet that moves up out of a folder.

    Args:
        css: The style sheet.
        folder: Where it was, such as ``styles``; empty where it does not move.

    Returns:
        The style sheet for its new place.
    """

    def move(match: re.Match[str]) -> str:
        address = match[2].strip()
        if OUTSIDE.match(address):
            return match[0]
        parts = [part for part in folder.split("/") if part]
        for part in address.split("/"):
            if part == "..":
                parts.pop()
            elif part != ".":
                parts.append(part)
        return f'url("{"/".join(parts)}")'

    return URL.sub(move, css)
