"""Between weights: the loss on the line that joins two solutions, and how sharp it is at one."""

import copy
import math
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from paperlib.core.seeds import random_numbers
from paperlib.training.loop import backpropagation
from paperlib.training.side_by_side import SideBySide, State


def barrier(alphas: NDArray[Any], losses: NDArray[Any]) -> NDArray[np.float64]:
    """Return how far the loss rises above the straight line between its ends, at least 0, (…).

    Args:
        alphas: (points,), the place on the line; 0 and 1 are its ends and must be among them.
        losses: (…, points); what is infinite is a barrier that is.

    Raises:
        ValueError: an end is missing.
    """
    inside = (alphas >= 0) & (alphas <= 1)
    at, values = alphas[inside], np.asarray(losses, float)[..., inside]
    if 0 not in at or 1 not in at:
        raise ValueError(f"alphas must hold 0 and 1, got {alphas.tolist()}")
    first, last = values[..., at == 0], values[..., at == 1]
    return (values - (1 - at) * first - at * last).max(-1)


def between(
    module: nn.Module,
    first: State,
    second: State,
    alphas: Sequence[float],
    images: Tensor,
    labels: Tensor,
    *,
    statistics: Tensor | None = None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return loss and accuracy on the line (1 − α) first + α second, (alpha,) each.

    Args:
        module: that the two are states of, see `training.side_by_side.state_of`.
        first: at α = 0.
        second: at α = 1.
        alphas: places on the line.
        images: (n, …), on which both are taken, in evaluation mode.
        labels: (n,).
        statistics: images whose means and variances take the place of batch norm's stored ones, at
            every α; None: the stored ones are interpolated, as published. Beyond the ends such a
            variance can be negative, and the loss NaN.
    """
    states = [_mixed(first, second, alpha) for alpha in alphas]
    network = SideBySide(module, states).eval()
    if statistics is not None:
        _recompute(network, statistics)
    return judged(network, images, labels)


def matched(module: nn.Module, first: State, second: State, *, sweeps: int = 10) -> State:
    """Return the second network with its hidden units in the order in which they are most like the
    first one's; it computes what it did.

    Args:
        module: a chain of Linear layers with biases and functions that act on each unit.
        first: the state to be like.
        second: the state to be reordered.
        sweeps: times that all layers are gone through.

    Source: weight matching, Ainsworth et al., arXiv:2209.04836.
    """
    from scipy.optimize import linear_sum_assignment

    names = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)]
    found = dict(second)
    for sweep in range(sweeps):
        moved = False
        for here, after in pairwise(names):
            rows = [first[f"{here}.weight"], first[f"{here}.bias"][:, None]]
            ours = [found[f"{here}.weight"], found[f"{here}.bias"][:, None]]
            if sweep:  # at first the layers after it are in no order yet
                rows.append(first[f"{after}.weight"].T)
                ours.append(found[f"{after}.weight"].T)
            alike = torch.cat(rows, 1).double() @ torch.cat(ours, 1).double().T
            order = torch.from_numpy(
                linear_sum_assignment(alike.nan_to_num(0, 0, 0).numpy(), maximize=True)[1]
            )
            moved = moved or not torch.equal(order, torch.arange(len(order)))
            for name in (f"{here}.weight", f"{here}.bias"):
                found[name] = found[name][order]
            found[f"{after}.weight"] = found[f"{after}.weight"][:, order]
        if not moved and sweep:
            break
    return found


def sharpness(
    network: nn.Module, images: Tensor, labels: Tensor, *, iterations: int = 20, seed: int = 0
) -> float:
    """Return the largest eigenvalue in size of the Hessian of the mean cross-entropy, by power
    iteration; gradient descent on these images is stable at rates below 2 by it. The network stays
    as it was.

    Args:
        network: any module, in the mode in which the loss is meant.
        images: of the loss.
        labels: (n,).
        iterations: products with the Hessian, each of two gradients in float64.
        seed: of the first direction.
    """
    with torch.random.fork_rng(devices=[]):
        own = copy.deepcopy(network).double()
    weights = [weight for weight in own.parameters() if weight.requires_grad]
    start = nn.utils.parameters_to_vector(weights).detach()
    images = images.double()

    def gradient(at: Tensor) -> Tensor:
        nn.utils.vector_to_parameters(at, weights)
        own.zero_grad()
        backpropagation(own, images, labels)
        return torch.cat([w.grad.flatten() for w in weights if w.grad is not None])

    direction = torch.randn(len(start), generator=random_numbers("sharpness", seed)).double()
    found, step = 0.0, 1e-4 * max(1.0, float(start.norm())) / math.sqrt(len(start))
    for _ in range(iterations):
        direction = direction / direction.norm().clamp(min=1e-300)
        product = gradient(start + step * direction) - gradient(start - step * direction)
        product = product / (2 * step)
        found, direction = float(direction @ product), product
    return found


def distance(module: nn.Module, first: State, second: State) -> float:
    """Return how far the parameters of two states are apart, by the length of the first."""
    names = [name for name, _ in module.named_parameters()]
    one, other = (torch.cat([s[n].double().flatten() for n in names]) for s in (first, second))
    return float((other - one).norm() / one.norm())


@torch.no_grad()
def judged(
    network: SideBySide, images: Tensor, labels: Tensor
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return mean loss and accuracy of networks that are in evaluation mode, (k,) each."""
    losses, right = torch.zeros(2, network.count, dtype=torch.float64)
    for part, true in zip(images.split(500), labels.split(500), strict=True):
        outputs = network(part).double()
        losses += network.losses(outputs, true, _summed)
        right += (outputs.argmax(-1) == true).double().sum(-1)
    return (losses / len(labels)).numpy(), (right / len(labels)).numpy()


def _summed(outputs: Tensor, labels: Tensor) -> Tensor:
    return nn.functional.cross_entropy(outputs, labels, reduction="sum")


def _mixed(first: State, second: State, alpha: float) -> dict[str, Tensor]:
    """(1 − α) first + α second; what counts, as batch norm does its batches, stays."""
    return {
        name: (1 - alpha) * one + alpha * second[name] if one.is_floating_point() else one
        for name, one in first.items()
    }


@torch.no_grad()
def _recompute(network: SideBySide, images: Tensor) -> None:
    """Let batch norm's statistics be those of these images, all of them in one batch."""
    for layer in network.skeleton.modules():
        if isinstance(layer, nn.modules.batchnorm._BatchNorm):
            layer.momentum = 1.0
    network.train()(images)
    network.eval()
