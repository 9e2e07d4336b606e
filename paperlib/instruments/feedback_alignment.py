"""Feedback alignment: can networks learn where the image is lost before it reaches the last layer?

Backpropagation needs the image to go up and the error to come down; in deep ordered networks both
die. Direct feedback alignment sends the error to every layer at once, through fixed matrices. Then
the first layers learn without hearing from those above them, and reopen the way for the image from
below. Where each rule trains stands beside R² of the untrained network.

Source: Nøkland, arXiv:1609.01596; binary, and below convolutions: Han & Yoo, arXiv:1901.01986. All
rules are trained with plain SGD and with RMSprop, which rescales what is too small.
"""

import copy
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from matplotlib import colormaps
from matplotlib.figure import Figure
from matplotlib.ticker import NullFormatter
from numpy.typing import NDArray
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from paperlib.cascade import Cascade
from paperlib.core.checks import LARGEST_SEED
from paperlib.core.provenance import data_name
from paperlib.core.settings import Parameters, option
from paperlib.datasets import Dataset
from paperlib.meanfield import SMOOTH, correlation_depth
from paperlib.measures import LOST, collapse_depth, r_squared
from paperlib.networks import Network, activation_module, initialise, mlp
from paperlib.plots import BLUE, COLLAPSE_COLOUR, GREEN, ORANGE, PALETTE, SEQUENTIAL, paper_style
from paperlib.plots import edges as edges_of
from paperlib.training import (
    Observer,
    Rule,
    alignment_angles,
    at,
    backpropagation,
    batches,
    feedback_alignment,
    feedback_matrices,
    parts_of,
    train,
)
from paperlib.training.feedback import feedback_lesson
from paperlib.training.outcome import trainable_depth

Array = NDArray[Any]
Examples = tuple[Tensor, Tensor]

CODE_VERSION = 1
FORETELLS = ("accuracy by DFA",)
OPTIMISERS = ("SGD", "RMSprop")
RULES = ("BP", "DFA", "binary DFA")
KINDS = ("random", "product", "product_sign")
WAYS = ("BP", "random", "binary", "product", "product_sign")
COLOURS = dict(zip(RULES, (BLUE, ORANGE, GREEN), strict=True))
FORETOLD_STEPS, FORETOLD_BATCH = 30, 32  # of the short training that foretells
VALIDATION = 0.2  # of the training images, on which the rate is chosen
CLOSE = 0.06  # of accuracy: what feedback may cost where backpropagation trains
CNN_VARIANCE = 1.76  # σ_w² of the convolutional networks, critical for tanh
CNN_CHANNELS, CNN_WIDTH = (8, 16), 100


@dataclass(frozen=True, kw_only=True)
class Settings(Parameters):
    """The parameters of notebook 15: of networks that learn by one rule or another."""

    variances: tuple[float, ...] = option((0.6, 1.76), low=0.0)  # σ_w²; 0: all weights are 0
    depths: tuple[int, ...] = option((5, 20), low=1, high=1000)
    networks: int = option(3, low=1, high=100)  # seeds of each
    width: int = option(100, low=1, high=10_000)
    sigma_b2: float = option(0.05, low=0.0)
    activation: str = option("tanh", choices=("tanh", "erf", "relu", "gelu"))
    feedback: str = option("random", choices=KINDS)  # of DFA over variance and depth
    steps: int = option(200, low=0)
    batch_size: int = option(64, low=1)
    learning_rate: float = option(0.3, above=0.0)  # of SGD with backpropagation, over depth
    feedback_rate: float = option(0.2, above=0.0)  # of SGD with feedback, at every depth
    rmsprop_rate: float = option(3e-4, above=0.0)  # with backpropagation
    rmsprop_feedback_rate: float = option(1e-3, above=0.0)
    factors: tuple[float, ...] = option(
        (1.0,), above=0.0
    )  # of every rate, of which the best counts
    watched: tuple[float, ...] = option((0.6,), low=0.0)  # σ_w², while they learn
    watched_depth: int = option(20, low=1, high=1000)
    looks: int = option(4, low=2, high=1000)
    cnn_steps: int = option(60, low=0, zero="no convolutional network")
    cnn_images: int = option(1000, low=2)  # which that learns
    fitted: int = option(300, low=2)  # images that cascades are fitted to, and tested on
    train_images: int = option(10_000, low=10)
    test_images: int = option(1000, low=2)
    data_seed: int = option(0, low=0, high=LARGEST_SEED)
    seed: int = option(0, low=0, high=LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("variances", "depths", "factors", "watched"):  # axes
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))


class Task(NamedTuple):
    """Images and labels that are learnt, on which rates are chosen, and that are tested."""

    learnt: Examples
    validation: Examples
    test: Examples
    classes: int


