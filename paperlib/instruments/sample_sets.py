"""Sample sets: which images switch a node on, and what that says of their class.

The *sample set* of a ReLU node is the images that it is active for; only they change its weights.
As published, the sets grow at first, then shrink, while nodes come to say more of the class.
What a node's bit can say at most, and nodes that are always or never active, are shown beside it.

Source: Haasbroek & Davel, SACAIR 2020, pp. 304-320; theory: Davel et al., arXiv:2001.06178.
Beside it, on untrained networks: how many different codes images have, and R² of the image.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
from matplotlib import colormaps
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from paperlib.activations.factors import recorded_calls, slopes_of
from paperlib.activations.looking import features, look
from paperlib.cascade import Cascade
from paperlib.core.checks import LARGEST_SEED
from paperlib.core.provenance import data_name
from paperlib.core.settings import Parameters, option
from paperlib.datasets import Dataset
from paperlib.measures import LOST, collapse_depth, r_squared
from paperlib.networks import initialise, mlp
from paperlib.networks.network import Network
from paperlib.plots import BLUE, PALETTE, paper_style
from paperlib.training import at, batches, train

CODE_VERSION = 1
FORETELLS = ("different codes", "changing nodes")
LOSSES = ("cross-entropy", "squares", "softmax squares")
MEASURES = (
    "fraction", "predictability", "informativeness", "information", "share", "constant",
)  # fmt: skip
CHANGED = 0.01  # of the images: what counts as growing or shrinking
LIKELY = 0.85  # accuracy near which the sets were found to be largest


@dataclass(frozen=True, kw_only=True)
class Settings(Parameters):
    """The parameters of notebook 13: of networks that learn, and of untrained ones beside them."""

    depths: tuple[int, ...] = option((5,), low=1, high=100)
    widths: tuple[int, ...] = option((20, 80), low=1, high=10_000)
    losses: tuple[str, ...] = option(LOSSES[:2], choices=LOSSES)
    networks: int = option(2, low=1, high=100)  # seeds of each
    steps: int = option(600, low=1)
    looks: int = option(12, low=2, high=1000)
    learning_rate: float = option(1e-3, above=0.0)  # of Adam
    rule_rate: float = option(1e-3, above=0.0)  # of the one step that the membership rule predicts
    batch_size: int = option(64, low=1)
    variances: tuple[float, ...] = option((1.0, 1.5, 2.0, 3.0), above=0.0)  # untrained, σ_w²
    sigma_b2: float = option(0.05, low=0.0)  # untrained
    untrained_depth: int = option(20, low=1, high=1000)
    untrained_width: int = option(200, low=1, high=10_000)
    fitted: int = option(500, low=2)  # images that the untrained networks' inverses are fitted to
    train_images: int = option(10_000, low=2)
    test_images: int = option(2000, low=2)  # whose sets are measured
    data_seed: int = option(0, low=0, high=LARGEST_SEED)
    seed: int = option(0, low=0, high=LARGEST_SEED)


def measure(settings: Settings, data: Dataset) -> xr.Dataset:
    """Return the sample sets of networks that learn, and the codes of untrained ones.

    Args:
        settings: of the trainings and the untrained networks.
        data: its training images are learnt, the sets of its test images are measured.

    Returns:
        a Dataset along loss, depth, width, network, step and layer (means over a layer's nodes;
        NaN beyond a network's depth), and along sigma_w2 and level of untrained networks.
    """
    looks = np.unique([0, *np.geomspace(1, settings.steps, settings.looks).round().astype(int)])
    axes = (settings.losses, settings.depths, settings.widths, range(settings.networks))
    shape = tuple(len(axis) for axis in axes)
    deepest = max(settings.depths)
    found = {name: np.full((*shape, len(looks), deepest), np.nan) for name in MEASURES}
    accuracy = np.full((*shape, len(looks)), np.nan)
    rule = np.full((*shape, deepest), np.nan)
    pictures = np.zeros((2, *data.image_shape[1:]))
    for place in np.ndindex(shape):
        loss, depth, width, number = (axis[i] for axis, i in zip(axes, place, strict=True))
        run = _learn(settings, data, loss, depth, width, settings.seed + number, looks)
        for name in MEASURES:
            found[name][place][: len(run[name]), :depth] = run[name]
        accuracy[place][: len(run["accuracy"])] = run["accuracy"]
        rule[place][:depth] = run["rule"]
        if not any(place):
            pictures = run["pictures"]
    of, unit = ("loss", "depth", "width", "network"), {"units": "1"}
    variables: dict[str, Any] = {
        name: ((*of, "step", "layer"), values, {"units": "bit"} if name == "information" else unit)
        for name, values in found.items()
    }
    variables |= {
        "accuracy": ((*of, "step"), accuracy, unit),
        "rule": ((*of, "layer"), rule, {**unit, "long_name": "share of changes predicted"}),
        "pictures": (("moment", "row", "column"), pictures, unit),
        "ceiling": ((), _ceiling(data, settings.test_images), unit),
    }
    variables |= {n: (("sigma_w2", "level"), v, unit) for n, v in _codes(settings, data).items()}
    return xr.Dataset(variables, {
        "loss": list(settings.losses), "depth": list(settings.depths),
        "width": list(settings.widths), "step": looks, "layer": np.arange(1, deepest + 1),
        "network": [settings.seed + number for number in range(settings.networks)],
        "moment": ["start", "end"], "sigma_w2": list(settings.variances),
        "level": np.arange(1, settings.untrained_depth + 1),
    }, {"test_images": settings.test_images})  # fmt: skip


def node_measures(active: Tensor, labels: Tensor, classes: int) -> dict[str, Tensor]:
    """Return what each node's activity says of the class, and the class of it, (nodes,) each.

    Args:
        active: (n, nodes), whether each image is in each node's set.
        labels: (n,), numbering the classes from 0.
        classes: their number.

    Returns:
        `fraction`, of the images in the set; `predictability`, 1 − H(active | class) in bits;
        `informativeness`, 1 − H(class | active) / log₂ classes; `information` of the two about each
        other, in bits; `share`, that of the node's own entropy; `constant`, 1
        where the node is always or never active.

    Source: Haasbroek & Davel 2020. A constant node has predictability 1, and no bit can raise the
    informativeness above 1 − (H(class) − 1) / log₂ classes.
    """
    members = nn.functional.one_hot(labels, classes).double()
    sizes = members.sum(0)
    within = (members.T @ active.double()) / sizes.clamp(min=1)[:, None]
    share = sizes / len(labels)
    fraction = active.double().mean(0)
    given_class = share @ _bits(within)
    own = _bits(fraction)
    information = own - given_class
    entropy = -(share * share.clamp(min=1e-300).log2()).sum()
    return {
        "fraction": fraction,
        "predictability": 1 - given_class,
        "informativeness": 1 - (entropy - information) / math.log2(classes),
        "information": information,
        "share": torch.where(own > 0, information / own.clamp(min=1e-300), 0.0),
        "constant": ((fraction == 0) | (fraction == 1)).double(),
    }


def predicted_sets(
    inputs: Tensor, layer: nn.Linear, batch: Tensor, slopes: Tensor, rate: float
) -> Tensor:
    """Return which images will be in each node's set after one step of SGD, (n, nodes).

    An image stays active where z·w > η Σ_s (z·z_s) φ_s, the sum over the batch; φ_s is the slope of
    the summed loss with respect to the node. Exact in the first layer, whose inputs do not move.

    Args:
        inputs: of the layer, for the images (n, features).
        layer: before the step.
        batch: inputs of the layer, for the images of the step (m, features).
        slopes: φ (m, nodes).
        rate: η, for the sum of the batch's losses.
    """
    constant = float(layer.bias is not None)
    return layer(inputs) > rate * (inputs @ batch.T + constant) @ slopes


def distinct_codes(active: Tensor) -> int:
    """Return how many different rows the images' patterns of activity (n, nodes) have."""
    return len(np.unique(np.packbits(active.numpy(), axis=1), axis=0))


def scores(result: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return what untrained networks say of "will it train", (sigma_w2,): the first depth from
    which there are fewer different codes than half of the images."""
    curves = result["codes"].transpose("sigma_w2", "level")
    return {"codes": result["sigma_w2"].copy(data=[_halved(row) for row in curves.values])}


def foretell(network: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> dict[str, float]:
    """Return what sample sets say of "will it train" about one untrained model; higher is better.

    Args:
        network: any module; it is left as it was.
        images: (n, *shape).
        labels: (n,), not read.
        seed: of the model's random numbers.

    Returns:
        the scores of `FORETELLS`, NaN where the model overflows. `different codes`, as a share of
        the images, and `changing nodes`, the share that is neither on nor off for all of them, both
        at the stage where they are least.
    """
    seen = features(network, images, seed=seed)
    if not all(values.isfinite().all() for values in seen):
        return dict.fromkeys(FORETELLS, math.nan)
    active = [values > 0 for values in seen]
    changing = [a.any(0) & ~a.all(0) for a in active]
    return {
        "different codes": min(distinct_codes(a.cpu()) / len(a) for a in active),
        "changing nodes": min(float(nodes.double().mean()) for nodes in changing),
    }


# --- measuring


def _halved(codes: NDArray[Any]) -> float:
    """The first depth from which there are fewer different codes than half of the images."""
    return float(collapse_depth(codes, threshold=0.5))


def _bits(share: Tensor) -> Tensor:
    """The entropy of a bit that is 1 with this probability."""
    other = 1 - share
    return -(torch.xlogy(share, share) + torch.xlogy(other, other)) / math.log(2)


def _ceiling(data: Dataset, limit: int) -> float:
    """The largest informativeness that a bit can have."""
    shares = np.bincount(data.labels("test")[:limit].numpy(), minlength=len(data.classes))
    shares = shares[shares > 0] / shares.sum()
    return float(1 - (-(shares * np.log2(shares)).sum() - 1) / math.log2(len(data.classes)))


def _network(data: Dataset, depth: int, width: int, seed: int) -> Network:
    """ReLU layers and one linear layer to the classes, as He et al. initialise them."""
    with torch.random.fork_rng(devices=[]):
        shape, classes = (1, *data.image_shape[1:]), len(data.classes)
        network = mlp(shape, depth=depth, width=width, activation="relu", classes=classes)
        network.head = nn.Linear(width, classes)
    initialise(network, sigma_w2=2.0, sigma_b2=0.0, seed=seed)
    return network


def _loss(kind: str, logits: Tensor, labels: Tensor) -> Tensor:
    """The summed loss of a batch."""
    if kind == "cross-entropy":
        return nn.functional.cross_entropy(logits, labels, reduction="sum")
    outputs = logits if kind == "squares" else logits.softmax(1)
    targets = nn.functional.one_hot(labels, logits.shape[1]).to(logits.dtype)
    return (outputs - targets).square().mean(1).sum()


def _layers(network: nn.Module) -> list[Any]:
    stages: Any = network.stages
    return [next(m for m in stage if isinstance(m, nn.Linear)) for stage in stages]


def _active(network: nn.Module, images: Tensor) -> list[Tensor]:
    return [values > 0 for _, values in look(network, images, batch_size=500)]


def _learn(
    settings: Settings, data: Dataset, kind: str, depth: int, width: int, seed: int, looks: Any
) -> dict[str, Any]:
    """One training: what its layers' sets were like at every look, and what the rule predicts."""
    images, labels = data.examples("train", settings.train_images)
    test, truth = data.examples("test", settings.test_images)
    network = _network(data, depth, width, seed)
    first = next(batches(len(labels), settings.batch_size, seed))
    rule = rule_agreement(network, test, (images[first], labels[first]), kind, settings.rule_rate)
    seen: dict[str, list[Any]] = {name: [] for name in (*MEASURES, "accuracy")}
    kept: list[Tensor] = []

    def observe(step: int, network: nn.Module) -> None:
        active = _active(network, test)
        layers = [node_measures(nodes, truth, len(data.classes)) for nodes in active]
        for name in MEASURES:
            seen[name].append([float(layer[name].mean()) for layer in layers])
        with torch.no_grad():
            seen["accuracy"].append(float((network(test).argmax(1) == truth).double().mean()))
        kept[1:] = [active[0]] if kept else []
        kept[:1] = kept[:1] or [active[0]]

    def learn(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        loss = _loss(kind, network(images), labels) / len(labels)
        loss.backward()
        return loss.detach()

    optimiser = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    train(network, (images, labels), optimiser=optimiser, steps=settings.steps, rule=learn,
          batch_size=settings.batch_size, observers=[at(looks.tolist(), observe)],
          seed=seed)  # fmt: skip
    return {**seen, "rule": rule, "pictures": _pictures(test, kept)}


def _pictures(images: Tensor, active: Sequence[Tensor]) -> NDArray[Any]:
    """The mean image in the set minus that outside of it, of the first layer's node that ends most
    evenly; at the start and at the end."""
    node = int((active[-1].double().mean(0) - 0.5).abs().argmin())
    sets = [states[:, node].double() for states in (active[0], active[-1])]
    grey = images[:, 0].double()

    def mean(weight: Tensor) -> Tensor:
        return torch.einsum("n,nij->ij", weight, grey) / weight.sum().clamp(min=1)

    return torch.stack([mean(inside) - mean(1 - inside) for inside in sets]).numpy()


def rule_agreement(
    network: Network, images: Tensor, batch: tuple[Tensor, Tensor], kind: str, rate: float
) -> list[float]:
    """Return, by layer, the share of the changes of sets by one step of SGD that the membership
    rule predicts; NaN where none changes. The network stays as it was.

    Args:
        network: of ReLU stages.
        images: whose sets are compared.
        batch: images and labels of the step.
        kind: of the loss, which is summed over the batch.
        rate: of the step.
    """
    layers = _layers(network)
    with recorded_calls(layers) as calls:
        total = _loss(kind, network(batch[0]), batch[1])
    slopes = slopes_of(total, calls)
    weights = list(network.parameters())
    moves = torch.autograd.grad(total, weights, allow_unused=True, materialize_grads=True)
    with torch.no_grad():
        with recorded_calls(layers) as before:
            network(images)
        predicted = [
            predicted_sets(at_test.inputs, layer, of_batch.inputs, slope, rate)
            for layer, at_test, of_batch, slope in zip(layers, before, calls, slopes, strict=True)
        ]
        saved = [weight.clone() for weight in weights]
        for weight, move in zip(weights, moves, strict=True):
            weight.sub_(move, alpha=rate)
        with recorded_calls(layers) as after:
            network(images)
        for weight, old in zip(weights, saved, strict=True):
            weight.copy_(old)
    rows = zip(before, after, predicted, strict=True)
    return [_caught(old.outputs > 0, new.outputs > 0, guess) for old, new, guess in rows]


def _caught(before: Tensor, after: Tensor, predicted: Tensor) -> float:
    changed = before != after
    return float((predicted == after)[changed].double().mean()) if changed.any() else math.nan


def _codes(settings: Settings, data: Dataset) -> dict[str, NDArray[Any]]:
    """Untrained networks by σ_w² and level: constant nodes, different codes as a share of the
    images, and R² of the image."""
    fitted = data.floats("train", limit=settings.fitted)
    test = data.floats("test", limit=settings.test_images)
    rows: dict[str, list[Any]] = {"untrained_constant": [], "codes": [], "r_squared": []}
    sizes: Any = {"depth": settings.untrained_depth, "width": settings.untrained_width}
    for sigma_w2 in settings.variances:
        with torch.random.fork_rng(devices=[]):  # which layers draw from before initialisation
            network = mlp((1, *data.image_shape[1:]), activation="relu", **sizes)
        initialise(network, sigma_w2=sigma_w2, sigma_b2=settings.sigma_b2, seed=settings.seed)
        active = _active(network, test)
        still = [float(((a.sum(0) == 0) | (a.sum(0) == len(a))).double().mean()) for a in active]
        rows["untrained_constant"].append(still)
        rows["codes"].append([distinct_codes(a) / len(a) for a in active])
        cascade = Cascade.for_network(network, fitted[:1]).fit(fitted)
        back = cascade.reconstruct(test)
        rows["r_squared"].append(r_squared(test, back, mean=fitted.mean(0)).tolist())
    return {name: np.array(values) for name, values in rows.items()}


# --- drawing and saying

ROWS = {
    "fraction": "activation fraction",
    "predictability": "predictability",
    "informativeness": "informativeness",
}


def figure(result: xr.Dataset) -> Figure:
    """Draw three measures along training, and what they hide; then untrained networks."""
    deep = result.isel(depth=_middle(result))
    runs = [(loss, width) for loss in deep["loss"].values for width in deep["width"].values]
    with paper_style():
        drawn = Figure(figsize=(max(10.5, 2.2 * len(runs)), 8.4), layout="constrained")
        parts: Any = drawn.subfigures(2, 1, height_ratios=(5.4, 3.0))
        axes = parts[0].subplots(len(ROWS), len(runs), sharex=True, sharey="row", squeeze=False)
        for column, (loss, width) in enumerate(runs):
            _draw_run(axes[:, column], deep.sel(loss=loss, width=width))
            axes[0, column].set_title(f"{loss}, {int(deep['depth'])} × {width}")
        for row, label in enumerate(ROWS.values()):
            axes[row, 0].set_ylabel(label)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        parts[0].legend(handles, labels, loc="outside lower center", ncols=len(labels))
        _draw_more(parts[1], result, deep)
    return drawn


def takeaway(result: xr.Dataset) -> str:
    """Return what the figure shows in a few sentences, with this run's numbers."""
    one = _shown(result)
    size, accuracy = one["fraction"].mean("layer"), one["accuracy"]
    top = int(size.argmax("step"))
    last = one["informativeness"].isel(step=-1).max("layer")
    constant = one["constant"].isel(step=0)
    return (
        f"**In short.** With {one.attrs['name']}, a node's set holds {float(size[0]):.0%} of the "
        f"images at the start, {float(size[top]):.0%} at step {int(one['step'][top])} (accuracy "
        f"{float(accuracy[top]):.0%}) and {float(size[-1]):.0%} at the end "
        f"({float(accuracy[-1]):.0%}). The most informative layer reaches {float(last):.3f} of the "
        f"{float(result['ceiling']):.3f} that a bit can reach. At the start "
        f"{float(constant.max()):.0%} of the nodes of one layer are constant, which published "
        "predictability counts as perfect."
    )


def findings(result: xr.Dataset) -> str:
    """Return what a run says, as Markdown: its own numbers, and the published ones apart."""
    rule = result["rule"].mean(["loss", "depth", "width", "network"]).values
    shares = ", ".join(f"{share:.2f}" for share in rule)
    return "\n\n".join([
        f"**This run.** {data_name(result)}: {result.attrs['test_images']} test images; means over "
        f"{result.sizes['network']} networks and, of each measure, over a layer's nodes.",
        "**Sets while learning**, over all layers:",
        _runs_table(result),
        f"**The membership rule** predicts these shares of the changes by one step of SGD, by "
        f"layer: {shares}. In the first layer it is exact; deeper, inputs move too.",
        f"**The ceiling** of informativeness is {float(result['ceiling']):.3f}, whatever a node "
        "does: a bit holds no more than a bit.",
        "**Untrained networks**, depth from which there are fewer codes than half of the "
        f"images, and from which R² stays below {LOST:g}:",
        _untrained_table(result),
        "**Against the paper:** on MNIST sets grow until an accuracy of about "
        f"{LIKELY:.0%} and then shrink, fastest in the first layer; nodes come to say more of the "
        "class, and remain poor predictors. Its numbers are in figures, so none is compared. "
        + _order(result),
    ])  # fmt: skip


def _order(result: xr.Dataset) -> str:
    """In how many kinds of networks the sets grow first and shrink after, by loss; how accurate
    they are where sets are largest, and in how many of these the first layer's shrink the most."""
    each = result[["fraction", "accuracy"]].mean("network").stack(kind=("depth", "width"))
    found = []
    for loss in each["loss"].values:
        one = each.sel(loss=loss)
        size = one["fraction"].mean("layer")
        largest = size.max("step")
        both = (largest > size[0] + CHANGED) & (largest > size[-1] + CHANGED)
        said = f"{int(both.sum())} of {both.size} by {loss}"
        if both.any():
            accuracy = one["accuracy"].isel(step=size.argmax("step"))[both]
            shrunk = one["fraction"].max("step") - one["fraction"].isel(step=-1)
            first = (shrunk.fillna(-1).argmax("layer") == 0)[both]
            said += (
                f" (largest at accuracies of {float(accuracy.min()):.0%} to "
                f"{float(accuracy.max()):.0%}; in {int(first.sum())} of them the first layer's "
                "shrink the most)"
            )
        found.append(said)
    return f"Here they grow and then shrink, each by more than {CHANGED:g}, in {', '.join(found)}."


def _middle(result: xr.Dataset) -> int:
    """The place of the depth that is drawn: the middle one."""
    return int(result.sizes["depth"] // 2)


def _shown(result: xr.Dataset) -> xr.Dataset:
    """The widest network of the first loss and of the depth that is drawn, mean over seeds."""
    one = result.isel(loss=0, depth=_middle(result), width=-1)
    name = f"{one['loss'].item()} and {int(one['depth'])} layers of {int(one['width'])} nodes"
    return one.mean("network").assign_attrs(name=name)


def _runs_table(result: xr.Dataset) -> str:
    head = (
        "| loss | layers × nodes | set at start | largest, at step (accuracy) | at the end "
        "| first layer, last layer at the end | I in bits, I/H, constant nodes at the end "
        "| accuracy |"
    )
    rows = []
    for loss in result["loss"].values:
        for depth in result["depth"].values:
            for width in result["width"].values:
                one = result.sel(loss=loss, depth=depth, width=width).mean("network")
                rows.append([str(loss), f"{depth} × {width}", *_run_cells(one, int(depth))])
    return "\n".join([head, "|---" * 8 + "|", *(f"| {' | '.join(row)} |" for row in rows)])


def _run_cells(one: xr.Dataset, depth: int) -> list[str]:
    size = one["fraction"].mean("layer").values
    top = int(np.nanargmax(size))
    accuracy, end = one["accuracy"].values, one.isel(step=-1)
    layers = end["fraction"].values
    information = end["information"].mean("layer")
    kept = float(end["share"].mean("layer"))
    return [
        f"{size[0]:.2f}",
        f"{size[top]:.2f}, {int(one['step'][top])} ({accuracy[top]:.0%})",
        f"{size[-1]:.2f}",
        f"{layers[0]:.2f}, {layers[depth - 1]:.2f}",
        f"{float(information):.2f}, {kept:.2f}, {float(end['constant'].mean('layer')):.1%}",
        f"{accuracy[-1]:.0%}",
    ]


def _untrained_table(result: xr.Dataset) -> str:
    deepest = result.sizes["level"]
    rows = []
    for sigma_w2 in result["sigma_w2"].values:
        one = result.sel(sigma_w2=sigma_w2)
        found = [
            collapse_depth(one["codes"].values, threshold=0.5),
            collapse_depth(one["r_squared"].values),
        ]
        cells = [str(depth) if depth <= deepest else "never" for depth in found]
        still = float(one["untrained_constant"].isel(level=-1))
        rows.append(f"| {sigma_w2:g} | {' | '.join(cells)} | {still:.0%} |")
    head = "| σ_w² | codes | R² | constant nodes at the last level |"
    return "\n".join([head, "|---|---|---|---|", *rows])


def _draw_run(axes: Any, one: xr.Dataset) -> None:
    """The three measures of one kind of network, a line for each layer; accuracy in grey."""
    depth = int(one["depth"])
    steps = one["step"].values + 1  # the start has a place on a logarithmic axis
    colours = colormaps["viridis"](np.linspace(0, 0.9, depth))
    for axis, name in zip(axes, ROWS, strict=True):
        axis.set_xscale("log")
        for layer, colour in zip(one["layer"].values[:depth], colours, strict=True):
            values = one[name].sel(layer=layer)
            axis.plot(steps, values.mean("network"), color=colour, label=f"layer {layer}")
            low, high = values.min("network"), values.max("network")
            axis.fill_between(steps, low, high, color=colour, alpha=0.2, lw=0)
    axes[0].plot(steps, one["accuracy"].mean("network"), color="0.6", lw=1, label="accuracy")
    axes[0].set_ylim(0, 1)
    axes[1].plot(steps, one["constant"].mean(["network", "layer"]), ":", color="0.3",
                 label="constant nodes")  # fmt: skip
    axes[0].plot([], [], ":", color="0.3", label="constant nodes")
    axes[1].set_ylim(0, 1)
    axes[2].axhline(float(one["ceiling"]), color="0.3", ls="--", lw=1)
    axes[0].plot([], [], "--", color="0.3", lw=1, label="ceiling of a bit")
    axes[2].set_ylim(0, 1.08 * float(one["ceiling"]))
    axes[-1].set_xlabel("step + 1")


def _draw_more(place: Any, result: xr.Dataset, deep: xr.Dataset) -> None:
    rule, start, end, untrained = place.subplots(1, 4, width_ratios=(1.2, 0.8, 0.8, 1.6))
    layers = deep["layer"].values[: int(deep["depth"])]
    share = deep["rule"].mean(["loss", "width", "network"]).values[: len(layers)]
    rule.bar(layers, share, color=BLUE)
    rule.set(ylim=(0, 1.05), xticks=layers, xlabel="layer", title="Changes predicted")
    rule.set_ylabel("share, one step of SGD")
    pictures = result["pictures"].values
    largest = np.abs(pictures).max() or 1.0
    for axis, moment, picture in zip((start, end), ("start", "end"), pictures, strict=True):
        axis.imshow(picture, cmap="RdBu_r", vmin=-largest, vmax=largest)
        axis.set_axis_off()
        axis.set_title(f"A set, {moment}")
    for number, sigma_w2 in enumerate(result["sigma_w2"].values):
        one, colour = result.sel(sigma_w2=sigma_w2), PALETTE[number % len(PALETTE)]
        untrained.plot(one["level"], one["codes"], color=colour, label=f"{sigma_w2:g}")
        untrained.plot(one["level"], one["r_squared"].clip(0), "--", color=colour)
    untrained.plot([], [], color="0.4", label="codes / images")
    untrained.plot([], [], "--", color="0.4", label="R²")
    untrained.set(ylim=(0, 1.02), xlabel="depth", title=r"Untrained, by $\sigma_w^2$")
    untrained.xaxis.get_major_locator().set_params(integer=True)
    untrained.set_ylabel("distinct codes per image, R²")
    untrained.legend(ncols=2, fontsize=6)
