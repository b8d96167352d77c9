"""book/_ext/api/outside_names.py and its list: links to other libraries without a network."""

import importlib
import re
import sys
from io import BytesIO
from pathlib import Path

import pytest

pytest.importorskip("sphinx")
from sphinx.util.inventory import InventoryFile

from book._ext.api import outside_names

ROOT = Path(__file__).resolve().parents[3]

PROJECT = {
    "base": "https://example.org/docs/",
    "names": {
        "class": {"lib.Thing": "things.html", "lib.Alias": "things.html#lib.Thing"},
        "function": {"lib.make": "make.html"},
    },
}


def test_an_inventory_reads_as_sphinx_reads_it():
    content = BytesIO(outside_names.inventory("lib", PROJECT))
    read = InventoryFile.load(content, PROJECT["base"], lambda a, b: a + b)
    assert {role: {name: item[2] for name, item in x.items()} for role, x in read.items()} == {
        "py:class": {
            "lib.Thing": "https://example.org/docs/things.html#lib.Thing",
            "lib.Alias": "https://example.org/docs/things.html#lib.Thing",
        },
        "py:function": {"lib.make": "https://example.org/docs/make.html#lib.make"},
    }


def test_addresses_know_full_names_and_distinct_class_names():
    tensor = "https://docs.pytorch.org/docs/stable/tensors.html#torch.Tensor"
    assert outside_names.address_of("torch.Tensor") == tensor
    assert outside_names.address_of("Tensor") == tensor
    assert outside_names.address_of("linear") is None  # a word
    assert outside_names.address_of("torch.unheard_of") is None


def all_names() -> list[str]:
    projects = outside_names.projects().values()
    return [name for project in projects for name in outside_names.entries(project)]


# The others take seconds to import; the weekly link check visits their pages.
QUICK = {"filelock", "matplotlib", "numpy", "torch", *sys.stdlib_module_names}


@pytest.mark.parametrize("name", [x for x in all_names() if x.partition(".")[0] in QUICK])
def test_every_name_exists(name: str):
    pytest.importorskip(name.partition(".")[0])
    parts = name.split(".")
    for cut in range(len(parts) - 1, 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:cut]))
        except ModuleNotFoundError:
            continue
        for part in parts[cut:]:
            found = getattr(found, part)
        return
    pytest.fail(f"no module of {name} can be imported")


def test_every_name_is_mentioned_by_the_package():
    texts = [path.read_text("utf-8") for path in (ROOT / "code" / "posttrain").rglob("*.py")]
    words = set(re.findall(r"\w+", " ".join(texts)))
    assert [name for name in all_names() if name.rpartition(".")[2] not in words] == []


def test_addresses_are_well_formed():
    for name, project in outside_names.projects().items():
        assert re.fullmatch(r"https://[\w./-]+/", project["base"]), name
        for _, page in outside_names.entries(project).values():
            assert re.fullmatch(r"[\w./-]+#[\w.]+", page), page


def test_what_has_no_address_gives_a_reason():
    for entry, reason in outside_names.content()["unlinked"].items():
        assert re.fullmatch(r"py:\w+ [\w.]+", entry)
        assert len(reason.split()) > 3
