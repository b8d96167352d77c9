"""book/_ext/api/package_index.py: what the package's source says without being imported."""

from pathlib import Path

import pytest

from book._ext.api import package_index

ROOT = Path(__file__).resolve().parents[3]

LORA = '''"""LoRA by hand:
a small update.

More text. Chapter: sft/lora. is no last line here.

Chapter: sft/lora.
"""

from __future__ import annotations
import torch
from torch import nn
from toy.core.files import Writer as W, save
from typing import overload

SIZES = (1, 2)
Alias = dict[str, int]


class LoRALinear(nn.Module):
    """A layer.

    Chapter: sft/lora, sft/qlora.
    """

    def __init__(self, base: nn.Module) -> None:
        self.base = base

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply it."""
        return self.base(x)

    def plain(self):
        return 1


@overload
def inject(model: int) -> int: ...
@overload
def inject(model: str) -> str: ...
@torch.no_grad()
def inject(model):
    """Put adapters in."""
    return model


def _private():
    """Not public."""


def undocumented():
    return 1
'''


@pytest.fixture
def index(tmp_path: Path):
    write(tmp_path, "sft/lora", LORA)
    write(tmp_path, "core/files", '"""Files."""\n\nclass Writer:\n    """One.\n    """\n')
    write(tmp_path, "core/_hidden", '"""Hidden."""\n')
    write(tmp_path, "core/__init__", "")
    return package_index.PackageIndex(tmp_path / "code", "toy")


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / "code" / "toy" / f"{name}.py"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def test_only_public_modules_and_documented_symbols_count(index):
    assert list(index.modules) == ["toy.core.files", "toy.sft.lora"]
    module = index.modules["toy.sft.lora"]
    assert list(module.symbols) == ["LoRALinear", "inject"]
    assert list(module.symbols["LoRALinear"].methods) == ["forward"]
    assert module.summary == "LoRA by hand: a small update."
    assert index.module_at(module.path) is module
    assert index.module_at(Path(__file__)) is None


def test_chapters_are_a_symbols_own_or_the_modules(index):
    module = index.modules["toy.sft.lora"]
    assert module.chapters_for(module.symbols["LoRALinear"]) == ("sft/lora", "sft/qlora")
    assert module.chapters_for(module.symbols["inject"]) == ("sft/lora",)


def test_lines_name_what_they_show(index):
    module = index.modules["toy.sft.lora"]
    at = LORA.splitlines().index
    forward = at("    def forward(self, x: torch.Tensor) -> torch.Tensor:") + 1
    plain = at("    def plain(self):") + 1
    inject = at("@torch.no_grad()") + 1
    private = at("def _private():") + 1
    assert module.shown_in_lines(forward + 2, forward + 2) == [
        "toy.sft.lora.LoRALinear.forward"
    ]
    assert module.shown_in_lines(forward, plain) == ["toy.sft.lora.LoRALinear"]
    assert module.shown_in_lines(plain, plain + 1) == ["toy.sft.lora.LoRALinear"]
    assert module.shown_in_lines(inject, inject) == ["toy.sft.lora.inject"]
    assert module.shown_in_lines(plain, inject) == [
        "toy.sft.lora.LoRALinear",
        "toy.sft.lora.inject",
    ]
    assert module.shown_in_lines(private, private + 1) == []


@pytest.mark.parametrize(
    ("name", "full"),
    [
        ("toy.sft.lora", "toy.sft.lora"),
        ("toy.sft.lora.inject", "toy.sft.lora.inject"),
        ("toy.sft.lora.LoRALinear.forward", "toy.sft.lora.LoRALinear.forward"),
        ("toy.sft.lora.LoRALinear.plain", None),
        ("toy.sft.lora.LoRALinear.forward.deeper", None),
        ("toy.sft.lora.W", "toy.core.files.Writer"),
        ("toy.sft.lora.save", None),
        ("toy.sft.lora.nn", None),
        ("toy.sft.other.inject", None),
        ("torch.nn.Module", None),
    ],
)
def test_names_resolve_through_imports(index, name: str, full: str | None):
    assert index.resolve(name) == full


def test_distinct_names_are_no_words_and_stand_in_one_module(index, tmp_path: Path):
    assert index.distinct == {"LoRALinear": "toy.sft.lora.LoRALinear"}  # inject is a word
    write(
        tmp_path,
        "dpo/lora",
        'def to_file():\n    """Write."""\nclass LoRALinear:\n    """."""\n',
    )
    again = package_index.PackageIndex(tmp_path / "code", "toy")
    assert again.distinct == {"to_file": "toy.dpo.lora.to_file"}


def test_faults_have_file_and_line(index, tmp_path: Path):
    book = tmp_path / "book"
    (book / "sft").mkdir(parents=True)
    (book / "sft" / "lora.md").write_text("# LoRA\n")
    lora, files = (index.modules[name].path for name in ("toy.sft.lora", "toy.core.files"))
    line = LORA.splitlines().index("    Chapter: sft/lora, sft/qlora.") + 1
    assert [str(fault) for fault in index.faults(book)] == [
        f"{files}:3: Writer has no chapter: end its docstring, or its module's, with "
        "'Chapter: sft/lora.'",
        f"{lora}:{line}: no such chapter: book/sft/qlora.md",
    ]


@pytest.mark.parametrize(
    "last", ["Chapter: lora.", "Chapter: sft/lora", "Chapter: sft/lora.\n\nMore."]
)
def test_a_misplaced_chapter_is_a_fault(tmp_path: Path, last: str):
    path = write(tmp_path, "sft/lora", f'"""LoRA.\n\n{last}\n"""\n')
    index = package_index.PackageIndex(tmp_path / "code", "toy")
    assert [str(fault) for fault in index.faults(tmp_path)] == [
        f"{path}:1: the docstring of toy.sft.lora must end with 'Chapter: sft/lora.'"
    ]


def test_cells_tell_what_they_import_and_define():
    page = (
        "# Title\n`named` and\n```python\nfrom toy import no_cell\n```\n"
        "````{code-cell} ipython3\n:tags: [hide-input]\n%magic\n"
        "from toy.sft.lora import inject as put, LoRALinear\nimport toy.core.files\n"
        "import torch.nn as nn\nlayer = LoRALinear(1)\ndef own(a): return a\n````\n"
    )
    imported, defined = package_index.names_in_cells(page)
    assert imported == {
        "put": "toy.sft.lora.inject",
        "LoRALinear": "toy.sft.lora.LoRALinear",
        "toy": "toy",
        "nn": "torch.nn",
    }
    assert defined == {"layer", "own"}


@pytest.mark.parametrize("foreign", ["%%bash\nls -l | head", "x = !ls", "---\nname: a\n---\n)"])
def test_cells_in_another_language_are_passed_over(foreign: str):
    page = f"```{{code-cell}}\n{foreign}\n```\n\n```{{code-cell}}\nimport torch\n```\n"
    assert package_index.names_in_cells(page) == ({"torch": "torch"}, set())


def test_an_async_function_counts_like_any_other(tmp_path: Path):
    write(tmp_path, "rl/serve", 'async def ask(text, *, seed=0):\n    """Ask."""\n')
    index = package_index.PackageIndex(tmp_path / "code", "toy")
    symbol = index.modules["toy.rl.serve"].symbols["ask"]
    assert (symbol.first, symbol.last, symbol.parameters) == (1, 2, {"text", "seed"})
    cell = "```{code-cell} ipython3\nasync def ask(text): return text\n```\n"
    assert package_index.names_in_cells(cell)[1] == {"ask"}
