"""Which code a result depends on, read from the source without running it.

A module's hash is that of its syntax tree without docstrings: comments, formatting and
docstrings may change, and nothing is trained again.

Chapter: start/how_this_book_works.
"""

import ast
import hashlib
import importlib.util
import re
from collections.abc import Iterable, Iterator
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

PACKAGE = "posttrain"
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+")


def module_hashes(
    modules: Iterable[str | ModuleType], *, named: bool = False
) -> dict[str, str]:
    """Hash modules and, transitively, every module of their own packages that they import.

    Imports are found anywhere in the source: inside functions, under conditions, relative ones
    too. Only modules of ``posttrain``, and of the packages named in `modules`, are followed.
    ``importlib.import_module("...")`` is not seen. The hash is of what is on the disk: after an
    edit, restart the process that runs the code.

    Args:
        modules: Modules, or their dotted names.
        named: Whether to follow modules that the source names in a string too, such as one that
            it starts with ``python -m``.

    Returns:
        SHA-256 by module name, sorted by name.

    Raises:
        TypeError: If `modules` is one string rather than a list of them.
        ValueError: If a module has no Python source that can be found.
    """
    if isinstance(modules, str):
        raise TypeError(f"modules must be a list of module names, not a string: [{modules!r}]")
    pending = [m if isinstance(m, str) else m.__name__ for m in modules]
    if missing := [name for name in pending if _source(name) is None]:
        raise ValueError(
            f"no source for the module {', '.join(map(repr, missing))}: give dotted names that "
            f"can be imported, such as '{PACKAGE}.pretraining.gpt'"
        )
    roots = {PACKAGE, *(name.partition(".")[0] for name in pending)}
    hashes: dict[str, str] = {}
    while pending:
        name = pending.pop()
        source = None if name in hashes else _source(name)
        if source is None:
            continue
        parent = name.rpartition(".")[0]
        code = _read(source.read_bytes(), name if source.name == "__init__.py" else parent)
        hashes[name] = code.hash
        if "." in parent:  # its __init__ runs too; the root's only holds the version
            pending.append(parent)
        found = [*_imported(code), *(code.strings if named else ())]
        pending += [module for module in found if module.partition(".")[0] in roots]
    return dict(sorted(hashes.items()))


def modules_in(code: str, package: str = PACKAGE) -> list[str]:
    """Name the modules of a package that a piece of code imports, or names in a string.

    Args:
        code: Python, such as a cell of a notebook.
        package: The package.

    Returns:
        Dotted names of modules that exist, sorted; what they import in turn is not followed.

    Raises:
        SyntaxError: If `code` is not Python.
    """  # noqa: DOC502
    read = _read(code.encode(), "")
    found = {name for name in (*_imported(read), *read.strings) if _source(name) is not None}
    return sorted(name for name in found if name.partition(".")[0] == package)


class _Code(NamedTuple):
    """What is kept of a source: its hash, its imports as (base, names), dotted strings."""

    hash: str
    imports: tuple[tuple[str, tuple[str, ...]], ...]
    strings: tuple[str, ...]


@lru_cache(maxsize=2048)
def _read(source: bytes, package: str) -> _Code:
    """Read a source, once for each content; `package` is what relative imports start from."""
    tree = ast.parse(source)
    constants = (node.value for node in ast.walk(tree) if isinstance(node, ast.Constant))
    strings = tuple(x for x in constants if isinstance(x, str) and DOTTED.fullmatch(x))
    imports = tuple(_imports(tree, package))
    return _Code(_tree_hash(tree), imports, strings)


def _imported(code: _Code) -> Iterator[str]:
    """Yield the modules; in ``from a import b``, b may be a module or a name in a."""
    for base, names in code.imports:
        submodules = [f"{base}.{name}" for name in names]
        yield from submodules
        if not submodules or not all(_source(module) for module in submodules):
            yield base


def _source(name: str) -> Path | None:
    """Find a module's file without importing it or its parents."""
    root, *rest = name.split(".")
    try:
        spec = importlib.util.find_spec(root)
    except ValueError:  # __main__ of a notebook
        return None
    if spec is None:
        return None
    if spec.submodule_search_locations is None:
        is_source = not rest and spec.origin and spec.origin.endswith(".py")
        return Path(str(spec.origin)) if is_source else None
    for location in spec.submodule_search_locations:
        path = Path(location, *rest)
        for candidate in (path / "__init__.py", path.with_name(f"{path.name}.py")):
            if candidate.is_file():
                return candidate
    return None


def _imports(tree: ast.Module, package: str) -> Iterator[tuple[str, tuple[str, ...]]]:
    """Yield what is imported: a module and no names, or a module and the names from it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((alias.name, ()) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            parts = [node.module] if node.module else []
            if node.level:
                ancestors = package.split(".")
                parts = ancestors[: len(ancestors) - node.level + 1] + parts
            yield ".".join(parts), tuple(alias.name for alias in node.names)


class _DropStrings(ast.NodeTransformer):
    """Remove statements that are only a string: docstrings of any kind."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        is_string = isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        return None if is_string else node


def _tree_hash(tree: ast.Module) -> str:
    return hashlib.sha256(ast.dump(_DropStrings().visit(tree)).encode()).hexdigest()
