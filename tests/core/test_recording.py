"""posttrain.core.recording and ``posttrain record``: parts, interruptions, repetitions."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from posttrain.cli import app
from posttrain.core import recording, records
from posttrain.core.errors import RecordError
from posttrain.core.recording import Recipe, find_recipe, make_record, recipes, repeat_parts
from posttrain.core.records import read_record, write_record

TOY = """
import os

CONFIG = {"rates": (1, 2)}
CALLS = []
FAIL = []


def parts(seeds):
    environment = {"TOY_PLACE": "elsewhere"}
    return [{"seed": seed} for seed in seeds] + [{"seed": 9, "environment": environment}]


def run(part):
    if part["seed"] in FAIL:
        raise KeyboardInterrupt
    CALLS.append(part["seed"])
    place = os.environ.get("TOY_PLACE", "here")
    return [{"seed": part["seed"], "loss": part["seed"] + 0.5, "place": place, "seconds": 1.0}]


def total(outcomes):
    return {"sum": sum(row["loss"] for row in outcomes)}
"""


@pytest.fixture
def toy(
    store: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[tuple[Recipe, Any]]:
    """A recipe of three parts, the last of them in a process of its own, outside a checkout."""
    (tmp_path / "toy_record.py").write_text(TOY)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=":")
    for module in (recording, records):
        monkeypatch.setattr(module, "checkout", lambda: None)
    recipe = Recipe("sft", "toy", "A toy", 1, (0, 1), "toy_record", "toy_record:total")
    monkeypatch.setattr(recording, "recipes", lambda: [recipe])
    yield recipe, recipe.load()
    sys.modules.pop("toy_record")


def test_a_record_is_made_from_its_parts(toy: tuple[Recipe, Any], store: Path):
    recipe, _ = toy
    file = make_record(recipe)
    assert file == store / "records" / "sft" / "toy.json"
    made = read_record("sft", "toy")
    assert [row["seed"] for row in made.outcomes] == made.seeds == [0, 1, 9]
    assert made.config == {"rates": [1, 2]} and made.summary == {"sum": 11.5}
    assert [row["place"] for row in made.outcomes] == ["here", "here", "elsewhere"]
    assert made.commit is None and made.clean is False and made.stale == ()
    assert made.machine["versions"] and "created" not in made.machine


def test_an_interrupted_record_goes_on_and_leaves_no_file(toy: tuple[Recipe, Any], store: Path):
    recipe, module = toy
    module.FAIL.append(1)
    with pytest.raises(KeyboardInterrupt):
        make_record(recipe)
    assert not (store / "records").exists() and module.CALLS == [0]
    module.FAIL.clear()
    make_record(recipe)
    assert module.CALLS == [0, 1]  # 0 was found, 9 ran elsewhere
    more = Recipe("sft", "toy", "A toy", 1, (0, 1, 2), "toy_record", "toy_record:total")
    make_record(more)
    assert module.CALLS == [0, 1, 2] and read_record("sft", "toy").summary == {"sum": 14.0}


def test_a_record_of_changed_code_can_be_confirmed(
    toy: tuple[Recipe, Any], tmp_path: Path, store: Path
):
    recipe, module = toy
    make_record(recipe)
    (tmp_path / "toy_record.py").write_text(TOY + "\nMOVED = True\n")
    old = read_record("sft", "toy")
    assert old.stale == ("toy_record",)
    changed = replace(old, machine={**old.machine, "threads": 3})
    write_record(changed, store / "records" / "sft" / "toy.json")
    ran, threads = module.run, []
    module.run = lambda part: threads.append(torch.get_num_threads()) or ran(part)
    before = torch.get_num_threads()
    again = repeat_parts(recipe, 2)
    assert threads == [3] and torch.get_num_threads() == before  # as many as were recorded
    assert module.CALLS == [0, 1, 0] and again == read_record("sft", "toy")
    assert again.stale == () and again.repeated is not None and again.repeated["parts"] == 2
    module.run = lambda part: [{"seed": 0, "loss": 0.6, "place": "here", "seconds": 1.0}]
    with pytest.raises(RecordError, match="sft/toy came out differently"):
        repeat_parts(recipe)
    nearly = replace(recipe, measured=("loss",))  # 0.5 was recorded
    with pytest.raises(RecordError, match="sft/toy came out differently"):
        repeat_parts(nearly)
    module.run = lambda part: [{"seed": 0, "loss": 0.54, "place": "here", "seconds": 7.0}]
    assert repeat_parts(nearly).stale == ()


def test_code_that_changes_meanwhile_makes_no_record(toy: tuple[Recipe, Any], tmp_path: Path):
    recipe, module = toy
    ran = module.run

    def run(part: dict[str, Any]) -> Any:
        (tmp_path / "toy_record.py").write_text(TOY + "\nCHANGED = True\n")
        return ran(part)

    module.run = run
    with pytest.raises(RecordError, match="sft/toy was changed while it ran"):
        make_record(recipe)
    with pytest.raises(RecordError, match="there is no record"):
        read_record("sft", "toy")


def test_a_part_that_dies_is_named(toy: tuple[Recipe, Any], monkeypatch: pytest.MonkeyPatch):
    recipe, _ = toy
    monkeypatch.setattr(recording.sys, "executable", "/bin/false")
    with pytest.raises(RecordError, match=r"the process of the part .* ended with 1"):
        make_record(recipe)


def test_the_command_lists_makes_and_confirms(toy: tuple[Recipe, Any], tmp_path: Path):
    def run(*words: str) -> Any:
        return CliRunner().invoke(app, ("record", *words))

    assert "sft/toy  1        A toy         not recorded yet" in run().output
    out = tmp_path / "mine.json"
    assert f"sft/toy: written to {out}" in run("toy", "--out", str(out)).output
    assert out.is_file() and "not recorded yet" in run().output
    assert "sft/toy: written to" in run("sft/toy").output
    assert "code unchanged" in run().output
    assert "Recorded run:" in run("sft/toy", "--repeat", "1").output
    assert run("--all").exit_code == 0
    for words in (("nothing",), ("--all", "--out", "x", "--repeat", "1")):
        result = run(*words)
        assert result.exit_code == 2 and result.stderr.count("\n") == 1


def test_malformed_recipes_are_refused():
    with pytest.raises(ValueError, match="sft/a-b is malformed"):
        Recipe("sft", "a-b", "", 1, (0,), "m", "m:f")
    with pytest.raises(ValueError, match="0 minutes"):
        Recipe("sft", "a", "", 0, (0,), "m", "m:f")


def test_each_recipe_of_the_package_can_be_run():
    found = recipes()
    assert len({recipe.label for recipe in found}) == len(found) > 1
    for recipe in found:
        module = recipe.load()
        parts = module.parts(recipe.seeds)
        assert parts and callable(module.run) and module.CONFIG
        summary, _, function = recipe.summary.partition(":")
        assert callable(getattr(__import__(summary, fromlist=["x"]), function))
        assert find_recipe(recipe.name) is not None
    with pytest.raises(ValueError, match="there is no record 'x': choose one of"):
        find_recipe("x")


def test_listing_the_recipes_imports_nothing_heavy():
    code = (
        "import sys; from posttrain.core.recording import recipes; recipes(); "
        "print(sorted({'torch', 'numpy', 'transformers', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"


def test_a_recipe_of_another_stage_is_refused(monkeypatch: pytest.MonkeyPatch):
    stray = ModuleType("posttrain.sft.records")
    vars(stray)["RECORDS"] = [Recipe("dpo", "a", "", 1, (0,), "m", "m:f")]
    monkeypatch.setitem(sys.modules, "posttrain.sft.records", stray)
    with pytest.raises(ValueError, match="lists dpo/a, of another stage"):
        recipes()
