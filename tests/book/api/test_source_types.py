"""book/_ext/api/source_types.py: types on the API pages, as the source writes them."""

import ast
from pathlib import Path

import pytest

from book._ext.api import package_index, source_types

ROOT = Path(__file__).resolve().parents[3]

SHAPES = '"""Shapes."""\nPair = tuple[int, "Shape"]\nclass Shape:\n    """A shape."""\n'
MODULE = '''"""A module."""
from __future__ import annotations
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, TypeVar
import numpy as np
from torch import Tensor, nn
from toy.shapes import Pair, Shape
if TYPE_CHECKING:
    from trl import SFTConfig

T = TypeVar("T")
Loss = Callable[[Tensor], float]


@dataclass(frozen=True)
class Config:
    """Settings."""

    rank: int
    names: Sequence[str] = ()

    @property
    def scale(self) -> float:
        """A scale."""
        return 1.0


class Layer(nn.Module):
    """A layer."""

    def __init__(self, base: nn.Module, *rest: int, **more: Any) -> None: ...

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Apply it."""


def short(a: int, b="x") -> None:
    """Short."""


async def answer(prompt: Tensor) -> Shape:
    """Answer."""
'''


@pytest.fixture
def index(tmp_path: Path):
    folder = tmp_path / "code" / "toy"
    folder.mkdir(parents=True)
    (folder / "shapes.py").write_text(SHAPES)
    (folder / "module.py").write_text(MODULE)
    return package_index.PackageIndex(tmp_path / "code", "toy")


@pytest.mark.parametrize(
    ("annotation", "text"),
    [
        ("int | None", "int | None"),
        ("Tensor", "~torch.Tensor"),
        ("nn.Module", "~torch.nn.Module"),
        ("np.dtype[np.int8]", "~numpy.dtype[~numpy.int8]"),
        ("'SFTConfig | Tensor'", "~trl.SFTConfig | ~torch.Tensor"),
        ("Config", "~toy.module.Config"),
        ("list[Shape]", "list[~toy.shapes.Shape]"),
        ("Pair", "tuple[int, ~toy.shapes.Shape]"),  # an alias is what it stands for
        ("Loss", "~collections.abc.Callable[[~torch.Tensor], float]"),
        ("Sequence[T]", "~collections.abc.Sequence[T]"),
        ("Annotated[Tensor, 'note']", "~torch.Tensor"),
        ("Literal['Tensor', 'b']", "~typing.Literal['Tensor', 'b']"),
        ("tuple[int, ...]", "tuple[int, ...]"),
    ],
)
def test_annotations_get_full_names(index, annotation: str, text: str):
    expression = ast.parse(annotation, mode="eval").body
    assert source_types.type_text(expression, index.modules["toy.module"], index) == text


def typed(index, name: str, *lines: str) -> list[str]:
    module = index.modules["toy.module"]
    node = source_types.find_node(module, name)
    return source_types.add_types(list(lines), node, module, index)


def test_fields_get_types_beside_them(index):
    assert typed(index, "Layer.forward", "Apply.", "", ":param x: Input.", ":returns: Y.") == [
        "Apply.",
        "",
        ":type x: ~torch.Tensor",
        ":param x: Input.",
        ":returns: Y.",
        "",
        ":param mask:",
        ":type mask: ~torch.Tensor | None",
        "",
    ]


def test_a_record_has_its_fields_and_a_class_its_constructors_parameters(index):
    assert typed(index, "Config", "Settings.", ":ivar rank: A rank.") == [
        "Settings.",
        ":vartype rank: int",
        ":ivar rank: A rank.",
        "",
        ":ivar names:",
        ":vartype names: ~collections.abc.Sequence[str]",
        "",
    ]
    lines = typed(index, "Layer", "A layer.", ":param \\*rest: More.")
    assert lines[:3] == ["A layer.", ":type \\*rest: int", ":param \\*rest: More."]
    assert ":type base: ~torch.nn.Module" in lines
    assert ":type \\*\\*more: ~typing.Any" in lines


def test_what_is_unannotated_stays(index):
    lines = typed(index, "short", "Short.")
    assert lines == ["Short.", "", ":param a:", ":type a: int", ""]


def test_results_and_properties(index):
    module = index.modules["toy.module"]
    nodes = {x: source_types.find_node(module, x) for x in ("short", "Config", "Config.scale")}
    assert source_types.returned(nodes["short"]) is None
    assert source_types.returned(nodes["Config"]) is None
    assert ast.unparse(source_types.returned(nodes["Config.scale"])) == "float"
    assert source_types.find_node(module, "Config.other") is None


def test_an_async_function_is_a_function(index):
    lines = typed(index, "answer", "Answer.")
    assert lines == ["Answer.", "", ":param prompt:", ":type prompt: ~torch.Tensor", ""]
    node = source_types.find_node(index.modules["toy.module"], "answer")
    assert ast.unparse(source_types.returned(node)) == "Shape"
    assert not source_types.is_property(node)
