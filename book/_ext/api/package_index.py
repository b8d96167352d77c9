"""What the package's source says without being imported: symbols, lines, chapters, names.

The extensions of the API pages and the tests read the package here, so that both mean the same
by "public", "documented" and "this chapter's symbols".
"""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path

from book._ext.chapters.myst import read

CHAPTER = re.compile(r"^Chapter: (\w+/\w+(?:, \w+/\w+)*)\.$")
FUNCTIONS = (ast.FunctionDef, ast.AsyncFunctionDef)
DEFINITIONS = (*FUNCTIONS, ast.ClassDef)


@dataclass(frozen=True)
class Symbol:
    """A public class or function, or a public method, with its lines in the file.

    `chapters` are those of its own docstring; a symbol that names none has its module's.
    """

    name: str
    first: int
    last: int
    docstring: str
    chapters: tuple[str, ...] = ()
    methods: dict[str, "Symbol"] = field(default_factory=dict)
    parameters: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Fault:
    """What a docstring lacks, with the place."""

    path: Path
    line: int
    text: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}: {self.text}"


@dataclass(frozen=True)
class Module:
    """A module's public symbols, in the order of the source."""

    name: str
    path: Path
    tree: ast.Module

    @property
    def docstring(self) -> str:
        """The module's docstring, or an empty text."""
        return ast.get_docstring(self.tree) or ""

    @property
    def summary(self) -> str:
        """The first paragraph of the docstring, on one line."""
        return " ".join(self.docstring.partition("\n\n")[0].split())

    @cached_property
    def chapters(self) -> tuple[str, ...]:
        """The chapters of the module's own docstring."""
        return chapters_of(self.docstring)

    @cached_property
    def symbols(self) -> dict[str, Symbol]:
        """The public classes and functions."""
        return _symbols(self.tree.body)

    @cached_property
    def imports(self) -> dict[str, str]:
        """Full names of what the module imports anywhere, by the names that it uses."""
        return imported_names(self.tree)

    @cached_property
    def assigned(self) -> dict[str, ast.expr]:
        """What the module's own top level assigns to a single name."""
        return {
            node.targets[0].id: node.value
            for node in self.tree.body
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)
        }

    def chapters_for(self, symbol: Symbol) -> tuple[str, ...]:
        """Return a symbol's chapters: its own, or else the module's."""
        return symbol.chapters or self.chapters

    def shown_in_lines(self, first: int, last: int) -> list[str]:
        """Name the documented symbols that lines of the file show, as they stand in full.

        Lines inside one method name that method. Private code names nothing.
        """
        shown = [s for s in self.symbols.values() if s.first <= last and s.last >= first]
        if len(shown) == 1:
            for method in shown[0].methods.values():
                if method.first <= first and last <= method.last:
                    return [f"{self.name}.{shown[0].name}.{method.name}"]
        return [f"{self.name}.{symbol.name}" for symbol in shown]


def chapters_of(docstring: str) -> tuple[str, ...]:
    """Return the chapters that a docstring's last line names; none if it has no such line."""
    match = CHAPTER.match(docstring.rstrip().rpartition("\n")[2].strip())
    return tuple(match[1].split(", ")) if match else ()


def imported_names(tree: ast.AST) -> dict[str, str]:
    """Return full names by the local names that absolute imports give them."""
    names = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.module and not node.level:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
        elif isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                names[alias.asname or root] = alias.name if alias.asname else root
    return names


def _symbols(body: list[ast.stmt]) -> dict[str, Symbol]:
    found: dict[str, Symbol] = {}
    for node in body:
        if not isinstance(node, DEFINITIONS) or node.name.startswith("_"):
            continue
        is_class = isinstance(node, ast.ClassDef)
        docstring = ast.get_docstring(node)
        if docstring is None:  # overloads, and methods that only repeat their base's
            continue
        found[node.name] = Symbol(
            node.name,
            min([node.lineno, *(decorator.lineno for decorator in node.decorator_list)]),
            node.end_lineno or node.lineno,
            docstring,
            chapters_of(docstring),
            _symbols(node.body) if is_class else {},
            _parameters(node),
        )
    return found