class Stack(nn.Module):
    """MLPs of one shape side by side, from (k, n, *image_shape) to what every Linear layer and the
    activation after it make of them, (k, n, features); the last are the logits.

    Attributes:
        weights: (k, in, out) of every layer.
        biases: (k, 1, out).
    """

    def __init__(self, networks: Sequence[nn.Module], activation: str) -> None:
        super().__init__()
        layers = list(zip(*map(_linear, networks), strict=True))
        self.weights, self.biases = nn.ParameterList(), nn.ParameterList()
        for same in layers:
            self.weights.append(torch.stack([each.weight.detach().T for each in same]))
            self.biases.append(torch.stack([each.bias.detach()[None] for each in same]))
        self.activation = activation_module(activation)

    def forward(self, images: Tensor, *, apart: bool = False) -> list[Tensor]:
        outputs: list[Tensor] = []
        x = images.flatten(2)
        for weight, bias in zip(self.weights, self.biases, strict=True):
            x = torch.baddbmm(bias, x.detach() if apart else x, weight)
            if len(outputs) + 1 < len(self.weights):
                x = self.activation(x)
            outputs.append(x)
        return outputs

    @torch.no_grad()
    def copy_into(self, networks: Sequence[nn.Module]) -> None:
        """Give each network the weights that it has here."""
        for number, network in enumerate(networks):
            for layer, weight, bias in zip(
                _linear(network), self.weights, self.biases, strict=True
            ):
                layer.weight.copy_(weight[number].T)
                layer.bias.copy_(bias[number, 0])


def measure(settings: Settings, data: Dataset) -> xr.Dataset:
    """Return what networks learn by every rule, and R² of their images before and meanwhile.

    Args:
        settings: of the networks and the trainings.
        data: of its training images the last fifth choose the rate, and the others are learnt.

    Returns:
        a Dataset along optimiser, rule, factor (of the rate), depth, sigma_w2 and network;
        `r_squared` of untrained networks along level; and `watched_…` along way (backpropagation,
        or a kind of feedback), watched (σ_w²), network, step, and level or layer.

    Raises:
        ValueError: images of one class only, or too small for the convolutional network.
    """
    task = _task(settings, data)
    seeds = [settings.seed + number for number in range(settings.networks)]
    variables, one = _maps(settings, task, seeds), {"units": "1"}
    variables["r_squared"] = (("sigma_w2", "network", "level"), _untrained(settings, task, seeds),
                              {"units": "1", "long_name": "R², untrained"})  # fmt: skip
    steps = _looks(settings)
    variables |= _watch(settings, task, seeds, steps)
    if settings.cnn_steps:
        found = [[_convolutional(settings, task, rule, seed) for seed in seeds] for rule in RULES]
        variables["cnn_accuracy"] = (("rule", "network"), found, one)
    levels = max(*settings.depths, settings.watched_depth)
    coordinates = {
        "optimiser": list(OPTIMISERS), "rule": list(RULES), "factor": list(settings.factors),
        "depth": list(settings.depths), "sigma_w2": list(settings.variances), "network": seeds,
        "level": np.arange(1, levels + 1), "way": list(WAYS), "watched": list(settings.watched),
        "step": steps, "layer": np.arange(1, settings.watched_depth + 2),
    }  # fmt: skip
    named = ("steps", "width", "sigma_b2", "activation", "watched_depth", "cnn_images", "cnn_steps",
             "feedback", "feedback_rate")  # fmt: skip
    about = {name: getattr(settings, name) for name in named}
    return xr.Dataset(variables, coordinates, {**about, "classes": task.classes})


def rate_of(settings: Settings, optimiser: str, rule: str, depth: int) -> float:
    """Return the rate, before its factor: only that of SGD with backpropagation falls with depth,
    because only its errors add up over the layers."""
    if optimiser == "SGD":
        return settings.learning_rate / depth if rule == "BP" else settings.feedback_rate
    return settings.rmsprop_rate if rule == "BP" else settings.rmsprop_feedback_rate


def chosen(result: xr.Dataset) -> xr.DataArray:
    """Return the test accuracy at the rate that is best on the validation images, in the mean over
    networks: (optimiser, rule, depth, sigma_w2, network)."""
    best = result["validation"].mean("network").argmax("factor")
    return result["accuracy"].isel(factor=best)


def kept(result: xr.Dataset) -> xr.DataArray:
    """Return R² at the last stage of the untrained networks, (depth, sigma_w2, network)."""
    return result["r_squared"].sel(level=result["depth"]).drop_vars("level")


def threshold(result: xr.Dataset) -> float:
    """Return the accuracy that counts as trained: halfway from chance to the best."""
    return (1 / result.attrs["classes"] + float(chosen(result).max())) / 2


