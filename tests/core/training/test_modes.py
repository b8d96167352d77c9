"""posttrain.core.training.modes: evaluation mode for a time, then every part as it was."""

import pytest
import torch
from torch import Tensor, nn

from posttrain.core.training.modes import evaluation_mode, in_evaluation_mode


def mixed() -> nn.Module:
    """In training, but for a frozen part that stays in evaluation mode."""
    model = nn.Sequential(nn.Linear(2, 2), nn.Sequential(nn.BatchNorm1d(2), nn.Dropout(0.5)))
    model.train()[1][0].eval()
    return model


def modes(model: nn.Module) -> list[bool]:
    return [module.training for module in model.modules()]


def test_every_part_is_put_back_into_its_own_mode() -> None:
    model = mixed()
    before = modes(model)
    assert before == [True, True, True, False, True]
    with evaluation_mode(model):
        assert not any(modes(model))
    assert modes(model) == before


def test_an_exception_puts_it_back_too() -> None:
    model = mixed()
    before = modes(model)
    with pytest.raises(KeyboardInterrupt), evaluation_mode(model):
        raise KeyboardInterrupt
    assert modes(model) == before


def test_a_model_in_evaluation_mode_stays_there() -> None:
    model = mixed().eval()
    with evaluation_mode(model), evaluation_mode(model):
        assert not any(modes(model))
    assert not any(modes(model))


def test_modules_that_do_more_than_to_set_a_flag_are_told() -> None:
    told: list[bool] = []

    class Told(nn.Linear):
        def train(self, mode: bool = True) -> "Told":
            told.append(mode)
            return super().train(mode)

    with evaluation_mode(nn.Sequential(Told(1, 1))):
        assert told == [False]
    assert told == [False, True]


def test_a_wrapped_model_is_put_back_inside() -> None:
    model = mixed()
    before = modes(model)
    compiled = torch.compile(model, backend="eager")
    with evaluation_mode(compiled):
        assert not any(modes(model))
    assert modes(model) == before and compiled.training


def test_what_is_no_module_has_no_mode() -> None:
    with evaluation_mode(None), evaluation_mode("packed"):
        pass


def test_the_decorator_finds_the_model_by_place_or_name() -> None:
    @in_evaluation_mode
    def measure(model: nn.Module, x: Tensor, *, times: int = 1) -> list[Tensor]:
        """Measure."""
        return [model(x) for _ in range(times)]

    model, x = mixed(), torch.ones(3, 2)
    first, second = measure(model, x, times=2)
    assert torch.equal(first, second) and torch.equal(first, measure(model=model, x=x)[0])
    assert modes(model) == modes(mixed())
    assert measure.__doc__ == "Measure." and measure.__name__ == "measure"
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        measure(model)  # type: ignore[call-arg]
