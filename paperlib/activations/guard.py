"""Running somebody else's model without changing it."""

import random
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from paperlib.activations.tracing import ProbeError, Run

BATCH_NORM = ("auto", "batch", "running")


@contextmanager
def untouched(model: nn.Module, seed: int) -> Iterator[None]:
    """A model in evaluation mode, without gradients, which afterwards is as it was.

    Inside, its random numbers are those of the seed.

    Its modes, buffers, batch norms' momenta, and the state of every random number generator (of
    Python, NumPy, torch, and torch on the model's GPUs) are put back, also after an exception.
    """
    modes = [(module, module.training) for module in model.modules()]
    buffers = [(module, dict(module._buffers)) for module in model.modules()]
    values = [
        (buffer, buffer.detach().clone())
        for _, named in buffers
        for buffer in named.values()
        if buffer is not None
    ]
    momenta = [(norm, norm.momentum) for norm in batch_norms(model)]
    numbers = random.getstate(), np.random.get_state()  # noqa: NPY002 (the model may use it)
    devices = {p.device.index or 0 for p in model.parameters() if p.is_cuda}
    try:
        with torch.random.fork_rng(devices=sorted(devices)), torch.no_grad():
            torch.default_generator.manual_seed(seed)
            for device in devices:
                torch.cuda.default_generators[device].manual_seed(seed)
            model.eval()
            yield
    finally:
        random.setstate(numbers[0])
        np.random.set_state(numbers[1])  # noqa: NPY002
        for norm, momentum in momenta:
            norm.momentum = momentum
        for module, named in buffers:
            module._buffers.clear()
            module._buffers.update(named)
        with torch.no_grad():
            for buffer, value in values:
                if not torch.equal(buffer, value):
                    buffer.copy_(value)
        for module, mode in modes:
            module.training = mode


def plain_module(model: Any) -> nn.Module:
    """Return the module itself, of a compiled one the original.

    Raises:
        ProbeError: no module, or one whose weights do not exist yet.
    """
    model = getattr(model, "_orig_mod", model)
    if not isinstance(model, nn.Module):
        raise ProbeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ProbeError(f"{name} is not initialised yet; run the model once on some images")
        if parameter.is_meta:
            raise ProbeError(f"{name} is on the device meta; give it numbers first")
    return model


def batch_norms(model: nn.Module) -> list[Any]:
    """Return the layers that keep running statistics of batches."""
    return [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    ]


def take_statistics(model: nn.Module, run: Run, batches: Iterable[Any], which: str) -> int:
    """Give batch norms the statistics of these batches from now on; return how many were given.

    Those of a model that was never trained say mean 0 and variance 1, which is not what training
    will see: "auto" replaces the statistics of layers that have not counted a batch yet, "batch"
    those of all, "running" none.

    Raises:
        ProbeError: another word.
    """
    if not isinstance(which, str) or which not in BATCH_NORM:
        raise ProbeError(f"batch_norm must be one of {', '.join(BATCH_NORM)}; got {which!r}")
    norms = [norm for norm in batch_norms(model) if which == "batch" or not _has_counted(norm)]
    if which == "running" or not norms:
        return 0
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over the batches
        norm.training = True
    for batch in batches:
        run(batch)
    for norm in norms:
        norm.training = False
    return len(norms)


def _has_counted(norm: Any) -> bool:
    """Whether a batch norm has seen a batch; statistics that were loaded show it, too."""
    counted = norm.num_batches_tracked is not None and int(norm.num_batches_tracked) > 0
    fresh = bool((norm.running_mean == 0).all() and (norm.running_var == 1).all())
    return counted or not fresh