def predicted(result: xr.Dataset) -> xr.DataArray:
    """Return, by optimiser and rule, the AUC of R² before training for "this network trains"; NaN
    where all of them do or none."""
    trains, said = chosen(result) >= threshold(result), kept(result)

    def auc(optimiser: str, rule: str) -> float:
        truth, score = xr.broadcast(trains.sel(optimiser=optimiser, rule=rule, drop=True), said)
        known = truth.values.ravel()
        return roc_auc_score(known, score.values.ravel()) if 0 < known.mean() < 1 else math.nan

    values = [[auc(optimiser, rule) for rule in RULES] for optimiser in OPTIMISERS]
    return xr.DataArray(values, {"optimiser": list(OPTIMISERS), "rule": list(RULES)})


def frontier(result: xr.Dataset) -> xr.DataArray:
    """Return the last level that R² reaches, (way, watched, network, step); 0 where it is lost from
    the first level on."""
    last = xr.apply_ufunc(lambda curve: collapse_depth(curve) - 1, result["watched_r_squared"],
                          input_core_dims=[["seen"]], vectorize=True)  # fmt: skip
    return last.astype(float)


def speed(result: xr.Dataset) -> xr.DataArray:
    """Return how fast feedback opens the way, (way, watched, network): the most levels gained since
    the start, per unit of rate times steps. Looks far apart make it smaller than it is."""
    reached = frontier(result)
    later = reached.isel(step=slice(1, None))
    per_step = (later - reached.isel(step=0)) / later["step"]
    return per_step.sel(way=list(WAYS[1:])).max("step") / result.attrs["feedback_rate"]


