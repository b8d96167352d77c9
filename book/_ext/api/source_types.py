"""Types for the API pages, as the source writes them: ``Tensor``, not ``torch._tensor.Tensor``.

Sphinx would evaluate annotations, which opens aliases into long unions and cannot be done where
a module imports a library for type checkers only. Here they are read from the syntax tree; each
name becomes a link to its full name, shown by its last part.
"""

import ast
import copy
import re
from collections.abc import Iterator

from book._ext.api.package_index import DEFINITIONS, FUNCTIONS, Module, PackageIndex

Definition = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
FIELD = re.compile(r"^:(param|ivar) ([^:]+):")


class FullNames(ast.NodeTransformer):
    """Replace names by full ones with a tilde, and the package's aliases by what they are."""

    def __init__(self, module: Module, index: PackageIndex) -> None:
        self.module, self.index = module, index

    def of(self, node: ast.expr) -> ast.expr:
        """Return an annotation with full names; the given one stays as it is."""
        result: ast.expr = self.visit(copy.deepcopy(node))
        return result

    def visit_Name(self, node: ast.Name) -> ast.expr:
        home, _, name = self.module.imports.get(node.id, "").rpartition(".")
        module = self.index.modules.get(home, self.module)
        alias = module.assigned.get(name if home in self.index.modules else node.id)
        if isinstance(alias, ast.Subscript | ast.BinOp):
            return FullNames(module, self.index).of(alias)
        return self._named(node.id, node)

    def visit_Attribute(self, node: ast.Attribute) -> ast.expr:
        return self._named(ast.unparse(node), node)

    def visit_Subscript(self, node: ast.Subscript) -> ast.expr:
        if ast.unparse(node.value) in ("Annotated", "typing.Annotated"):
            arguments = node.slice
            first = arguments.elts[0] if isinstance(arguments, ast.Tuple) else arguments
            return self.of(first)
        if ast.unparse(node.value) in ("Literal", "typing.Literal"):
            node.value = self.visit(node.value)
            return node
        self.generic_visit(node)
        return node

    def visit_Constant(self, node: ast.Constant) -> ast.expr:
        if isinstance(node.value, str):  # a name that is defined further down
            return self.of(ast.parse(node.value, mode="eval").body)
        return node

    def _named(self, name: str, node: ast.expr) -> ast.expr:
        head, _, rest = name.partition(".")
        if head in self.module.symbols:
            full = f"{self.module.name}.{name}"
        elif head in self.module.imports:
            full = ".".join(filter(None, [self.module.imports[head], rest]))
            full = self.index.resolve(full) or full
        else:
            return node
        return ast.Name(id=f"~{full}")


def type_text(annotation: ast.expr, module: Module, index: PackageIndex) -> str:
    """Write an annotation for a field such as ``:type x: ~torch.Tensor``."""
    return ast.unparse(FullNames(module, index).of(annotation))


def find_node(module: Module, name: str) -> Definition | None:
    """Find a class, function or method by its name within the module."""
    body: list[ast.stmt] = module.tree.body
    node: Definition | None = None
    for part in name.split("."):
        # The last one: the earlier ones are overloads.
        found = [x for x in body if isinstance(x, DEFINITIONS) and x.name == part]
        if not found:
            return None
        node, body = found[-1], found[-1].body
    return node


def parameters(node: Definition) -> Iterator[tuple[str, ast.expr]]:
    """Yield what a function, a class's constructor or a record takes, with annotations."""
    if isinstance(node, ast.ClassDef):
        for child in node.body:
            if isinstance(child, FUNCTIONS) and child.name == "__init__":
                yield from parameters(child)
        return
    a = node.args
    starred = [("*", a.vararg), ("**", a.kwarg)]
    listed = [("", x) for x in (*a.posonlyargs, *a.args, *a.kwonlyargs)]
    for stars, argument in [*listed, *starred]:
        if argument is not None and argument.annotation is not None:
            yield stars + argument.arg, argument.annotation


def fields_of(node: ast.ClassDef) -> dict[str, ast.expr]:
    """Return the annotated fields of a record: a dataclass, a named tuple, a typed dict."""
    marks = [ast.unparse(mark) for mark in (*node.decorator_list, *node.bases)]
    if not any(re.match(r"(dataclasses\.)?dataclass|NamedTuple|TypedDict", m) for m in marks):
        return {}
    return {
        child.target.id: child.annotation
        for child in node.body
        if isinstance(child, ast.AnnAssign) and isinstance(child.target, ast.Name)
    }


def add_types(
    lines: list[str], node: Definition, module: Module, index: PackageIndex
) -> list[str]:
    """Put types beside the fields of a docstring that napoleon has converted.

    A parameter that the docstring does not describe gets a field too.
    """
    records = fields_of(node) if isinstance(node, ast.ClassDef) else {}
    taken = dict(parameters(node))
    described = {(m[1], m[2].replace("\\", "")) for line in lines if (m := FIELD.match(line))}
    result: list[str] = []
    for line in lines:
        match = FIELD.match(line)
        name = match[2].replace("\\", "") if match else ""
        if match and match[1] == "param" and name in taken:
            result.append(f":type {match[2]}: {type_text(taken[name], module, index)}")
        elif match and match[1] == "ivar" and name in records:
            result.append(f":vartype {name}: {type_text(records[name], module, index)}")
        result.append(line)
    missing = [
        line
        for name, annotation in taken.items()
        if ("param", name) not in described
        for line in (
            f":param {name.replace('*', chr(92) + '*')}:",
            f":type {name.replace('*', chr(92) + '*')}: {type_text(annotation, module, index)}",
        )
    ]
    missing += [
        line
        for name, annotation in records.items()
        if ("ivar", name) not in described
        for line in (
            f":ivar {name}:",
            f":vartype {name}: {type_text(annotation, module, index)}",
        )
    ]
    return [*result, "", *missing, ""] if missing else result


def returned(node: Definition) -> ast.expr | None:
    """Return the annotation of a result, unless that is ``None``."""
    result = node.returns if isinstance(node, FUNCTIONS) else None
    return result if result is not None and ast.unparse(result) != "None" else None


def is_property(node: Definition) -> bool:
    """Tell properties, cached ones too, from methods."""
    marks = [ast.unparse(mark).rpartition(".")[2] for mark in node.decorator_list]
    return isinstance(node, FUNCTIONS) and bool({"property", "cached_property"} & {*marks})
