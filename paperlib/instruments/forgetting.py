"""Example forgetting: which images a network unlearns while it trains, and which can be left out.

A *presentation* is one look at an image in the batch of a step, judged by the forward pass of that
step, before its update. A *forgetting event* is an image that was right at one presentation and is
wrong at the next one. Images that were learnt and never forgotten can be removed up to a point;
here networks are trained anew without them for as many steps as on all images.

Source: Toneva et al., arXiv:1812.05159. Beside it, what our cascade says of the same images in an
untrained network: does that lose the images that will be forgotten?
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from itertools import combinations, islice
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from numpy.typing import NDArray
from torch import Tensor, nn

from paperlib.cascade import Cascade
from paperlib.core.provenance import data_name
from paperlib.core.seeds import random_numbers
from paperlib.core.settings import PROFILES, option
from paperlib.datasets import Dataset
from paperlib.networks import untrained
from paperlib.networks.experiment import Point
from paperlib.training import backpropagation, batches, train

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CODE_VERSION = 1
ORDERS = ("least", "random", "most")  # forgotten first, of the images that are removed
MEAN, DEVIATION = 0.1307, 0.3081  # of MNIST's pixels, by which the published network normalises
SHOWN = 0.3  # mean R² at the level whose reconstructions are compared with forgetting
HEADER = "| removed | least forgotten first | at random | most forgotten first |"
COLOURS = {"least": "#1b6ca8", "random": "#777777", "most": "#c1462f"}


@dataclass(frozen=True, kw_only=True)
class Settings(Point):
    """The parameters of notebook 10; those that describe a network are of the one that is trained
    where `published` is False, and always of the untrained one whose cascade is read."""

    profile: str = option("quick", choices=PROFILES)
    published: bool = True  # the source's small convolutional network, else that of the settings
    epochs: int = option(8, low=2, high=10_000)
    networks: int = option(3, low=2, high=100)  # trained on all images, and for every removal
    removed: tuple[float, ...] = option((0.5, 0.9), above=0.0, high=0.99)
    learning_rate: float = option(0.01, above=0.0)
    momentum: float = option(0.5, low=0.0, high=0.999)
    batch_size: int = option(64, low=1)
    depth: int = option(20, low=1, high=10_000)
    sigma_w2: float = option(1.5, above=0.0)
    train_images: int = option(2000, low=10)
    test_images: int = option(2000, low=10)

    def unread(self) -> tuple[str, ...]:
        return (*super().unread(), "profile")


def measure(settings: Settings, data: Dataset) -> xr.Dataset:
    """Return who was forgotten how often, and what removing them costs.

    Args:
        settings: of the trainings.
        data: at least `train_images` of them are better; fewer are all used.

    Returns:
        a Dataset along network, example, epoch, order and removed; counts are events.
    """
    images, labels = data.examples("train", settings.train_images)
    test = data.examples("test", settings.test_images)
    seeds = [settings.seed + number for number in range(settings.networks)]
    logs = [_watched(settings, data, (images, labels), test, seed) for seed in seeds]
    right = np.stack([log["right"] for log in logs])  # (network, epoch, example)
    counts = forgetting_events(right)
    learnt = right.any(1)
    summed = np.where(learnt.all(0), counts.sum(0), settings.networks * settings.epochs)
    order = np.lexsort((_ties(len(labels), settings.seed), summed))
    whole = [log["accuracy"] for log in logs]
    accuracy = _without(settings, data, (images, labels), test, order, whole)
    lost = _lost(settings, data, images)
    pictures, shown = _gallery(data, labels.numpy(), order)
    example, network = ("example",), ("network", "example")
    variables: dict[str, Any] = {
        "events": (network, counts, {"units": "events"}),
        "learnt": (network, learnt, {"units": "1"}),
        "first_learnt": (network, first_learnt(right), {"units": "presentations"}),
        "margin": (network, np.stack([log["margin"] for log in logs]), {"units": "logits"}),
        "never_forgotten": (("network", "epoch"), _shares(right), {"units": "1"}),
        "accuracy": (("network",), whole, {"units": "1"}),
        "accuracy_without": (("order", "removed", "network"), accuracy, {"units": "1"}),
        "lost": (example, lost, {"units": "1", "long_name": "1 − R² of one image, untrained"}),
        "size": (example, images.flatten(1).square().mean(1).numpy(), {"units": "1"}),
        "label": (example, labels.numpy(), {"units": "1"}),
        "pictures": (("kind", "shown", "row", "column"), pictures, {"units": "1"}),
        "shown_events": (("kind", "shown"), summed[shown], {"units": "events"}),
    }
    coordinates = {
        "network": seeds,
        "epoch": np.arange(1, settings.epochs + 1),
        "order": list(ORDERS),
        "removed": [0.0, *settings.removed],
        "kind": ["never forgotten", "most forgotten"],
    }
    return xr.Dataset(variables, coordinates)


def forgetting_events(right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how often each image went from right to wrong, (…, example).

    Args:
        right: (…, presentation, example), whether each presentation was judged right.
    """
    return (right[..., :-1, :] & ~right[..., 1:, :]).sum(-2)


