"""posttrain.core.training.wrappers: what torch puts around a model leaves no trace."""

import torch
from torch import nn
from torch.nn.parallel import DataParallel

from posttrain.core.training.wrappers import plain_name, unwrapped


def test_wrappers_come_off() -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.Linear(3, 2))
    compiled, parallel = torch.compile(model), DataParallel(model)
    both = (torch.compile(DataParallel(model)), DataParallel(torch.compile(model)))
    for wrapped in (model, compiled, parallel, *both):
        assert unwrapped(wrapped) is model  # type: ignore[arg-type]


def test_names_of_parts_that_were_compiled() -> None:
    model = nn.Sequential(nn.Linear(2, 3), torch.compile(nn.Sequential(nn.Linear(3, 2))))
    names = [plain_name(name) for name, _ in model.named_parameters()]
    assert names == ["0.weight", "0.bias", "1.0.weight", "1.0.bias"]
    assert plain_name("") == "" and plain_name("module.x") == "module.x"
    assert plain_name("layers.0._checkpoint_wrapped_module.mlp") == "layers.0.mlp"
