"""posttrain.core.arguments: what counts as a whole number, as token ids, as names."""

import numpy as np
import pytest
import torch

from posttrain.core.arguments import names, shortened, token_ids, whole_number

NUMBERS = [3, np.int64(3), np.uint8(3), torch.tensor(3), np.array(3)]
NO_NUMBERS = [
    True, np.bool_(True), torch.tensor(True), 3.0, "3", None, [3], torch.tensor([3]),
    np.array([3]), torch.tensor(3.0),
]  # fmt: skip


@pytest.mark.parametrize("value", NUMBERS, ids=repr)
def test_whole_numbers_become_pythons_own(value: object) -> None:
    assert type(whole_number(value, "n")) is int and whole_number(value, "n", 3) == 3


@pytest.mark.parametrize("value", NO_NUMBERS, ids=repr)
def test_what_only_looks_like_a_whole_number_is_refused(value: object) -> None:
    with pytest.raises(
        ValueError, match=r"^n is .*: give a whole number from -5 up$"
    ) as caught:
        whole_number(value, "n", -5)
    assert "\n" not in str(caught.value)


def test_a_number_below_the_lowest_is_refused() -> None:
    assert whole_number(-2, "n", -2) == -2
    with pytest.raises(ValueError, match=r"^n is 0: give a whole number from 1 up$"):
        whole_number(0, "n", 1)


@pytest.mark.parametrize(
    "values",
    [[5, 2], (5, 2), range(5, 0, -3), np.array([5, 2]), torch.tensor([5, 2]),
     {5: 0, 2: 0}.keys(), [np.int64(5), torch.tensor(2)], iter([5, 2])],
    ids=lambda v: type(v).__name__,
)  # fmt: skip
def test_ids_are_read_from_any_flat_sequence(values: object) -> None:
    found = token_ids(values, "ids")
    assert found == [5, 2] and {type(token) for token in found} == {int}


@pytest.mark.parametrize(
    "values",
    [[[5, 2]], [(5,)], [None], None, 5, torch.tensor(5), "52", b"52", [True], [5.0], ["5"],
     torch.tensor([[5, 2]]), torch.tensor([5.0]), np.array([[5]]), [torch.tensor([5])],
     torch.tensor([True]), {5: 2}],
    ids=repr,
)  # fmt: skip
def test_ids_that_are_nested_or_none_are_refused(values: object) -> None:
    with pytest.raises(ValueError, match=r"^ids is .*: give a flat sequence of token ids"):
        token_ids(values, "ids")


def test_no_ids_are_ids_too() -> None:
    assert token_ids([], "ids") == token_ids(torch.tensor([], dtype=torch.long), "ids") == []


def test_names_are_kept_in_order() -> None:
    assert names(("b", "a"), "layers") == names(iter(["b", "a"]), "layers") == ["b", "a"]
    assert names([], "layers") == []


@pytest.mark.parametrize("values", ["lm_head", b"x", ["a", 1], [["a"]], None, 5, {"a": 1}])
def test_a_bare_text_is_no_sequence_of_texts(values: object) -> None:
    with pytest.raises(ValueError, match=r"^layers is .*: give a sequence of names"):
        names(values, "layers", "names")


def test_the_message_shows_how() -> None:
    with pytest.raises(ValueError, match=r"layers is 'lm_head': .*, such as \['lm_head'\]$"):
        names("lm_head", "layers")


def test_long_values_are_shortened_to_one_line() -> None:
    assert shortened([1, 2]) == "[1, 2]"
    text = shortened("line\n" * 100)
    assert len(text) <= 60 and "\n" not in text and " … " in text
