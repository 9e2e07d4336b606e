"""A lesson in units of what is taught: gradients relative to the weights, and a step along them."""

import copy
import math
from collections.abc import Mapping
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn

from paperlib.activations.inputs import Inputs, runner
from paperlib.activations.losses import Loss, Parameters
from paperlib.activations.tracing import run_once
from paperlib.core.seeds import random_numbers

FEW = 32  # samples that show whether any gradient comes back
STEP = 0.1  # of the loss, that one step takes away where the loss is linear
LONGEST = 0.1  # way of each parameter in that step, in units of its own length
EPSILON = 1e-8  # Adam's, below which a gradient does not move a weight by a full step
MOST_DECADES = 40.0  # between gradients; more is not told apart


def awake(model: nn.Module, inputs: Inputs, seed: int) -> tuple[nn.Module, tuple[str, ...]]:
    """The model; or where its last layer is all zeros, so that nothing comes back before it has
    moved, a copy in which that is drawn, and the layer's name."""
    named = weights_by_name(model)
    zero = [name for name, weight in named.items() if not weight.any()]
    if not zero:
        return model, ()
    gradient = Loss(model, inputs.few(min(FEW, inputs.train)), seed=seed).gradient()
    if any(gradient[name].any() for name in named if name not in zero and name in gradient):
        return model, ()
    last = [name for name in zero if name in gradient and gradient[name].any()]
    found = copy.deepcopy(model)
    with torch.no_grad():
        for name in last:
            weight = weights_by_name(found)[name]
            drawn = torch.randn(weight.shape, generator=random_numbers(f"draw {name}", seed))
            weight.copy_(drawn / weight[0].numel() ** 0.5)
    return found, tuple(map(layer_of, last))


def weights_by_name(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return the weights that are drawn with a variance, by name: two axes or more."""
    named = model.named_parameters()
    return {
        name: weight
        for name, weight in named
        if weight.ndim > 1 and weight.is_floating_point() and "weight" in name.rpartition(".")[2]
    }


def units_of(model: nn.Module) -> dict[str, float]:
    """Return the square length of each parameter; of weights that are all zeros, that of weights
    drawn with variance 1/fan-in."""
    found = {}
    for name, parameter in model.named_parameters():
        values = parameter.detach()
        found[name] = float(torch.linalg.vector_norm(values, dtype=torch.float64)) ** 2
        if not found[name] and values.ndim > 1:
            found[name] = float(len(values))
    return found


def in_units(found: Mapping[str, Tensor], units: Mapping[str, float]) -> Tensor:
    """Return the sum of products of gradients, each parameter in units of its square length."""
    return reduce(torch.add, (gram * units[name] for name, gram in found.items()))


def in_steps(found: Mapping[str, Tensor], units: Mapping[str, float]) -> Tensor:
    """Return the sum of products of gradients, such that a step along them moves each parameter by
    the same share of its own length, however long its gradient is."""
    lengths = {name: float(gram.diagonal().mean()) for name, gram in found.items()}
    shares = {n: math.sqrt(units[n] / length) if length else 0.0 for n, length in lengths.items()}
    return in_units(found, shares)


def moved(
    parameters: Parameters, gradient: Parameters, units: Mapping[str, float], loss: float
) -> Parameters:
    """Return the parameters after a step against the gradient, each by the same share of its own
    length: such that a linear loss falls by a tenth, or 0.1 where that is less."""
    lengths = {name: math.sqrt(units[name]) for name in parameters}
    slopes = {
        name: float(torch.linalg.vector_norm(slope, dtype=torch.float64))
        for name, slope in gradient.items()
    }
    steepness = sum(lengths[name] * slopes[name] for name in parameters)
    share = min(LONGEST, STEP * loss / steepness) if steepness else 0.0
    return {
        name: parameter
        - (share * lengths[name] * (gradient[name].double() / (slopes[name] or 1.0))).to(parameter)
        for name, parameter in parameters.items()
    }


def repeated(model: nn.Module, inputs: Inputs) -> str | None:
    """Return the layer that is called most often, three times or more; None without any."""
    calls: dict[str, int] = {}

    def record(layer: str, call: int, outputs: Any) -> None:
        if isinstance(outputs, Tensor | tuple) and list(
            dict(model.named_modules())[layer].parameters()
        ):
            calls[layer] = call + 1

    run_once(model, runner(model), inputs.few(2), record)
    most = max(calls.values(), default=0)
    return min((name for name in calls if calls[name] == most), key=len) if most > 2 else None


def feeding(model: nn.Module, inputs: Inputs) -> str | None:
    """Return the layer whose output, tokens of each sample, the first recurrent layer reads."""
    names = {name for name, module in model.named_modules() if isinstance(module, nn.RNNBase)}
    before: list[tuple[str, Any]] = []
    found: list[str] = []

    def record(layer: str, call: int, outputs: Any) -> None:
        if layer in names and before and not found:
            name, tokens = before[-1]
            found.extend([name] if isinstance(tokens, Tensor) and tokens.ndim == 3 else [""])
        before.append((layer, outputs))

    run_once(model, runner(model), inputs.few(2), record)
    return (found or [""])[0] or None


def update(weight: Tensor, gradient: Tensor) -> dict[str, float]:
    """What is said of one layer's weights and their gradient."""
    values, slopes = weight.double(), gradient.double().abs()
    length, push = float(values.norm()), float(slopes.norm())
    rms = length / math.sqrt(values.numel())
    full = slopes / (slopes + EPSILON)
    return {
        "gradient": push / math.sqrt(values.numel()),
        "update_sgd": ratio(push, length),
        "update_adam": ratio(float(full.mean()), rms),
        "sensitivity": push * length,
        "share": float(full.square().mean().sqrt()),
        "zero": not length,
    }


def layer_of(name: str) -> str:
    """A weight's layer; where a layer has several, the weight."""
    return name.removesuffix(".weight")


def ratio(above: float, below: float) -> float:
    """A ratio of two lengths; 0 where nothing comes back, or nothing was there."""
    return above / below if below > 0 and math.isfinite(above / below) else 0.0


def decades(values: list[float]) -> float:
    """log10 of the largest over the smallest, at most 40; 0 without any."""
    if not values or max(values) == 0:
        return 0.0 if not values else MOST_DECADES
    smallest = min(values)
    return min(MOST_DECADES, math.log10(max(values) / smallest)) if smallest else MOST_DECADES


def finite(value: float) -> float:
    """A number, however bad the step was."""
    return max(-1e6, value) if not math.isnan(value) else -1e6
