"""The range test: short trainings of one network at many rates, all from the same weights."""

from collections.abc import Callable, Sequence
from itertools import pairwise
from typing import Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from paperlib.core.checks import LARGEST_SEED, checked, instance_of
from paperlib.training.loop import train
from paperlib.training.schedules import FINDERS, suggestions
from paperlib.training.side_by_side import Loss, SideBySide, state_of

OURS = "several trainings"
CLOSE = 0.1  # of the best descent, that the suggested rate may miss
JUDGED = 1000  # images on which accuracies are taken
RATES = tuple(np.geomspace(1e-3, 10, 13).tolist())
OPTIMISERS: dict[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": lambda groups: torch.optim.SGD(groups, lr=0.1),
    "momentum": lambda groups: torch.optim.SGD(groups, lr=0.1, momentum=0.9),
    "adam": torch.optim.Adam,
}
Optimiser = str | Callable[[list[dict[str, Any]]], torch.optim.Optimizer]


def rate_range(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    *,
    rates: Sequence[float] = RATES,
    steps: int = 60,
    orders: int = 3,
    ramp: int = 100,
    optimiser: Optimiser = "sgd",
    batch_size: int = 64,
    loss: Loss = nn.functional.cross_entropy,
    test: tuple[Tensor, Tensor] | None = None,
    seed: int = 0,
) -> xr.Dataset:
    """Return how far a model gets in short trainings at many rates, and which rate to take.

    Every rate has a training of its own, from the weights that the model has now; all run side by
    side. Beside them one training at a rising rate, as range tests are usually made, and what the
    rules of others suggest from it. The model, its gradients and the global random generators stay
    as they were.

    Example:
        >>> from paperlib import initialise, load_dataset, mlp
        >>> from paperlib.instruments.cyclical_rates import rate_range
        >>> data = load_dataset("digits", limit=200)
        >>> network = mlp(data.image_shape, depth=2, width=30, activation="relu")
        >>> initialise(network, sigma_w2=2.0, sigma_b2=0.0, seed=0)
        >>> examples = data.floats("train"), data.labels("train")
        >>> found = rate_range(network, *examples, rates=(1e-3, 0.1, 1000.0), steps=30, orders=2)
        >>> found["edge"].values.tolist()  # the largest rate that does not raise the loss
        [0.1, 0.1]

    Args:
        model: any module; a copy learns, in training mode.
        images: (n, …), what the model takes.
        labels: (n, …), what the loss takes.
        rates: of the trainings, rising.
        steps: of each training.
        orders: trainings of each rate, each with the images in another order.
        ramp: steps of the training at a rising rate, from the least to the largest of the rates; 0:
            none. The rules need 18.
        optimiser: "sgd", "momentum" (SGD with 0.9), "adam", or from a list of groups of parameters
            with their rates to a torch optimiser.
        batch_size: images per step.
        loss: from outputs and labels to a scalar.
        test: images and labels on which accuracies are taken; None: the first ones given.
        seed: of the first order, and of what the model itself draws.

    Returns:
        `loss` (order, rate), mean over the last tenth of the steps, infinite where it diverged;
        `accuracy` (order, rate) after them, NaN where outputs are no scores of classes; `start`
        (order,), the loss of the first step; `curve` (order, rate, step); `edge` (order,), the
        largest rate whose loss is below the start, NaN if none is; `suggestion` (order, finder):
        first the largest rate that reaches 90% of the best descent, then what `suggestions` says;
        and `ramp_loss` (order, ramp) at `ramp_rate`.

    Raises:
        ValueError: an argument out of range.

    Source: arXiv:1506.01186 (section 3.3), with trainings of their own in place of one.
    """
    model = instance_of("model", model, nn.Module)
    rates = _checked_rates(rates)
    steps = checked("steps", steps, int, low=1)
    orders = checked("orders", orders, int, low=1)
    ramp = checked("ramp", ramp, int, low=0)
    if 0 < ramp < 18:
        raise ValueError(f"ramp must be 0 or at least 18, got {ramp}")
    seed = checked("seed", seed, int, low=0, high=LARGEST_SEED - orders)
    if isinstance(optimiser, str):
        optimiser = OPTIMISERS[checked("optimiser", optimiser, str, choices=tuple(OPTIMISERS))]
    test = (images[:JUDGED], labels[:JUDGED]) if test is None else test
    how: dict[str, Any] = {"batch_size": batch_size, "loss": loss, "optimiser": optimiser}
    found: dict[str, list[Any]] = {name: [] for name in ("curve", "accuracy", "ramp_loss")}
    state, devices = state_of(model), [images.device] if images.is_cuda else []
    with torch.random.fork_rng(devices=devices):
        for number in range(seed, seed + orders):
            torch.manual_seed(number)
            network = SideBySide(model, [state] * len(rates)).train()
            found["curve"].append(_curve(network, rates, (images, labels), steps, number, how))
            found["accuracy"].append(_accuracies(network, *test))
            one = SideBySide(model, [state]).train()
            found["ramp_loss"].append(_ramp(one, rates, (images, labels), ramp, number, how))
    about = {"steps": steps, "batch_size": batch_size}
    return _as_dataset(rates, {n: np.array(v) for n, v in found.items()}, about)


