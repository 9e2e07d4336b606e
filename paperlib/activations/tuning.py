"""Weights layer by layer: which are drawn at random, and by what factor outputs get variance 1."""

from collections.abc import Collection
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor, nn

from paperlib.activations.factors import FACTORED
from paperlib.activations.guard import untouched
from paperlib.activations.inputs import runner
from paperlib.activations.tracing import run_once

SURE = 8.0  # standard errors by which rows of weights may differ more than random ones do
FEWEST = 8  # rows and numbers in each, below which nothing is said of them


def looks_drawn(weight: Tensor) -> bool:
    """Return whether rows and columns of a weight have sizes as random numbers have.

    Training makes some larger than others. Constant and orthogonal weights count as drawn.
    """
    matrix = weight.detach().double().flatten(1)
    square = float(matrix.square().mean())
    if min(matrix.shape) < FEWEST or not square:
        return True
    kurtosis = float(matrix.square().square().mean()) / square**2
    for rows in (matrix, matrix.T):
        count, numbers = rows.shape
        spread = float((rows.square().mean(1) / square).var())
        expected = max(0.0, kurtosis - 1) / numbers
        if spread > expected * (1 + SURE * (2 / count) ** 0.5) + 1e-12:
            return False
    return True


def weights_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return by name, each once, weights that are drawn with a variance: two axes or more, no
    embeddings."""
    found: dict[int, tuple[str, nn.Parameter]] = {}
    for prefix, module in model.named_modules():
        if not isinstance(module, nn.Embedding | nn.EmbeddingBag):
            for name, parameter in module.named_parameters(recurse=False):
                if "weight" in name and parameter.ndim > 1 and parameter.is_floating_point():
                    whole = f"{prefix}.{name}" if prefix else name
                    found.setdefault(id(parameter), (whole, parameter))
    return dict(found.values())


@torch.no_grad()
def unit_variance(
    model: nn.Module, values: Any, names: Collection[str], *, seed: int = 0
) -> dict[str, float]:
    """Return the factor of each weight with which its layer's outputs have variance 1, in one run.

    Every layer is scaled as soon as it returns, so that the next one sees it scaled; without
    biases. The model itself is left as it was.

    Args:
        model: any module.
        values: its arguments for a batch of samples, see `Inputs`.
        names: of weights; those of other layers than Linear and convolutions are left out.
        seed: of the model's random numbers meanwhile.

    Source: Mishkin and Matas 2016, "All you need is a good init", arXiv:1511.06422.
    """
    found: dict[str, float] = {}
    layers = {
        f"{name}.weight" if name else "weight": module
        for name, module in model.named_modules()
        if type(module) in FACTORED
    }

    def scaled(name: str, outputs: Tensor) -> Tensor | None:
        deviation = float(outputs.float().std())
        if name in found or not 0 < deviation < float("inf"):
            return None
        found[name] = 1 / deviation
        return outputs / deviation

    def hook(name: str) -> Any:
        return lambda module, inputs, outputs: scaled(name, outputs)

    with untouched(model, seed), ExitStack() as hooks:
        for name, module in layers.items():
            if name in names:
                if module.bias is not None:
                    module.bias.zero_()
                hooks.enter_context(module.register_forward_hook(hook(name)))
        run_once(model, runner(model), values, lambda *_: None)
    return found
