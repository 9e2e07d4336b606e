"""Running somebody else's model without changing it."""

import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from paperlib.activations.memory import remember
from paperlib.activations.tracing import ProbeError, Run

BATCH_NORM = ("auto", "batch", "running")


@contextmanager
def untouched(model: nn.Module, seed: int) -> Iterator[None]:
    """A model in evaluation mode, without gradients, which afterwards is as it was.

    Inside, random numbers are those of the seed, and nothing is compiled or fused.

    The model goes there by its own `eval()`, and back by its modules' own `train(mode)`, which may
    do more than to set a flag. Then all that it holds is put back, and the state of every random
    number generator (of Python, NumPy, torch, and torch on the model's GPUs), also after an
    exception.
    """
    put_back = remember(model)
    modes = [(module, module.training) for module in model.modules()]
    devices = sorted({p.device.index or 0 for p in model.parameters() if p.is_cuda})
    with (
        same_numbers(devices),
        torch.inference_mode(False),
        torch.no_grad(),
        torch.compiler.set_stance("force_eager"),
        _slow_attention(),
    ):
        seed_all(seed, devices)
        try:
            model.eval()
            _leave_inference(model)
            yield
        finally:
            try:
                _back_to(modes)
            finally:
                put_back()


@contextmanager
def _slow_attention() -> Iterator[None]:
    """Attention by the operations that training takes, so that a look with gradients and one
    without see the same places."""
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)


@contextmanager
def same_numbers(devices: Sequence[int] = ()) -> Iterator[None]:
    """Whatever draws random numbers inside: afterwards those of Python, NumPy and torch go on as if
    it had not."""
    numbers = random.getstate(), np.random.get_state()  # noqa: NPY002 (it may use it)
    try:
        with torch.random.fork_rng(devices=devices):
            yield
    finally:
        random.setstate(numbers[0])
        np.random.set_state(numbers[1])  # noqa: NPY002


def seed_all(seed: int, devices: Sequence[int] = ()) -> None:
    """Seed the generators of Python, NumPy, torch, and torch on some GPUs."""
    random.seed(seed)
    np.random.seed(seed % 2**32)  # noqa: NPY002 (a model may use it)
    torch.default_generator.manual_seed(seed)
    for device in devices:
        torch.cuda.default_generators[device].manual_seed(seed)


def _back_to(modes: Sequence[tuple[nn.Module, bool]]) -> None:
    """Bring modules to the modes that they were in, each by its own `train`, outer ones first."""
    for module, mode in modes:
        if module.training != mode:
            with suppress(Exception):  # it is put back all the same
                module.train(mode)
    for module, mode in modes:
        module.training = mode


def _leave_inference(model: nn.Module) -> None:
    """Put copies in the place of tensors that were made in torch's inference mode."""
    copies: dict[int, Tensor] = {}
    for module in model.modules():
        for name, value in module._parameters.items():
            if value is not None and value.is_inference():
                made = nn.Parameter(value.clone(), value.requires_grad)
                module._parameters[name] = copies.setdefault(id(value), made)  # type: ignore[assignment]
        for name, buffer in module._buffers.items():
            if buffer is not None and buffer.is_inference():
                module._buffers[name] = copies.setdefault(id(buffer), buffer.clone())


def plain_module(model: Any) -> nn.Module:
    """Return the module itself, of a compiled one the original.

    Raises:
        ProbeError: no module, one whose weights do not exist yet, or one that cannot be read; it is
            not touched.
    """
    model = getattr(model, "_orig_mod", model)
    if not isinstance(model, nn.Module):
        raise ProbeError(f"model must be a torch.nn.Module, got {type(model).__name__}")
    if isinstance(model, torch.jit.ScriptModule):
        raise ProbeError(
            "model is scripted, traced or frozen by torch.jit, which hides its layers; give the "
            "module that it was made from"
        )
    if isinstance(model, torch.fx.GraphModule) and "train" in vars(model):
        raise ProbeError(
            "model was exported by torch.export, which has no modes and takes batches of one size "
            "only; give the module that it was made from"
        )
    for name, parameter in model.named_parameters():
        if isinstance(parameter, nn.parameter.UninitializedParameter):
            raise ProbeError(f"{name} is not initialised yet; run the model once on some images")
        if parameter.is_meta:
            raise ProbeError(f"{name} is on the device meta; give it numbers first")
    return model


def batch_norms(model: nn.Module) -> dict[str, Any]:
    """Return the layers that keep running statistics of batches, by name."""
    return {
        name: module
        for name, module in model.named_modules()
        if isinstance(module, _BatchNorm) and module.running_mean is not None
    }


def take_statistics(model: nn.Module, run: Run, batches: Iterable[Any], which: str) -> list[str]:
    """Give batch norms the statistics of these batches from now on; return the names of those.

    Those of a model that was never trained say mean 0 and variance 1, which is not what training
    will see: "auto" replaces the statistics of layers that have not counted a batch yet, "batch"
    those of all, "running" none.

    Raises:
        ProbeError: another word.
    """
    if not isinstance(which, str) or which not in BATCH_NORM:
        raise ProbeError(f"batch_norm must be one of {', '.join(BATCH_NORM)}; got {which!r}")
    found = batch_norms(model)
    names = [name for name, n in found.items() if which == "batch" or not _has_counted(n)]
    if which == "running" or not names:
        return []
    norms = [found[name] for name in names]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # the plain average over the batches
        norm.training = True
    for batch in batches:
        run(batch)
    for norm in norms:
        norm.training = False
    return names


def _has_counted(norm: Any) -> bool:
    """Whether a batch norm has seen a batch; statistics that were loaded show it, too."""
    counted = norm.num_batches_tracked is not None and int(norm.num_batches_tracked) > 0
    fresh = bool((norm.running_mean == 0).all() and (norm.running_var == 1).all())
    return counted or not fresh