def _checked_rates(rates: Sequence[float]) -> list[float]:
    """Rates as numbers, positive and rising."""
    found = [checked("rates", rate, float, above=0) for rate in rates]
    if len(found) < 2 or not all(a < b for a, b in pairwise(found)):
        raise ValueError(f"rates must be at least two and rise, got {found}")
    return found


def _curve(
    network: SideBySide, rates: list[float], lessons: Any, steps: int, seed: int, how: Any
) -> NDArray[Any]:
    """The loss of every step at each rate, (rate, step), infinite from where it diverged."""
    optimiser = how["optimiser"](network.groups(rates))
    losses = train(
        network, lessons, optimiser=optimiser, steps=steps, batch_size=how["batch_size"],
        rule=network.rule(how["loss"]), seed=seed,
    )  # fmt: skip
    found = np.full((len(rates), steps), np.inf)
    found[:, : len(losses)] = np.array(losses).T
    return np.where(np.isfinite(found), found, np.inf)


def _ramp(
    network: SideBySide, rates: list[float], lessons: Any, steps: int, seed: int, how: Any
) -> NDArray[Any]:
    """The losses of one training at a rising rate, NaN from where it diverged."""
    found = np.full(steps, np.nan)
    if not steps:
        return found
    optimiser = how["optimiser"](network.groups(rates[:1]))
    factor = (rates[-1] / rates[0]) ** (1 / (steps - 1))
    losses = train(
        network, lessons, optimiser=optimiser, steps=steps, batch_size=how["batch_size"],
        schedule=torch.optim.lr_scheduler.ExponentialLR(optimiser, factor),
        rule=network.rule(how["loss"]), seed=seed,
    )  # fmt: skip
    values = np.array(losses)[:, 0]
    found[: len(values)] = np.where(np.isfinite(values), values, np.nan)
    return found


@torch.no_grad()
def _accuracies(network: SideBySide, images: Tensor, labels: Tensor) -> NDArray[Any]:
    """The accuracy of each network, 0 where an output is not finite; NaN of no classifier."""
    network.eval()
    outputs = torch.cat([network(part) for part in images.split(100)], 1)
    if outputs.ndim != 3 or labels.ndim != 1 or labels.is_floating_point():
        return np.full(network.count, np.nan)
    right = (outputs.argmax(-1) == labels).double().mean(-1)
    return torch.where(outputs.isfinite().all(-1).all(-1), right, 0.0).cpu().numpy()


def _as_dataset(rates: list[float], found: dict[str, NDArray[Any]], about: Any) -> xr.Dataset:
    curve, ramp = found["curve"], found["ramp_loss"]
    last = max(1, curve.shape[-1] // 10)
    losses, start = curve[..., -last:].mean(-1), curve[:, 0, 0]
    ramp_rates = np.geomspace(rates[0], rates[-1], ramp.shape[-1])
    given = suggestions(ramp_rates, ramp) if ramp.shape[-1] else {}
    best = losses.min(1)
    falls = best < start
    fall = np.where(falls, start, 0) - np.where(falls, best, 0)
    enough = np.where(falls, best + CLOSE * fall, -np.inf)
    ours = _largest(rates, losses <= enough[:, None])
    suggested = np.stack([ours, *given.values()], 1)
    rate, unit = {"units": "1", "long_name": "learning rate"}, {"units": "1"}
    nats = {"units": "nats"}
    return xr.Dataset(
        {
            "loss": (("order", "rate"), losses, nats),
            "accuracy": (("order", "rate"), found["accuracy"], unit),
            "start": (("order",), start, nats),
            "curve": (("order", "rate", "step"), curve, nats),
            "edge": (("order",), _largest(rates, losses < start[:, None]), rate),
            "suggestion": (("order", "finder"), suggested, rate),
            "ramp_loss": (("order", "ramp"), ramp, nats),
            "ramp_rate": (("ramp",), ramp_rates, rate),
        },
        {"rate": rates, "finder": [OURS, *(FINDERS if given else ())]},
        about,
    )


def _largest(rates: list[float], good: NDArray[np.bool_]) -> NDArray[Any]:
    """The largest rate that is good, by order; NaN where none is."""
    return np.where(good.any(1), np.where(good, np.array(rates), 0.0).max(1), np.nan)