def first_learnt(right: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return the number, from 0, of each image's first right presentation, (…, example); the
    number of presentations where it never was.

    Args:
        right: as of `forgetting_events`.
    """
    return np.where(right.any(-2), right.argmax(-2), right.shape[-2])


def agreement(result: xr.Dataset) -> tuple[float, float]:
    """Return the mean Pearson correlation of the counts of two networks, and its spread over
    pairs; NaN where a network has no events."""
    from scipy import stats

    events = result["events"].values
    found = [_correlation(stats.pearsonr, *pair) for pair in combinations(events, 2)]
    return float(np.mean(found)), float(np.std(found))


def figure(result: xr.Dataset) -> "Figure":
    """Draw counts, accuracy after removal, the share never forgotten, and the images themselves."""
    from matplotlib.figure import Figure

    from paperlib.plots import paper_style

    with paper_style():
        drawn = Figure(figsize=(10.5, 5.6), layout="constrained")
        parts: Any = drawn.subfigures(2, 1, height_ratios=(3, 1.5))
        top, bottom = parts
        counts, removal, share = top.subplots(1, 3)
        _draw_counts(counts, result)
        _draw_removal(removal, result)
        _draw_share(share, result)
        _draw_gallery(bottom, result)
    return drawn


def findings(result: xr.Dataset) -> str:
    """Return what a run says, as Markdown: its own numbers, and the published ones apart."""
    from scipy import stats

    learnt = result["learnt"].all("network").values
    never = learnt & (_sums(result) == 0)
    networks, epochs = result.sizes["network"], result.sizes["epoch"]
    alone = float(result["never_forgotten"].isel(epoch=-1).mean())
    mean, spread = agreement(result)
    accuracy = result["accuracy_without"]
    rows = [
        f"| {removed:.0%} | "
        + " | ".join(_spelt(accuracy.sel(order=order, removed=removed)) for order in ORDERS)
        + " |"
        for removed in accuracy["removed"].values
    ]
    against = {
        "what its untrained cascade loses": result["lost"],
        "its size alone": result["size"],
        "its mean margin in training": result["margin"].mean("network"),
    }
    found = (
        f"{what} {_correlation(stats.spearmanr, values.values, _sums(result)):.2f}"
        for what, values in against.items()
    )
    return "\n\n".join([
        f"**This run.** {data_name(result)}: {never.size:,} images, {networks} networks, {epochs} "
        "epochs.",
        f"**Never forgotten:** {never.mean():.1%} of the images by all networks, {alone:.1%} by "
        f"one network alone; {1 - learnt.mean():.1%} were not learnt by every network.",
        f"**Agreement:** the counts of two networks correlate by {mean:.2f} ± {spread:.2f} "
        "(Pearson; spread over pairs).",
        "**What can be left out.** Test accuracy after as many steps as on all images, mean ± "
        "standard deviation over networks.",
        "\n".join([HEADER, "|---|---|---|---|", *rows]),
        f"**An image's events correlate with** (Spearman) {'; '.join(found)}.",
        "**Against the paper:** the numbers depend on epochs and networks, so none is compared. "
        "Its MNIST run has 60,000 images, 200 epochs and five networks; 91.7% of the images were "
        "never forgotten. On CIFAR10 the counts of two networks correlate by 0.89.",
    ])  # fmt: skip


# --- measuring


def _network(settings: Settings, data: Dataset, seed: int) -> nn.Module:
    """An untrained network: the source's, with PyTorch's own initialisation, or the settings'."""
    classes = len(data.classes)
    if not settings.published:
        return untrained(replace(settings, seed=seed), data.image_shape, classes)
    side = [(n - 4) // 2 for n in data.image_shape[1:]]
    side = [(n - 4) // 2 for n in side]
    if min(side) < 1:
        raise ValueError(
            f"the published network needs images of at least 16×16, got {data.image_shape}; take "
            "published=False or larger images"
        )
    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(seed)
        return nn.Sequential(
            nn.Conv2d(1, 10, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Conv2d(10, 20, 5), nn.MaxPool2d(2), nn.ReLU(),
            nn.Flatten(), nn.Linear(20 * side[0] * side[1], 50), nn.ReLU(), nn.Linear(50, classes),
        )  # fmt: skip


def _learn(
    settings: Settings, data: Dataset, lessons: tuple[Tensor, Tensor], seed: int, rule: Any = None
) -> nn.Module:
    """A network after as many steps as the epochs on all images are."""
    network = _network(settings, data, seed)
    rate, momentum = settings.learning_rate, settings.momentum
    optimiser = torch.optim.SGD(network.parameters(), lr=rate, momentum=momentum)
    count = min(settings.train_images, len(data.train_labels))
    steps = settings.epochs * (count // min(settings.batch_size, count))
    images, labels = lessons
    if settings.published:
        images = (images - MEAN) / DEVIATION
    train(
        network,
        (images, labels),
        optimiser=optimiser,
        steps=steps,
        batch_size=settings.batch_size,
        rule=rule,
        seed=seed,
    )
    return network.eval()


class _Recorded(nn.Module):
    """A network, and the logits of its last pass."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network
        self.logits = torch.empty(0)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images)
        self.logits = logits.detach()
        return logits


def _watched(
    settings: Settings,
    data: Dataset,
    lessons: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    seed: int,
) -> dict[str, Any]:
    """One training, with what each presentation was judged as."""
    seen: list[tuple[Tensor, Tensor]] = []

    def rule(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        recorded = _Recorded(network)
        loss = backpropagation(recorded, images, labels)
        true = recorded.logits.gather(1, labels[:, None])[:, 0]
        others = recorded.logits.scatter(1, labels[:, None], -torch.inf).amax(1)
        seen.append((recorded.logits.argmax(1) == labels, true - others))
        return loss

    network = _learn(settings, data, lessons, seed, rule)
    count, size = len(lessons[1]), settings.batch_size
    right = np.zeros((settings.epochs, count), bool)
    margin = np.zeros((settings.epochs, count))
    presented = np.zeros(count, int)
    for (judged, by), chosen in zip(
        seen, islice(batches(count, size, seed), len(seen)), strict=True
    ):
        which = chosen.numpy()
        right[presented[which], which], margin[presented[which], which] = judged, by
        presented[which] += 1
    # an epoch leaves a remainder out: an image without that presentation keeps its last judgement
    for example in np.flatnonzero(presented < settings.epochs):
        last = presented[example]
        right[last:, example] = right[last - 1, example] if last else False
        margin[last:, example] = margin[last - 1, example] if last else 0.0
    return {
        "right": right,
        "margin": margin.mean(0),
        "accuracy": _accuracy(settings, network, test),
    }


@torch.no_grad()
def _accuracy(settings: Settings, network: nn.Module, test: tuple[Tensor, Tensor]) -> float:
    images, labels = test
    if settings.published:
        images = (images - MEAN) / DEVIATION
    found = torch.cat([network(part).argmax(1) for part in images.split(500)])
    return float((found == labels).float().mean())


def _ties(count: int, seed: int) -> NDArray[np.int64]:
    """A random rank of each image, by which those of equal counts are ordered."""
    return torch.randperm(count, generator=random_numbers("forgetting ties", seed)).numpy()


def _without(
    settings: Settings,
    data: Dataset,
    lessons: tuple[Tensor, Tensor],
    test: tuple[Tensor, Tensor],
    order: NDArray[np.int64],
    whole: list[float],
) -> NDArray[np.float64]:
    """Test accuracy (order, removed, network) of networks trained without some of the images; that
    of networks trained on all, `whole`, comes first."""
    images, labels = lessons
    ranked = {"least": order, "most": order[::-1], "random": _ties(len(labels), settings.seed + 1)}
    found = np.zeros((len(ORDERS), 1 + len(settings.removed), len(whole)))
    found[:, 0] = whole
    for row, name in enumerate(ORDERS):
        for place, share in enumerate(settings.removed, start=1):
            kept = np.sort(ranked[name][round(share * len(labels)) :])
            for column in range(len(whole)):
                seed = settings.seed + column
                network = _learn(settings, data, (images[kept], labels[kept]), seed)
                found[row, place, column] = _accuracy(settings, network, test)
    return found


def _lost(settings: Settings, data: Dataset, images: Tensor) -> NDArray[np.float32]:
    """1 − R² of each image, where an untrained network of the settings keeps about SHOWN of all."""
    network = untrained(settings, data.image_shape, len(data.classes))
    fitted = images[: min(len(images), 2000)]
    cascade = Cascade.for_network(network, images[:1]).fit(fitted)
    centre = images.mean(0)
    spread = (images - centre).square().flatten(1).mean(1)
    whole = float(spread.mean())
    best: Tensor = torch.ones(len(images))
    nearest = np.inf
    for level in range(network.stem + 1, cascade.depth + 1):
        back = torch.cat(
            [cascade.reconstruct(part, levels=level)[0] for part in images.split(1000)]
        )
        error = (back - images).square().flatten(1).mean(1)
        distance = abs(1 - float(error.mean()) / whole - SHOWN)
        if distance < nearest:
            nearest, best = distance, error / spread.clamp(min=1e-12)
    return best.numpy()


def _shares(right: NDArray[np.bool_]) -> NDArray[np.float64]:
    """The share of images that each network has learnt and not forgotten, after every epoch."""
    epochs = right.shape[1]
    return np.stack([
        ((forgetting_events(right[:, :end]) == 0) & right[:, :end].any(1)).mean(1)
        for end in range(1, epochs + 1)
    ], axis=1)  # fmt: skip


def _gallery(
    data: Dataset, labels: NDArray[np.int64], order: NDArray[np.int64]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """One image of each class, up to ten: of the least and of the most forgotten."""
    chosen = []
    for ranked in (order, order[::-1]):
        firsts = [next((i for i in ranked if labels[i] == c), ranked[0])
                  for c in range(min(10, len(data.classes)))]  # fmt: skip
        chosen.append(firsts)
    which = np.array(chosen)
    grey = (data.floats("train", limit=len(labels))[:, 0] * 255).round().to(torch.uint8).numpy()
    return grey[which], which


# --- drawing


def _sums(result: xr.Dataset) -> NDArray[np.int64]:
    return result["events"].sum("network").values


def _correlation(how: Callable[..., Any], one: Any, other: Any) -> float:
    """A correlation, NaN where one of the two does not vary."""
    constant = np.ptp(one) == 0 or np.ptp(other) == 0
    return float("nan") if constant else float(how(one, other).statistic)


def _spelt(values: xr.DataArray) -> str:
    return f"{float(values.mean()):.1%} ± {float(values.std()):.1%}"


def _draw_counts(axis: Any, result: xr.Dataset) -> None:
    learnt = result["learnt"].all("network").values
    sums = _sums(result)[learnt]
    if len(sums):
        axis.hist(sums, bins=np.arange(sums.max() + 2) - 0.5, color=COLOURS["least"])
    axis.set_yscale("log")
    never = np.sum(sums == 0) / len(learnt)
    text = f"learnt, never forgotten: {never:.0%}\nnot learnt by all: {1 - learnt.mean():.0%}"
    axis.annotate(text, (0.97, 0.95), xycoords="axes fraction", ha="right", va="top")
    axis.set_xlabel(f"forgetting events, summed over {result.sizes['network']} networks")
    axis.set_ylabel("images")


def _draw_removal(axis: Any, result: xr.Dataset) -> None:
    for order in ORDERS:
        values = result["accuracy_without"].sel(order=order)
        mean, spread = 100 * values.mean("network"), 100 * values.std("network")
        label = order if order == "random" else f"{order} forgotten"
        axis.errorbar(100 * values["removed"], mean, spread, label=label, color=COLOURS[order])
    axis.set_xlabel("images removed (%)")
    axis.set_ylabel("test accuracy (%), equal steps")
    axis.legend(title="removed first")


def _draw_share(axis: Any, result: xr.Dataset) -> None:
    for network in result["network"].values:
        axis.plot(result["epoch"], 100 * result["never_forgotten"].sel(network=network),
                  color=COLOURS["least"], lw=1)  # fmt: skip
    axis.set_xlabel("epochs of training")
    axis.set_ylabel("learnt and never forgotten (%)")


def _draw_gallery(place: Any, result: xr.Dataset) -> None:
    rows, columns = result["pictures"].shape[:2]
    axes = np.atleast_2d(place.subplots(rows, columns))
    for row, kind in enumerate(result["kind"].values):
        for column in range(columns):
            axis = axes[row, column]
            axis.imshow(result["pictures"].values[row, column], cmap="gray", vmin=0, vmax=255)
            axis.set_xticks([])
            axis.set_yticks([])
            axis.set_xlabel(f"{int(result['shown_events'].values[row, column])}", labelpad=1)
        axes[row, 0].set_ylabel(str(kind), rotation=0, ha="right", va="center")