def scores(result: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return what this says of "will it train", (sigma_w2, depth): R² of the untrained network, and
    what it learns where the error need not come back, which no signal on its way back can tell."""
    learnt = chosen(result).sel(optimiser="SGD", rule="DFA", drop=True)
    dims = ("sigma_w2", "depth")
    return {"R² untrained": kept(result).mean("network").transpose(*dims),
            "accuracy by DFA": learnt.mean("network").transpose(*dims)}  # fmt: skip


def foretell(network: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> dict[str, float]:
    """Return what a short training by feedback says of "will it train"; higher is better.

    Args:
        network: an untrained classifier that can be cut before a Linear layer, see
            `training.feedback.parts_of`; it stays as it was. Within a part, such as a chain of
            residual blocks, backpropagation does the rest.
        images: (n, …), that it would learn.
        labels: (n,), numbering the classes.
        seed: of the feedback, the order of the images, and what the network itself draws.

    Returns:
        the scores of `FORETELLS`, NaN where a network cannot be cut or overflows. `accuracy by
        DFA`: on the images, after some steps. It asks whether the signal arrives at the top or can
        be opened from below, and cannot see what an error loses on its way back.
    """
    rate, few = Settings().rmsprop_feedback_rate, images[:FORETOLD_BATCH]
    with torch.random.fork_rng(devices=[images.device] if images.is_cuda else []):
        torch.manual_seed(seed)
        own = copy.deepcopy(network).eval()
        if len(parts_of(own)) < 2 or not own(few).isfinite().all():
            return dict.fromkeys(FORETELLS, math.nan)
        rule = feedback_alignment(own, feedback_matrices(own, few[:1], seed=seed))
        train(own.train(), (images, labels), steps=FORETOLD_STEPS, batch_size=FORETOLD_BATCH,
              optimiser=_optimiser(own, "RMSprop", rate), rule=rule, seed=seed)  # fmt: skip
    with torch.no_grad():
        logits = torch.cat([own.eval()(some) for some in images.split(100)])
    right = (logits.argmax(-1) == labels) & logits.isfinite().all(-1)
    return {"accuracy by DFA": float(right.double().mean())}


# --- measuring


def _task(settings: Settings, data: Dataset) -> Task:
    images, labels = data.examples("train", settings.train_images)
    if len(labels.unique()) < 2:
        raise ValueError(
            f"networks learn to tell classes apart; the {len(labels)} training images of "
            f"{data.name} are all of one: take more train_images"
        )
    test, truth = data.examples("test", settings.test_images)
    count = max(1, round((1 - VALIDATION) * len(labels)))
    learnt, validation = (images[:count], labels[:count]), (images[count:], labels[count:])
    return Task(learnt, validation, (test, truth), len(data.classes))


def _linear(network: nn.Module) -> list[nn.Linear]:
    return [layer for layer in network.modules() if isinstance(layer, nn.Linear)]


def _drawn(settings: Settings, task: Task, depth: int, sigma_w2: float, seed: int) -> Network:
    """An untrained MLP; a shallower one of the same seed is its beginning."""
    with torch.random.fork_rng(devices=[]):  # which layers draw from before initialisation
        network = mlp(task.test[0].shape[1:], depth=depth, width=settings.width,
                      activation=settings.activation, classes=task.classes)  # fmt: skip
    sigma_b2 = settings.sigma_b2 if sigma_w2 else 0.0
    initialise(network, sigma_w2=sigma_w2, sigma_b2=sigma_b2, seed=seed)
    return network


def _feedback(networks: Sequence[Network], task: Task, kind: str, seeds: Sequence[int]) -> Any:
    """The matrices of networks side by side, (k, classes, features) of every layer but the last."""
    each = [feedback_matrices(network, task.test[0][:1], feedback=kind, seed=seed)
            for network, seed in zip(networks, seeds, strict=True)]  # fmt: skip
    return [torch.stack(same) for same in zip(*each, strict=True)]


def _learn(
    settings: Settings,
    task: Task,
    stack: Stack,
    seeds: Sequence[int],
    *,
    optimiser: str,
    rate: float,
    matrices: Sequence[Tensor] | None,
    observers: Sequence[Observer] = (),
) -> None:
    """Train networks side by side, whose seeds repeat; None is backpropagation."""
    images, labels = task.learnt
    copies = len(stack.weights[0]) // len(seeds)
    orders = (batches(len(labels), settings.batch_size, seed) for seed in seeds)
    drawn = (torch.stack(each).repeat(copies, 1) for each in zip(*orders, strict=True))

    def rule(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        outputs = network(images, apart=matrices is not None)
        given = (outputs[-1:], labels, ()) if matrices is None else (outputs, labels, matrices)
        losses, total = feedback_lesson(*given)
        total.backward()
        return losses.detach()

    train(stack, ((images[each], labels[each]) for each in drawn), steps=settings.steps,
          optimiser=_optimiser(stack, optimiser, rate), rule=rule, observers=observers)  # fmt: skip


def _optimiser(network: nn.Module, name: str, rate: float) -> torch.optim.Optimizer:
    if name == "SGD":
        return torch.optim.SGD(network.parameters(), lr=rate, fused=True)
    return torch.optim.RMSprop(network.parameters(), lr=rate)


@torch.no_grad()
def _accuracies(stack: Stack, examples: Examples) -> Array:
    """The accuracy of each network; 0 of one that has diverged."""
    images, labels = examples
    count = len(stack.weights[0])
    right = torch.zeros(count, dtype=torch.float64)
    for some, truth in zip(images.split(500), labels.split(500), strict=True):
        logits = stack(some.expand(count, *some.shape))[-1]
        right += ((logits.argmax(-1) == truth) & logits.isfinite().all(-1)).sum(-1)
    return (right / len(labels)).numpy()


def _maps(settings: Settings, task: Task, seeds: Sequence[int]) -> dict[str, Any]:
    """Accuracy over variance and depth of every optimiser, rule and rate."""
    variances, factors, depths = settings.variances, settings.factors, settings.depths
    shape = (len(OPTIMISERS), len(RULES), len(factors), len(depths))
    rates, size = np.zeros(shape), (len(variances), len(seeds))
    found = {name: np.zeros((*shape, *size)) for name in ("accuracy", "validation")}
    for place in np.ndindex(shape):
        optimiser, rule = OPTIMISERS[place[0]], RULES[place[1]]
        depth = depths[place[3]]
        rates[place] = factors[place[2]] * rate_of(settings, optimiser, rule, depth)
        networks = [_drawn(settings, task, depth, v, seed) for v in variances for seed in seeds]
        kind = {"BP": "", "DFA": settings.feedback, "binary DFA": "binary"}[rule]
        every = [*seeds] * len(variances)
        matrices = _feedback(networks, task, kind, every) if kind else None
        stack = Stack(networks, settings.activation)
        _learn(settings, task, stack, seeds, optimiser=optimiser, rate=float(rates[place]),
               matrices=matrices)  # fmt: skip
        found["accuracy"][place] = _accuracies(stack, task.test).reshape(size)
        found["validation"][place] = _accuracies(stack, task.validation).reshape(size)
    dims = ("optimiser", "rule", "factor", "depth")
    one = {"units": "1"}
    values = {name: ((*dims, "sigma_w2", "network"), each, one) for name, each in found.items()}
    return {**values, "rate": (dims, rates, {"units": "1 / step"})}


def _r_squared(settings: Settings, task: Task, network: Network) -> list[float]:
    fitted, test = task.learnt[0][: settings.fitted], task.test[0][: settings.fitted]
    back = Cascade.for_network(network, fitted[:1]).fit(fitted).reconstruct(test)
    return [float(value) for value in r_squared(test, back, mean=fitted.mean(0))]


def _untrained(settings: Settings, task: Task, seeds: Sequence[int]) -> Array:
    """R² by level of the deepest networks, of which the others are the beginning."""
    deepest = max(*settings.depths, settings.watched_depth)
    return np.array([
        [_r_squared(settings, task, _drawn(settings, task, deepest, v, seed)) for seed in seeds]
        for v in settings.variances
    ])  # fmt: skip


def _looks(settings: Settings) -> Array:
    """The steps after which networks are looked at, dense at the start."""
    later = np.geomspace(max(1, settings.steps / 30), max(1, settings.steps), settings.looks - 1)
    return np.unique(np.minimum([0, *later.round().astype(int)], settings.steps))


def _watch(settings: Settings, task: Task, seeds: Sequence[int], steps: Array) -> dict[str, Any]:
    """R² by level, angles by layer and accuracy while networks learn, by SGD at its first rate."""
    size = (len(WAYS), len(settings.watched) * len(seeds), len(steps))
    depth = settings.watched_depth
    found = {"r_squared": np.full((*size, depth), np.nan), "accuracy": np.full(size, np.nan),
             "angle": np.full((*size, depth + 1), np.nan)}  # fmt: skip
    every = [*seeds] * len(settings.watched)
    for row, way in enumerate(WAYS):
        networks = [_drawn(settings, task, depth, v, seed)
                    for v in settings.watched for seed in seeds]  # fmt: skip
        matrices = _feedback(networks, task, way, every) if way != "BP" else None
        stack = Stack(networks, settings.activation)
        see = _seen(settings, task, networks, matrices, {n: v[row] for n, v in found.items()})
        rate = rate_of(settings, "SGD", "BP" if way == "BP" else "DFA", depth)
        _learn(settings, task, stack, seeds, optimiser="SGD", rate=rate, matrices=matrices,
               observers=[at(steps.tolist(), see)])  # fmt: skip
    dims, of = ("way", "watched", "network", "step"), (len(WAYS), len(settings.watched), len(seeds))
    shaped = {name: values.reshape(*of, *values.shape[2:]) for name, values in found.items()}
    return {"watched_r_squared": ((*dims, "seen"), shaped["r_squared"], {"units": "1"}),
            "watched_accuracy": (dims, shaped["accuracy"], {"units": "1"}),
            "angle": ((*dims, "layer"), shaped["angle"], {"units": "degrees"})}  # fmt: skip


def _seen(
    settings: Settings,
    task: Task,
    networks: Sequence[Network],
    matrices: Sequence[Tensor] | None,
    found: dict[str, Array],
) -> Observer:
    """What looks at networks side by side, and notes what it sees in `found`."""
    images, labels = (part[: settings.batch_size] for part in task.validation)
    places = {step: place for place, step in enumerate(_looks(settings).tolist())}

    def see(step: int, stack: Any) -> None:
        stack.copy_into(networks)
        place = places[step]
        found["accuracy"][:, place] = _accuracies(stack, task.test)
        for number, network in enumerate(networks):
            found["r_squared"][number, place] = _r_squared(settings, task, network)
            if matrices is not None:
                own = [matrix[number] for matrix in matrices]
                found["angle"][number, place] = alignment_angles(network, own, images, labels)

    return see


def _convolutional(settings: Settings, task: Task, rule: str, seed: int) -> float:
    """Test accuracy of a small convolutional network whose dense part learns by the rule."""
    images, labels = (part[: settings.cnn_images] for part in task.learnt)
    network = _cnn(task, seed)
    learns: Rule = backpropagation
    if rule != "BP":
        kind = settings.feedback if rule == "DFA" else "binary"
        matrices = feedback_matrices(network, images[:1], feedback=kind, seed=seed)
        learns = feedback_alignment(network, matrices)
    train(network, (images, labels), steps=settings.cnn_steps, batch_size=settings.batch_size,
          optimiser=_optimiser(network, "RMSprop", settings.rmsprop_feedback_rate), rule=learns,
          seed=seed)  # fmt: skip
    with torch.no_grad():
        found = torch.cat([network(part).argmax(1) for part in task.test[0].split(500)])
    return float((found == task.test[1]).double().mean())


def _cnn(task: Task, seed: int) -> Network:
    """Two convolutions with pooling, two dense layers, and the logits."""
    shape = task.test[0].shape[1:]
    sides = [((side - 4) // 2 - 4) // 2 for side in shape[1:]]
    if min(sides) < 1:
        raise ValueError(
            f"the convolutional network needs images of at least 16×16, got {tuple(shape)}; take "
            "cnn_steps = 0, for none, or larger images"
        )
    first, second = CNN_CHANNELS
    with torch.random.fork_rng(devices=[]):
        stages = nn.Sequential(
            nn.Sequential(nn.Conv2d(shape[0], first, 5), nn.MaxPool2d(2), nn.Tanh()),
            nn.Sequential(nn.Conv2d(first, second, 5), nn.MaxPool2d(2), nn.Tanh(), nn.Flatten()),
            nn.Sequential(nn.Linear(second * math.prod(sides), CNN_WIDTH), nn.Tanh()),
            nn.Sequential(nn.Linear(CNN_WIDTH, CNN_WIDTH), nn.Tanh()),
        )
        network = Network(stages, nn.Linear(CNN_WIDTH, task.classes), image_shape=shape)
    initialise(network, sigma_w2=CNN_VARIANCE, sigma_b2=0.0, seed=seed)
    return network


# --- drawing and saying


def figure(result: xr.Dataset) -> Figure:
    """Draw what every rule learns over variance and depth, and networks while they learn."""
    with paper_style():
        drawn = Figure(figsize=(10.5, 8.4), layout="constrained")
        parts: Any = drawn.subfigures(2, 1, height_ratios=(5.2, 3.2))
        axes = parts[0].subplots(len(OPTIMISERS), len(RULES), sharex=True, sharey=True)
        for row, optimiser in zip(axes, OPTIMISERS, strict=True):
            for axis, rule in zip(row, RULES, strict=True):
                mesh = _draw_map(axis, result, optimiser, rule)
            row[0].set_ylabel("depth")
        for axis in axes[-1]:
            axis.set_xlabel(r"weight variance $\sigma_w^2$")
        parts[0].colorbar(mesh, ax=axes, label="accuracy, mean of networks", pad=0.01)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        parts[0].legend(handles, labels, loc="outside upper center", ncols=len(labels))
        reached, levels, opened, angles = parts[1].subplots(1, 4)
        _draw_reached(reached, result)
        _draw_levels(levels, result)
        _draw_frontier(opened, result)
        _draw_angles(angles, result)
    return drawn


def takeaway(result: xr.Dataset) -> str:
    """Return what the figure shows in a few sentences, with this run's numbers."""
    lost = kept(result).mean("network") < LOST
    count = int(lost.sum())
    if not count:
        return (
            "**In short.** No network of this run has lost its image before training, so it cannot "
            "say what trains across the wall; take smaller variances or larger depths."
        )
    trains = (chosen(result).mean("network") >= threshold(result)) & lost
    said = [
        f"{optimiser}: "
        + ", ".join(f"{int(trains.sel(optimiser=optimiser, rule=rule).sum())} by {rule}"
                    for rule in RULES)
        for optimiser in OPTIMISERS
    ]  # fmt: skip
    return (
        f"**In short.** In {count} of {lost.size} cells the untrained network has lost its image "
        f"(R² below {LOST:g} at the last stage). Of these, this many train to "
        f"{threshold(result):.0%} or more, in the mean of networks: {'; '.join(said)}."
    )


def findings(result: xr.Dataset) -> str:
    """Return what a run says, as Markdown: its own numbers, and the published ones apart."""
    about = result.attrs
    parts = [
        f"**This run.** {data_name(result)}: MLPs of width {about['width']}, {about['steps']} "
        f"steps, {result.sizes['network']} networks of each kind; means ± standard deviation over "
        f"networks. {_rates(result)}.",
        "**Accuracy on test images** at each depth and σ_w²; an asterisk marks where the untrained "
        f"network has lost its image, R² below {LOST:g}:",
        _accuracy_table(result),
        f"**The price elsewhere.** {' '.join(_price(result, each) for each in OPTIMISERS)}",
        "**R² before training as a forecast** of which networks train to "
        f"{threshold(result):.0%}, AUC; a dash where all do, or none: {_forecast(result)}.",
        f"**While they learn**, {about['watched_depth']} deep, by SGD: the last level with R² of "
        f"{LOST:g} or more at the start and at the end, accuracy, and the angle between the errors "
        "of feedback and backpropagation, mean over layers:",
        _watched_table(result),
    ]
    if "cnn_accuracy" in result:
        values = result["cnn_accuracy"]
        each = ", ".join(f"{rule} {_spelt(values.sel(rule=rule).values)}" for rule in RULES)
        parts.append(
            f"**Below convolutions**, {about['cnn_images']:,} images, RMSprop, the dense part by "
            f"each rule: {each}."
        )
    parts.append(
        "**Against the paper:** Nøkland's abstract has a test error of 1.45% on MNIST by DFA, "
        "after hundreds of epochs, so it is not compared. Han & Yoo say that convolutional "
        "networks with binary feedback in the dense part do as well as backpropagation when "
        f"images are few. {_published(result)}"
    )
    return "\n\n".join(parts)


def _published(result: xr.Dataset) -> str:
    if "cnn_accuracy" not in result:
        return "This run has no convolutional network."
    means = result["cnn_accuracy"].mean("network")
    gap = float(means.sel(rule="binary DFA") - means.sel(rule="BP"))
    return (
        f"Here the binary form is {abs(100 * gap):.1f} points {'above' if gap >= 0 else 'below'}."
    )


def _spelt(values: Array) -> str:
    spread = f" ± {values.std(ddof=1):.3f}" if len(values) > 1 else ""
    return f"{values.mean():.3f}{spread}"


def _table(head: str, rows: Sequence[Sequence[str]]) -> str:
    lines = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([f"| {head} |", "|---" * (head.count("|") + 1) + "|", *lines])


def _accuracy_table(result: xr.Dataset) -> str:
    values, before = chosen(result), kept(result).mean("network")
    rows = []
    for depth in result["depth"].values:
        for sigma_w2 in result["sigma_w2"].values:
            at_ = {"depth": depth, "sigma_w2": sigma_w2}
            here = values.sel(at_)
            mark = "*" if float(before.sel(at_)) < LOST else ""
            cells = [_spelt(here.sel(optimiser=o, rule=r).values) for o in OPTIMISERS
                     for r in RULES]  # fmt: skip
            rows.append([f"{depth}", f"{sigma_w2:g}{mark}", *cells])
    names = " | ".join(f"{optimiser}, {rule}" for optimiser in OPTIMISERS for rule in RULES)
    return _table(f"depth | σ_w² | {names}", rows)


def _price(result: xr.Dataset, optimiser: str) -> str:
    """By how much feedback stays behind backpropagation, where that trains."""
    means = chosen(result).sel(optimiser=optimiser).mean("network")
    ours = means.sel(rule="BP", drop=True)
    behind = (ours - means.sel(rule="DFA", drop=True)).where(ours >= threshold(result))
    cells = behind.stack(cell=("depth", "sigma_w2")).dropna("cell")
    if not cells.size:
        return f"With {optimiser}, backpropagation trains nowhere in this run."
    far = cells[cells > CLOSE]
    said = ", ".join(
        f"{100 * float(each):.1f} at depth {int(each['depth'])}, σ_w² {float(each['sigma_w2']):g}"
        for each in far
    )
    mean = 100 * float(cells.mean())
    return (
        f"With {optimiser}, backpropagation trains in {cells.size} cells. There DFA is "
        f"{abs(mean):.1f} points {'below' if mean >= 0 else 'above'} it in the mean, and more than "
        f"{100 * CLOSE:.0f} below in {far.size or 'none'} of them" + (f": {said}." if said else ".")
    )


def _rates(result: xr.Dataset) -> str:
    """The rates before their factors, and these."""
    rate = result["rate"].isel(factor=0, depth=0) / float(result["factor"][0])
    said = []
    for optimiser in OPTIMISERS:
        own = [float(rate.sel(optimiser=optimiser, rule=rule)) for rule in ("BP", "DFA")]
        depth = int(result["depth"][0])
        back = f"{own[0] * depth:g}/depth" if optimiser == "SGD" else f"{own[0]:g}"
        said.append(f"{optimiser} {back} with backpropagation, {own[1]:g} with feedback")
    factors = ", ".join(f"{float(each):g}" for each in result["factor"])
    return f"Rates: {'; '.join(said)}; times {factors}, of which the best on validation images"


def _forecast(result: xr.Dataset) -> str:
    found = predicted(result)
    pairs = [(o, r, float(found.sel(optimiser=o, rule=r))) for o in OPTIMISERS for r in RULES]
    return ", ".join(f"{o} with {r} {'–' if math.isnan(v) else f'{v:.2f}'}" for o, r, v in pairs)


def _watched_table(result: xr.Dataset) -> str:
    reached = frontier(result)
    rows = []
    for sigma_w2 in result["watched"].values:
        for way in WAYS:
            at_ = {"watched": sigma_w2, "way": way}
            ends = [f"{float(reached.sel(at_).isel(step=n).mean()):.1f}" for n in (0, -1)]
            angles = result["angle"].sel(at_).mean(["network", "layer"])
            turned = " → ".join(f"{float(angles.isel(step=n)):.0f}°" for n in (0, -1))
            accuracy = result["watched_accuracy"].sel(at_).isel(step=-1).values
            fast = "" if way == "BP" else f"{float(speed(result).sel(at_).mean()):.2f}"
            rows.append([f"{sigma_w2:g}", way, *ends, fast, _spelt(accuracy),
                         "" if way == "BP" else turned])  # fmt: skip
    return _table("σ_w² | by | level at the start | at the end | levels per rate × steps "
                  "| accuracy | angle", rows)  # fmt: skip


def _draw_map(axis: Any, result: xr.Dataset, optimiser: str, rule: str) -> Any:
    """Accuracy over variance and depth, with the depth at which R² is lost before training."""
    values = chosen(result).sel(optimiser=optimiser, rule=rule).mean("network")
    grid, depths = result["sigma_w2"].values, result["depth"].values
    borders = edges_of(grid), edges_of(depths.astype(float))
    mesh = axis.pcolormesh(*borders, values.transpose("depth", "sigma_w2"), cmap=SEQUENTIAL,
                           vmin=0, vmax=1, rasterized=True)  # fmt: skip
    _draw_walls(axis, result)
    axis.set(title=f"{optimiser}, {rule}", xlim=borders[0][[0, -1]], ylim=borders[1][[0, -1]])
    axis.set_yticks(depths)
    return mesh


def _draw_walls(axis: Any, result: xr.Dataset) -> None:
    """Where R² of untrained networks is lost, by cascade; and 6ξ_c by mean field."""
    lost = [[collapse_depth(curve) for curve in rows] for rows in result["r_squared"].values]
    reach = np.array(lost, float)
    reach[reach > result.sizes["level"]] = np.nan
    mean = [row[~np.isnan(row)].mean() if not np.isnan(row).all() else np.nan for row in reach]
    axis.plot(result["sigma_w2"], mean, "o-", color=COLLAPSE_COLOUR, ms=3,
              label="R² lost before training")  # fmt: skip
    if result.attrs["activation"] in SMOOTH:
        first, *_, last = edges_of(result["sigma_w2"].values).tolist()
        grid = np.linspace(first, last, 100)
        lengths = [_correlation_depth(float(s), result.attrs) for s in grid]
        axis.plot(grid, 6 * np.array(lengths), color="0.85", lw=1, label=r"$6\,\xi_c$, mean field")


def _correlation_depth(sigma_w2: float, about: dict[str, Any]) -> float:
    try:
        return correlation_depth(sigma_w2, about["sigma_b2"], activation=about["activation"])
    except ValueError:  # beyond what the quadrature can reach
        return math.nan


def _draw_reached(axis: Any, result: xr.Dataset) -> None:
    """The deepest networks that train, by every rule and optimiser."""
    means = chosen(result).mean("network").transpose(..., "sigma_w2", "depth")
    deepest = trainable_depth(means.values, result["depth"].values, threshold(result))
    for row, (optimiser, style) in enumerate(zip(OPTIMISERS, ("-", ":"), strict=True)):
        for column, rule in enumerate(RULES):
            shift = 1 + 0.02 * (column - 1) + 0.01 * row  # lines that coincide stay visible
            axis.plot(result["sigma_w2"], shift * deepest[row, column], style, marker=".",
                      color=COLOURS[rule], label=f"{optimiser}, {rule}")  # fmt: skip
    _draw_walls(axis, result)
    limit = 1.15 * float(result["depth"][-1])
    axis.set(title="Deepest that trains", xlabel=r"$\sigma_w^2$", ylabel="depth", ylim=(0, limit))
    axis.legend(fontsize=5.5)


def _draw_levels(axis: Any, result: xr.Dataset) -> None:
    """R² by level while the first watched network learns by random feedback."""
    one = result.isel(watched=0)["watched_r_squared"].mean("network")
    levels, steps = np.arange(1, result.sizes["seen"] + 1), result["step"].values
    colours = colormaps["viridis"](np.linspace(0, 0.9, len(steps)))
    for step, colour in zip(steps, colours, strict=True):
        axis.plot(levels, one.sel(way="random", step=step).clip(0), color=colour, label=f"{step}")
    axis.plot(levels, one.sel(way="BP", step=steps[-1]).clip(0), "--", color="0.3",
              label=f"BP, {steps[-1]}")  # fmt: skip
    axis.axhline(LOST, color="0.6", lw=0.8, ls=":")
    axis.set(title=rf"R² by DFA, $\sigma_w^2$ = {float(result['watched'][0]):g}", xlabel="level",
             ylabel="R²", ylim=(0, 1))  # fmt: skip
    axis.legend(title="step", fontsize=5.5, ncols=2)


def _draw_frontier(axis: Any, result: xr.Dataset) -> None:
    """The last level that R² reaches, by steps; by DFA full, by backpropagation dashed."""
    reached = frontier(result)
    for number, sigma_w2 in enumerate(result["watched"].values):
        colour = PALETTE[number % len(PALETTE)]
        for way, style in (("random", "-"), ("binary", "-."), ("BP", "--")):
            values = reached.sel(watched=sigma_w2, way=way)
            axis.plot(result["step"] + 1, values.mean("network"), style, color=colour,
                      label=rf"$\sigma_w^2$ = {sigma_w2:g}, {way}")  # fmt: skip
            if way == "random":
                low, high = values.min("network"), values.max("network")
                axis.fill_between(result["step"] + 1, low, high, color=colour, alpha=0.2, lw=0)
    axis.set(title="The way is reopened", xscale="log", xlabel="step + 1")
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set(ylabel=f"last level with R² ≥ {LOST:g}", ylim=(0, 1.05 * result.sizes["seen"]))
    axis.legend(fontsize=5.5)


def _draw_angles(axis: Any, result: xr.Dataset) -> None:
    """Angles by layer at the end, of every kind of feedback; of random feedback at the start."""
    one = result["angle"].isel(watched=0).mean("network")
    axis.axhline(90, color="0.6", lw=0.8, ls=":")
    start = one.sel(way="random").isel(step=0)
    axis.plot(result["layer"], start, color="0.6", lw=1, label="random, start")
    for number, way in enumerate(WAYS[1:]):
        axis.plot(result["layer"], one.sel(way=way).isel(step=-1), ".-", ms=3, lw=1,
                  color=PALETTE[number], label=way.replace("_", " "))  # fmt: skip
    axis.set(title="Angle to backpropagation", xlabel="layer", ylabel="degrees, at the end")
    axis.legend(fontsize=5.5)
