"""A page's source in MyST: its directives, its code cells and its prose, each with its lines.

Extensions, tools and tests read pages here, so that all mean the same by "a cell" and "its
options". Nothing is resolved and nothing is run. What a kernel runs are the code cells that
stand in no other block (`Page.cells`); between ``solution-start`` and ``solution-end`` they do.
"""

import json
import re
from dataclasses import dataclass, field

import yaml

CELL = "code-cell"
CODE = {"code", CELL, "code-block", "literalinclude", "math", "raw", "mermaid"}
"""Blocks that hold no Markdown. A fence without a directive is ``code``."""

NO_TEXT = ("glue", "figure", "image")
"""Directives whose first line names something instead of saying something."""

FENCE = re.compile(r"^(\s*)(`{3,}|~{3,}|:{3,})(?:\{([\w:.-]+)\})?\s*(.*?)\s*$")
OPTION = re.compile(r"^\s*:([\w-]+):\s*(.*?)\s*$")
MAGIC = re.compile(r"^[%!].*", re.MULTILINE)


@dataclass
class Block:
    """A directive or a fenced piece of code. Lines are counted from 1.

    Attributes:
        name: The directive's name, or ``code``.
        argument: The rest of its first line.
        start: The line that opens it.
        depth: How many other blocks it stands in.
        indent: The columns before it.
        end: The line that closes it, or the page's last.
        first: The first line of what it holds.
        options: What its options say, as text.
        body: The lines that it holds, without its options and blank lines at either end.
    """

    name: str
    argument: str
    start: int
    depth: int = 0
    indent: int = 0
    end: int = 0
    first: int = 0
    options: dict[str, str] = field(default_factory=dict)
    body: list[str] = field(default_factory=list)

    @property
    def source(self) -> str:
        """What it holds, as a kernel gets it."""
        return "\n".join(self.body)

    @property
    def python(self) -> str:
        """Its code with an empty line in place of each magic and each call of the shell."""
        return MAGIC.sub("", self.source)

    @property
    def tags(self) -> frozenset[str]:
        """The tags of a cell."""
        tags = yaml.safe_load(self.options.get("tags", "")) or []
        return frozenset([tags] if isinstance(tags, str) else tags)

    def _close(self, line: int) -> None:
        self.end = line
        while self.body and not self.body[0].strip():
            del self.body[0]
            self.first += 1
        while self.body and not self.body[-1].strip():
            del self.body[-1]


@dataclass
class Page:
    """A page: its blocks in order, and its lines of prose by number."""

    blocks: list[Block] = field(default_factory=list)
    prose: dict[int, str] = field(default_factory=dict)

    @property
    def cells(self) -> list[Block]:
        """The code cells that a kernel runs."""
        return [b for b in self.blocks if b.name == CELL and not b.depth and b.indent < 4]

    def named(self, *names: str) -> list[Block]:
        """Return the blocks of these names, wherever they stand."""
        return [block for block in self.blocks if block.name in names]


def read(text: str) -> Page:
    """Split a page into blocks and prose.

    Args:
        text: The page's source. A block of settings before its title is left out.

    Returns:
        The page. Code, formulas and options are no prose; the first line of a directive is,
        where it says something.
    """
    page, lines = Page(), text.splitlines()
    head = _length_of_head(lines)
    stack: list[tuple[str, Block]] = []
    in_options = display_math = False
    settings: list[str] | None = None  # of a block that gives its options as YAML
    for number, line in enumerate(lines[head:], head + 1):
        match = FENCE.match(line)
        block = stack[-1][1] if stack else None
        if block and settings is not None:
            if line.strip() == "---":
                block.options |= _as_text(yaml.safe_load("\n".join(settings)))
                settings, block.first = None, number + 1
            else:
                settings.append(line)
            continue
        if block and match and _closes(match, stack[-1][0], block):
            stack.pop()
            block._close(number)
            _add(line, stack)
            in_options = False
            continue
        if block and in_options and line.strip() == "---" and number == block.start + 1:
            settings, in_options = [], False
            _add(line, stack[:-1])
            continue
        option = OPTION.match(line) if block and in_options else None
        if block and option:
            block.options[option[1]] = _unquoted(option[2])
            block.first = number + 1
            _add(line, stack[:-1])
            continue
        in_options = False
        _add(line, stack)
        code = block is not None and block.name in CODE
        if match and not code and _opens(match):
            name, argument = match[3] or "code", match[4]
            new = Block(name, argument, number, len(stack), len(match[1]), first=number + 1)
            stack.append((match[2], new))
            page.blocks.append(new)
            in_options = bool(match[3])
            if match[3] and not name.startswith(NO_TEXT):
                page.prose[number] = argument if name not in CODE else ""
        elif line.strip() == "$$":
            display_math = not display_math
        elif not code and not display_math:
            page.prose[number] = line
    for _, block in stack:
        block._close(len(lines))
    return page


def without(text: str, *names: str) -> str:
    """Return a page without its blocks of these names, those inside other blocks too."""
    lines = text.splitlines(keepends=True)
    for block in read(text).named(*names):
        lines[block.start - 1 : block.end] = [""] * (block.end - block.start + 1)
    return "".join(lines)


def _length_of_head(lines: list[str]) -> int:
    closed = lines[:1] == ["---"] and "---" in lines[1:]
    return lines.index("---", 1) + 1 if closed else 0


def _opens(match: re.Match[str]) -> bool:
    """Tell a fence from a line of inline code, and from colons that close nothing."""
    if match[2][0] == ":":
        return bool(match[3])
    return match[2][0] == "~" or "`" not in match[4]


def _closes(match: re.Match[str], fence: str, block: Block) -> bool:
    """Say whether a line closes the block that this fence has opened."""
    alike = match[2][0] == fence[0] and len(match[2]) >= len(fence)
    return alike and not match[3] and not match[4] and len(match[1]) <= block.indent + 3


def _add(line: str, stack: list[tuple[str, Block]]) -> None:
    for _, block in stack:
        block.body.append(line)


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] == '"'
    return value[1:-1] if quoted else value


def _as_text(settings: object) -> dict[str, str]:
    if not isinstance(settings, dict):
        return {}
    return {
        str(key): value if isinstance(value, str) else json.dumps(value, default=str)
        for key, value in settings.items()
    }
