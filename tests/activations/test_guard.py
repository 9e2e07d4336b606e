"""What is run leaves no trace: against copies taken before."""

import random
from copy import deepcopy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from paperlib.activations.guard import plain_module, take_statistics, untouched
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
        assert len(take_statistics(model, model, batches(), "auto")) == 1
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
        assert len(take_statistics(model, model, batches(), "auto")) == 0
        assert len(take_statistics(model, model, batches(), "running")) == 0
        assert torch.equal(norm.running_mean, trained)
        assert len(take_statistics(model, model, batches(), "batch")) == 1
        assert not torch.equal(norm.running_mean, trained)
    assert torch.equal(norm.running_mean, trained)


def test_an_unknown_source_of_statistics_is_told() -> None:
    with pytest.raises(ProbeError, match="auto, batch, running; got 'train'"):
        take_statistics(nn.Sequential(), nn.Identity(), [], "train")


# -- models whose modes do more than set a flag


class Merged(nn.Linear):
    """A layer with an adapter that evaluation adds to its weight and training takes out again."""

    merged = False

    def __init__(self) -> None:
        super().__init__(4, 4)
        self.adapter = nn.Parameter(torch.full((4, 4), 0.3))

    def train(self, mode: bool = True) -> "Merged":
        super().train(mode)
        if self.merged == mode:
            self.weight.data += -self.adapter.data if mode else self.adapter.data
            self.merged = not mode
        return self


class Cached(nn.Module):
    """A layer that in evaluation keeps what it made of its weight, and in training forgets it."""

    def __init__(self) -> None:
        super().__init__()
        self.bias, self.kept = nn.Parameter(torch.zeros(4)), None

    def train(self, mode: bool = True) -> "Cached":
        if mode:
            self.kept = None
        return super().train(mode)

    def forward(self, x: Tensor) -> Tensor:
        if not self.training and self.kept is None:
            self.kept = self.bias.detach() * 2
        return x + (self.bias * 2 if self.kept is None else self.kept)


@pytest.mark.parametrize("fails", [False, True])
@pytest.mark.parametrize("mode", [False, True])
def test_adapters_are_merged_and_taken_out_again_to_the_last_bit(mode: bool, fails: bool) -> None:
    model = nn.Sequential(Merged(), nn.Tanh(), Merged())
    model.train(mode)
    before, merged = state_of(model), model[0].merged
    try:
        with untouched(model, 0):
            assert model[0].merged
            model(torch.ones(2, 4))
            if fails:
                raise RuntimeError
    except RuntimeError:
        assert fails
    assert model[0].merged == merged
    assert [m.training for m in model.modules()] == [mode] * 4
    assert all(torch.equal(before[name], after) for name, after in state_of(model).items())
    if mode:
        model(torch.ones(2, 4)).sum().backward()
        assert model[0].weight.grad is not None


@pytest.mark.parametrize("mode", [False, True])
def test_what_evaluation_caches_is_forgotten_again(mode: bool) -> None:
    model = nn.Sequential(Cached()).train(mode)
    with untouched(model, 0):
        model(torch.ones(2, 4))
        assert model[0].kept is not None
    assert model[0].kept is None


def test_modules_in_modes_of_their_own_go_back_to_these() -> None:
    model = nn.Sequential(nn.Sequential(nn.Dropout(), Cached()), nn.Dropout())
    model[0].eval()
    model[0][1].train()
    before = [m.training for m in model.modules()]
    with untouched(model, 0):
        model(torch.ones(2, 4))
    assert [m.training for m in model.modules()] == before == [True, False, False, True, True]


def test_a_model_that_refuses_to_train_is_put_back_and_its_error_is_its_own() -> None:
    class Refuses(nn.Linear):
        def train(self, mode: bool = True) -> "Refuses":
            if mode:
                raise NotImplementedError("not mine")
            return super().train(mode)

    model = nn.Sequential(Refuses(4, 4), nn.Dropout())
    numbers = torch.get_rng_state()
    with untouched(model, 0):
        model(torch.ones(2, 4))
    assert all(m.training for m in model.modules())
    assert torch.equal(torch.get_rng_state(), numbers)


# -- models that were made in some other way


def test_a_model_made_in_inference_mode_runs_and_is_put_back() -> None:
    with torch.inference_mode():
        model = nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh())
    weight = model[0].weight
    with untouched(model, 0):
        assert len(take_statistics(model, model, batches(), "auto")) == 1
        model(torch.ones(2, 4))
    assert model[0].weight is weight
    assert weight.is_inference()
    assert torch.equal(model[1].running_mean, torch.zeros(4))


def test_inside_inference_mode_a_model_is_looked_at_as_outside() -> None:
    model = nn.Linear(4, 4)
    with torch.inference_mode(), untouched(model, 0):
        assert not torch.is_inference_mode_enabled()


@pytest.mark.parametrize(
    ("made", "message"),
    [
        (lambda m: torch.jit.script(m), "torch.jit"),
        (lambda m: torch.jit.trace(m, torch.ones(2, 4)), "torch.jit"),
        (lambda m: torch.jit.freeze(torch.jit.script(m.eval())), "torch.jit"),
        (lambda m: torch.export.export(m.eval(), (torch.ones(2, 4),)).module(), "torch.export"),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_a_model_that_cannot_be_read_is_refused_untouched(made: Any, message: str) -> None:
    model = made(nn.Sequential(nn.Linear(4, 4), nn.BatchNorm1d(4), nn.Tanh()))
    mode, names = getattr(model, "training", None), [n for n, _ in model.named_buffers()]
    with pytest.raises(ProbeError, match=message + r".*; give the module that it was made from"):
        plain_module(model)
    assert getattr(model, "training", None) == mode
    assert [n for n, _ in model.named_buffers()] == names


def test_nothing_is_compiled_meanwhile_and_compiled_parts_run_as_they_were() -> None:
    compiled: list[int] = []

    def backend(graph: Any, example: Any) -> Any:
        compiled.append(1)
        return graph

    model = nn.Sequential(nn.Linear(4, 4), nn.Tanh(), nn.Linear(4, 4))
    expected = model(torch.ones(2, 4))
    model[2] = torch.compile(model[2], backend=backend)
    model.compile(backend=backend)
    with untouched(model, 0):
        assert torch.equal(model(torch.ones(2, 4)), expected)
    assert not compiled
    assert model._compiled_call_impl is not None
