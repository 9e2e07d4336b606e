"""What is run leaves no trace: against copies taken before."""

import random
from copy import deepcopy

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from paperlib.activations.guard import take_statistics, untouched
from paperlib.activations.tracing import ProbeError


class Restless(nn.Module):
    """A model that changes all it can when it runs: buffers, modes, random numbers."""

    count: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layer, self.norm, self.drop = nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Dropout()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("none", None)

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        self.norm.running_mean.fill_(7)
        self.drop.train()
        noise = torch.rand(4) + random.random() + float(np.random.rand())  # noqa: NPY002
        return self.drop(self.norm(self.layer(x))) + noise


def state_of(model: nn.Module) -> dict[str, Tensor]:
    return deepcopy(model.state_dict())


@pytest.mark.parametrize("fails", [False, True])
def test_a_model_is_afterwards_as_it_was_also_after_an_exception(fails: bool) -> None:
    model = Restless()
    model.norm.eval()
    model.layer.weight.requires_grad_(False)
    model.layer.bias.grad = torch.ones(4)
    before, modes = state_of(model), [m.training for m in model.modules()]
    buffers = dict(model.named_buffers())
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    expected = (random.random(), np.random.rand(), torch.rand(1))  # noqa: NPY002
    random.seed(3)
    np.random.seed(3)  # noqa: NPY002
    torch.manual_seed(3)
    try:
        with untouched(model, 0):
            assert not torch.is_grad_enabled()
            assert not any(m.training for m in model.modules())
            model(torch.ones(3, 4))
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert torch.is_grad_enabled()
    assert [m.training for m in model.modules()] == modes
    after = state_of(model)
    assert all(torch.equal(before[name], after[name]) for name in before)
    assert all(buffers[name] is buffer for name, buffer in model.named_buffers())
    assert not model.layer.weight.requires_grad
    assert torch.equal(model.layer.bias.grad, torch.ones(4))
    assert (random.random(), np.random.rand(), torch.rand(1)) == expected  # noqa: NPY002


def batches() -> list[Tensor]:
    numbers = torch.randn(2, 50, 4, generator=torch.Generator().manual_seed(1))
    return list(3 * numbers + 2)


def test_batch_norms_that_never_saw_a_batch_take_the_statistics_of_these() -> None:
    norm = nn.BatchNorm1d(4)
    model = nn.Sequential(norm)
    with untouched(model, 0):
        assert take_statistics(model, model, batches(), "auto") == 1
        mean = torch.stack([batch.mean(0) for batch in batches()]).mean(0)
        variance = torch.stack([batch.var(0) for batch in batches()]).mean(0)
        torch.testing.assert_close(norm.running_mean, mean)
        torch.testing.assert_close(norm.running_var, variance)
        assert not norm.training
    assert torch.equal(norm.running_mean, torch.zeros(4))
    assert norm.momentum == 0.1
    assert int(norm.num_batches_tracked) == 0


def test_trained_batch_norms_keep_theirs_unless_told_otherwise() -> None:
    norm = nn.BatchNorm1d(4)
    model = nn.Sequential(norm)
    model(batches()[0])
    trained = norm.running_mean.clone()
    with untouched(model, 0):
        assert take_statistics(model, model, batches(), "auto") == 0
        assert take_statistics(model, model, batches(), "running") == 0
        assert torch.equal(norm.running_mean, trained)
        assert take_statistics(model, model, batches(), "batch") == 1
        assert not torch.equal(norm.running_mean, trained)
    assert torch.equal(norm.running_mean, trained)


def test_an_unknown_source_of_statistics_is_told() -> None:
    with pytest.raises(ProbeError, match="auto, batch, running; got 'train'"):
        take_statistics(nn.Sequential(), nn.Identity(), [], "train")
