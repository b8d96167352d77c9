"""The committed records: their form, and their numbers computed again from the outcomes."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from posttrain.core.recording import recipes
from posttrain.core.records import Record, describe_changes, read_record

RESULTS = Path(__file__).parents[2] / "book" / "results"
RECIPES = {recipe.label: recipe for recipe in recipes()}
STAGES = {recipe.stage for recipe in RECIPES.values()}
LABELS = sorted(
    f"{file.parent.name}/{file.stem}"
    for file in RESULTS.glob("*/*.json")
    if file.parent.name in STAGES
)


@pytest.fixture
def record(request: pytest.FixtureRequest) -> Record:
    stage, name = request.param.split("/")
    return read_record(stage, name, RESULTS)


def test_there_are_records():
    assert LABELS


@pytest.mark.parametrize("label", LABELS)
def test_each_record_has_a_recipe_that_makes_it(label: str):
    assert label in RECIPES


@pytest.mark.parametrize("record", LABELS, indirect=True)
def test_the_numbers_of_a_record_follow_from_its_outcomes(record: Record):
    recipe = RECIPES[f"{record.stage}/{record.name}"]
    assert_alike(recipe.summarize(record.outcomes), record.summary)
    assert record.summary


@pytest.mark.parametrize("record", LABELS, indirect=True)
def test_a_record_holds_every_seed_and_part_of_its_recipe(record: Record):
    recipe = RECIPES[f"{record.stage}/{record.name}"]
    assert record.seeds == list(recipe.seeds) and record.title == recipe.title
    assert {row["seed"] for row in record.outcomes} == set(record.seeds)


@pytest.mark.parametrize("record", LABELS, indirect=True)
def test_a_record_was_made_from_a_commit(record: Record):
    assert record.commit is not None and record.clean, "commit the code before the record"


@pytest.mark.parametrize("record", LABELS, indirect=True)
def test_the_code_of_a_record_is_unchanged(record: Record):
    if record.stale:
        pytest.skip(f"{describe_changes(record)} (posttrain record --repeat compares)")


def assert_alike(one: Any, other: Any) -> None:
    """Compare plain data; numbers to a relative 1e-9, since libraries round in other orders."""
    if isinstance(one, float) and isinstance(other, float):
        assert math.isclose(one, other, rel_tol=1e-9, abs_tol=1e-12)
    elif isinstance(one, dict):
        assert one.keys() == other.keys()
        for key, value in one.items():
            assert_alike(value, other[key])
    elif isinstance(one, list):
        assert len(one) == len(other)
        for left, right in zip(one, other, strict=True):
            assert_alike(left, right)
    else:
        assert one == other


def test_a_changed_number_is_seen():
    with pytest.raises(AssertionError):
        assert_alike({"a": [1.0, 2.0]}, {"a": [1.0, 2.001]})