def _parameters(node: ast.stmt) -> frozenset[str]:
    """Return the names of what a function, or a class's own constructor, takes."""
    if isinstance(node, FUNCTIONS):
        return frozenset(x.arg for x in ast.walk(node.args) if isinstance(x, ast.arg))
    own = node.body if isinstance(node, ast.ClassDef) else []
    makers = [x for x in own if isinstance(x, FUNCTIONS) and x.name == "__init__"]
    return _parameters(makers[0]) if makers else frozenset()


class PackageIndex:
    """The public modules of the package in a folder such as ``code``."""

    def __init__(self, code: Path, package: str = "posttrain") -> None:
        self.package = package
        self.modules: dict[str, Module] = {}
        for path in sorted((code / package).rglob("*.py")):
            parts = path.relative_to(code).with_suffix("").parts
            if not any(part.startswith("_") for part in parts):
                tree = ast.parse(path.read_text(encoding="utf-8"))
                self.modules[".".join(parts)] = Module(".".join(parts), path, tree)

    def module_at(self, path: Path) -> Module | None:
        """Return the public module that a file is."""
        path = path.resolve()
        return next((m for m in self.modules.values() if m.path.resolve() == path), None)

    def resolve(self, name: str) -> str | None:
        """Say where a dotted name of the package is documented, through re-exports too."""
        if name in self.modules:
            return name
        for cut in range(name.count("."), 0, -1):
            parts = name.split(".")
            module = self.modules.get(".".join(parts[:cut]))
            if module is None:
                continue
            head, *rest = parts[cut:]
            symbol = module.symbols.get(head)
            if symbol is None:
                target = module.imports.get(head, "")
                is_own = target.startswith(f"{self.package}.") and target != name
                return self.resolve(".".join([target, *rest])) if is_own else None
            if not rest or (len(rest) == 1 and rest[0] in symbol.methods):
                return name
            return None
        return None

    @cached_property
    def distinct(self) -> dict[str, str]:
        """Full names by short ones, of symbols that one module has and no word looks like."""
        found: dict[str, list[str]] = {}
        for module in self.modules.values():
            for name in module.symbols:
                found.setdefault(name, []).append(f"{module.name}.{name}")
        return {
            name: full[0]
            for name, full in found.items()
            if len(full) == 1 and ("_" in name or not (name.islower() or name.istitle()))
        }

    def faults(self, book: Path) -> Iterator[Fault]:
        """Say which public symbols lack a chapter, and which name one that does not exist."""
        for module in self.modules.values():
            own: list[tuple[int, str, str]] = [(1, module.name, module.docstring)]
            for symbol in module.symbols.values():
                own.append((symbol.first, symbol.name, symbol.docstring))
                if not module.chapters_for(symbol):
                    text = f"{symbol.name} has no chapter: end its docstring, or its module's, "
                    yield Fault(module.path, symbol.first, text + "with 'Chapter: sft/lora.'")
            for line, name, docstring in own:
                last = docstring.rstrip().rpartition("\n")[2].strip()
                if "Chapter:" in docstring and not CHAPTER.match(last):
                    text = f"the docstring of {name} must end with 'Chapter: sft/lora.'"
                    yield Fault(module.path, line, text)
                for chapter in chapters_of(docstring):
                    if not (book / f"{chapter}.md").is_file():
                        at = _line_of(module.path, f"{chapter}", line)
                        yield Fault(module.path, at, f"no such chapter: book/{chapter}.md")


def _line_of(path: Path, text: str, start: int) -> int:
    lines = path.read_text(encoding="utf-8").splitlines()
    found = (n for n, line in enumerate(lines, 1) if n >= start and text in line)
    return next(found, start)


def names_in_cells(text: str) -> tuple[dict[str, str], set[str]]:
    """Read the cells of a chapter.

    Returns:
        Full names of what they import, by local name, and the names that they define.
    """
    imported: dict[str, str] = {}
    defined: set[str] = set()
    for cell in read(text).cells:
        try:
            tree = ast.parse(cell.python)
        except SyntaxError:  # a cell in another language, or one that asks the shell
            continue
        imported |= imported_names(tree)
        for node in ast.walk(tree):
            if isinstance(node, DEFINITIONS):
                defined.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                defined.add(node.id)
    return imported, defined
