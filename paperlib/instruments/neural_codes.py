"""Neural codes: which units an image switches on, as the name of the image and of its class.

The *code* of an image has one bit for every unit of every hidden layer: whether it is above 0. As
published, trained networks give almost every image a code of its own, and codes of one class lie
close to each other. What codes of chance and of untrained networks do already stands beside it.
In untrained layers theory says how many bits of two images differ: arccos(c)/π, of the correlation
c of what enters the units.

Source: He, Lei, Ji & Tao, arXiv:2101.05490; one random layer: Charikar, STOC 2002. The published
code leaves constant bits out, which changes none of what is measured here.
"""

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment
from sklearn.cluster import KMeans
from sklearn.exceptions import ConvergenceWarning
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import normalized_mutual_info_score
from sklearn.neighbors import KNeighborsClassifier
from threadpoolctl import threadpool_limits
from torch import Tensor, nn

from paperlib.activations import features, look
from paperlib.cascade import Cascade
from paperlib.core.checks import LARGEST_SEED
from paperlib.core.provenance import data_name
from paperlib.core.seeds import random_numbers
from paperlib.core.settings import Parameters, option
from paperlib.datasets import Dataset
from paperlib.kernels import ACTIVATIONS, mlp_kernels
from paperlib.measures import LOST, collapse_depth, r_squared
from paperlib.networks import Network, initialise, mlp
from paperlib.plots import BLUE, GREEN, ORANGE, PALETTE, SEQUENTIAL, paper_style
from paperlib.training import at, train

Array = NDArray[Any]

CODE_VERSION = 1
FORETELLS = ("k-NN on codes",)
SETS = ("train", "test", "train, as many as test")
READERS = ("network", "k-NN", "logistic regression")
AGREEMENTS = ("purity", "one to one", "NMI")
KINDS = {"redundancy": ("images", SETS), "shuffled": ("images", SETS),
         "accuracy": ("reader", READERS), "clusters": ("agreement", AGREEMENTS)}  # fmt: skip
UNTRAINED = ("differ", "below", "error", "alike", "read", "r_squared")
SHARED, OWN, NEAR = 0.5, 0.01, 0.01  # redundancy of the regimes, and k-NN's distance to its best
RESTARTS = 3  # of k-means
ITERATIONS = 100  # of logistic regression, as published
REGIMES = ("under-expressive", "critically expressive", "sufficiently expressive")


@dataclass(frozen=True, kw_only=True)
class Settings(Parameters):
    """The parameters of notebook 18: of ReLU networks that learn, and of untrained ones."""

    widths: tuple[int, ...] = option((10, 20, 40, 100), low=1, high=10_000)
    depth: int = option(1, low=1, high=100)
    statistics: int = option(100, low=0, high=10_000, zero="no batch norm")  # running over batches
    epochs: tuple[int, ...] = option((0, 1, 5), low=0, high=10_000)
    networks: int = option(3, low=1, high=100)  # seeds of each
    shown_width: int = option(40, low=1, high=10_000)
    learnt: tuple[int, ...] = option((100, 1000), low=2)  # fewer images, at that width
    other_statistics: tuple[int, ...] = option((0, 10, 300), low=0, high=10_000)  # there too
    learning_rate: float = option(0.01, above=0.0)  # of Adam
    batch_size: int = option(64, low=2)
    neighbours: int = option(9, low=1, high=1000)
    variances: tuple[float, ...] = option((0.6, 1.1, 1.76, 3.0), above=0.0)  # untrained, σ_w²
    sigma_b2: float = option(0.05, low=0.0)  # untrained; beside networks without biases
    activation: str = option("tanh", choices=ACTIVATIONS)  # untrained
    untrained_depth: int = option(20, low=1, high=1000)
    untrained_width: int = option(200, low=2, high=10_000)
    fitted: int = option(500, low=2)  # images that untrained networks are read with, and tested on
    train_images: int = option(5000, low=2)
    test_images: int = option(2000, low=2)
    data_seed: int = option(0, low=0, high=LARGEST_SEED)
    seed: int = option(0, low=0, high=LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("widths", "epochs", "learnt", "other_statistics", "variances"):  # axes
            object.__setattr__(self, name, tuple(sorted(set(getattr(self, name)))))
        if self.shown_width not in self.widths:
            raise ValueError(
                f"shown_width must be one of widths, got {self.shown_width} and {self.widths}"
            )


class _Task(NamedTuple):
    """Images (n, 1, height, width) and their labels."""

    train: Tensor
    labels: Tensor
    test: Tensor
    truth: Tensor
    classes: int


def measure(settings: Settings, data: Dataset) -> xr.Dataset:
    """Return what codes say of images and of classes, and how many bits differ in theory.

    Args:
        settings: of the networks that learn and of the untrained ones.
        data: its first images are taken, fewer than the settings say where it has fewer.

    Returns:
        a Dataset along width, network and epoch; `…_learnt` along the number of images that were
        learnt, `…_other` along the number of batches that batch norm's statistics run over; and
        along sigma_b2, sigma_w2, network and level of untrained networks.

    Raises:
        ValueError: training images of one class only.
    """
    task = _task(settings, data)
    seeds = [settings.seed + number for number in range(settings.networks)]
    shown = settings.shown_width
    runs = [[_learn(settings, task, width, seed) for seed in seeds] for width in settings.widths]
    learnt = sorted({min(count, len(task.train)) for count in settings.learnt})
    fewer = [[_learn(settings, task, shown, seed, images=count)[-1:] for seed in seeds]
             for count in learnt]  # fmt: skip
    other = [[_learn(settings, task, shown, seed, statistics=count) for seed in seeds]
             for count in settings.other_statistics]  # fmt: skip
    one = {"units": "1"}
    variables: dict[str, Any] = {}
    for number, (name, (dim, _)) in enumerate(KINDS.items()):
        values, small, more = (_picked(nested, number) for nested in (runs, fewer, other))
        variables[name] = (("width", "network", "epoch", dim), values, one)
        variables[f"{name}_learnt"] = (("learnt", "network", dim), small[:, :, 0], one)
        variables[f"{name}_other"] = (("statistics", "network", "epoch", dim), more, one)
    variables |= _untrained(settings, task, seeds)
    coordinates = {
        "width": list(settings.widths), "network": seeds, "epoch": list(settings.epochs),
        "learnt": learnt, "statistics": list(settings.other_statistics),
        "images": list(SETS), "reader": list(READERS), "agreement": list(AGREEMENTS),
        "sigma_b2": _biases(settings), "sigma_w2": list(settings.variances),
        "level": np.arange(1, settings.untrained_depth + 1),
    }  # fmt: skip
    return xr.Dataset(variables, coordinates, {
        "learnt_images": len(task.train), "test_images": len(task.test), "shown_width": shown,
        "depth": settings.depth, "statistics": settings.statistics,
    })  # fmt: skip


def codes_of(network: nn.Module, images: Tensor) -> Array:
    """Return the code of every image, (n, bits): whether each unit of each stage is above 0."""
    inside = look(network, images, batch_size=500)
    return np.concatenate([(values > 0).flatten(1).numpy() for _, values in inside], axis=1)


def redundancy(codes: Array) -> float:
    """Return the share of images, (n, bits), without a code of their own: 1 − codes/images.

    0 where all codes differ, (n − 1)/n where all are the same. It grows with n.
    """
    return 1 - len(np.unique(np.packbits(codes, axis=1), axis=0)) / len(codes)


def bit_differences(codes: Array) -> Array:
    """Return for every bit, (bits,), the share of pairs of images in which it differs."""
    share = codes.mean(0)
    return 2 * share * (1 - share) * len(codes) / (len(codes) - 1)


def expected_difference(covariance: Array) -> float:
    """Return arccos(c)/π, the mean over pairs of images, of the covariance of what enters a unit.

    Args:
        covariance: (n, n), over draws of the unit's weights and bias.
    """
    own = np.diagonal(covariance)
    size = np.sqrt(own[:, None] * own)
    # by both legs: near parallel images arccos would lose half of the digits
    leg = np.sqrt(np.maximum((size - covariance) * (size + covariance), 0.0))
    np.fill_diagonal(leg, 0.0)
    count = len(covariance)
    return float(np.arctan2(leg, covariance).sum() / (math.pi * count * (count - 1)))


def nearest(codes: Array, labels: Array, others: Array, neighbours: int) -> Array:
    """Return the class of most of the nearest codes by Hamming distance, for every other code.

    Of bits, the Euclidean distance is its root, and comes by matrix products.
    """
    count = min(neighbours, len(codes))
    model = KNeighborsClassifier(count, algorithm="brute").fit(codes.astype(np.float32), labels)
    return np.asarray(model.predict(others.astype(np.float32)))


def cluster_agreement(clusters: Array, labels: Array) -> list[float]:
    """Return how well clusters (n,) agree with classes (n,): purity, one to one, NMI.

    Purity gives every cluster the class of most of its images, several clusters one class if need
    be, as published. One to one gives every class one cluster at most, the best way.
    """
    table = np.zeros((clusters.max() + 1, labels.max() + 1))
    np.add.at(table, (clusters, labels), 1)
    best = table[linear_sum_assignment(table, maximize=True)].sum()
    mutual = normalized_mutual_info_score(labels, clusters)
    return [table.max(1).sum() / len(labels), best / len(labels), float(mutual)]


def regime(redundant: float, read: float, best: float) -> str:
    """Return our name for what codes of test images express; the published bounds are not known.

    Args:
        redundant: redundancy of the test images.
        read: accuracy of k-NN on the codes.
        best: the largest one of all widths and times.
    """
    if redundant > SHARED:
        return REGIMES[0]
    return REGIMES[2] if redundant < OWN and read > best - NEAR else REGIMES[1]


def scores(result: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return what codes of untrained networks say of "will it train", (sigma_w2, level)."""
    own = result.isel(sigma_b2=-1, drop=True).mean("network")
    return {"distinct codes": 1 - own["alike"], "k-NN on codes": own["read"]}


def foretell(network: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> dict[str, float]:
    """Return what neural codes say of "will it train" about one untrained model; higher is better.

    Args:
        network: any module; it is left as it was.
        images: (n, *shape), n >= 4.
        labels: (n,), whole numbers.
        seed: of the model's random numbers, and of which half of the images is known.

    Returns:
        the scores of `FORETELLS`, NaN where the model overflows. `k-NN on codes`: how often the
        nearest codes of one half of the images name the class of one of the other half, at the last
        stage in front of the head.
    """
    last = features(network, images, seed=seed)[-1]
    if not last.isfinite().all():
        return dict.fromkeys(FORETELLS, math.nan)
    order = torch.randperm(len(last), generator=random_numbers("foretell, codes", seed))
    codes, classes = (last > 0).cpu()[order].numpy(), labels.cpu()[order].numpy()
    half = len(codes) // 2
    read = nearest(codes[:half], classes[:half], codes[half:], Settings.neighbours)
    return {"k-NN on codes": float((read == classes[half:]).mean())}


# --- measuring


def _task(settings: Settings, data: Dataset) -> _Task:
    images, labels = data.examples("train", settings.train_images)
    test, truth = data.examples("test", settings.test_images)
    if len(labels.unique()) < 2:
        raise ValueError(
            f"codes are read by classifiers, which need training images of two classes; the "
            f"{len(labels)} of {data.name} are all of one: take more train_images"
        )
    return _Task(images, labels, test, truth, len(data.classes))


def _biases(settings: Settings) -> list[float]:
    return sorted({0.0, settings.sigma_b2})


def _picked(nested: Any, number: int) -> Array:
    """The arrays at one place of the tuples in nested lists."""
    if isinstance(nested, tuple):
        return np.asarray(nested[number])
    return np.stack([_picked(each, number) for each in nested])


def _network(task: _Task, width: int, depth: int, statistics: int, seed: int) -> Network:
    """ReLU layers as He et al. initialise them, and a linear layer to the classes."""
    with torch.random.fork_rng(devices=[]):  # which layers draw from before initialisation
        layers: list[nn.Module] = []
        for number in range(depth):
            inside = task.train[0].numel() if number == 0 else width
            before = [nn.Flatten()] if number == 0 else []
            norm = [nn.BatchNorm1d(width, momentum=1 / statistics)] if statistics else []
            layers.append(nn.Sequential(*before, nn.Linear(inside, width), *norm, nn.ReLU()))
        head = nn.Linear(width, task.classes)
    network = Network(nn.Sequential(*layers), head, image_shape=task.train.shape[1:])
    initialise(network, sigma_w2=2.0, sigma_b2=0.0, seed=seed)
    return network


def _learn(
    settings: Settings,
    task: _Task,
    width: int,
    seed: int,
    *,
    images: int | None = None,
    statistics: int | None = None,
) -> list[tuple[list[float], ...]]:
    """What the codes of one network are like after every number of epochs, by `KINDS`; NaN after
    it has diverged. Of fewer images it takes as many steps as of all."""
    statistics = settings.statistics if statistics is None else statistics
    network = _network(task, width, settings.depth, statistics, seed)
    count = len(task.train)
    steps = [epoch * (count // min(settings.batch_size, count)) for epoch in settings.epochs]
    found: list[tuple[list[float], ...]] = []

    def observe(step: int, network: nn.Module) -> None:
        found.append(_judged(settings, task, network, seed))

    train(network.train(), (task.train[:images], task.labels[:images]),
          optimiser=torch.optim.Adam(network.parameters(), lr=settings.learning_rate),
          steps=steps[-1], batch_size=settings.batch_size, seed=seed,
          observers=[at(steps, observe)])  # fmt: skip
    lost = tuple([math.nan] * len(names) for _, names in KINDS.values())
    return found + [lost] * (len(steps) - len(found))


def _judged(
    settings: Settings, task: _Task, network: nn.Module, seed: int
) -> tuple[list[float], ...]:
    """The numbers of `KINDS` of one network as it is."""
    codes, others = codes_of(network, task.train), codes_of(network, task.test)
    sets = (codes, others, codes[: len(others)])
    random = np.random.default_rng(seed)
    chance = [redundancy(random.permuted(each, axis=0)) for each in sets]
    labels, truth = task.labels.numpy(), task.truth.numpy()
    ((_, logits),) = look(network, task.test, ["head"], batch_size=500)
    guesses = [logits.argmax(1).numpy(), nearest(codes, labels, others, settings.neighbours)]
    bits = codes.astype(np.float32), others.astype(np.float32)
    groups = KMeans(min(task.classes, len(others)), n_init=RESTARTS, random_state=seed)
    # one thread: sums in another order would move images that lie between clusters
    with warnings.catch_warnings(), threadpool_limits(1):
        warnings.simplefilter("ignore", ConvergenceWarning)  # fewer codes than clusters; 100 steps
        reader = LogisticRegression(max_iter=ITERATIONS).fit(bits[0], labels)
        clusters = groups.fit_predict(bits[1])
    guesses.append(reader.predict(bits[1]))
    return (
        [redundancy(each) for each in sets],
        chance,
        [float((guess == truth).mean()) for guess in guesses],
        cluster_agreement(clusters, truth),
    )


def _untrained(settings: Settings, task: _Task, seeds: Sequence[int]) -> dict[str, Any]:
    """The variables of untrained networks: how many bits differ, are expected to by the layer below
    and by theory, and what codes and our cascade make of the images."""
    axes = (_biases(settings), settings.variances, seeds)
    found = np.full((len(UNTRAINED), *map(len, axes), settings.untrained_depth), math.nan)
    theory = np.full((len(axes[0]), len(axes[1]), settings.untrained_depth), math.nan)
    count = min(settings.fitted, len(task.train), len(task.test))
    pixels = task.test[:count].double().numpy()
    for place in np.ndindex(*map(len, axes)):
        sigma_b2, sigma_w2, seed = (axis[i] for axis, i in zip(axes, place, strict=True))
        variances: Any = {"sigma_w2": sigma_w2, "sigma_b2": sigma_b2}
        found[(slice(None), *place)] = _drawn(settings, task, count, variances, int(seed))
        if place[-1] == 0:
            sizes: Any = {"depth": settings.untrained_depth, "activation": settings.activation}
            levels = list(mlp_kernels(pixels, ntk=False, **variances, **sizes))
            theory[place[:-1]] = [expected_difference(level.nngp) for level in levels[:-1]]
    dims, one = ("sigma_b2", "sigma_w2", "network", "level"), {"units": "1"}
    variables: dict[str, Any] = {
        name: (dims, values, one) for name, values in zip(UNTRAINED, found, strict=True)
    }
    return variables | {"theory": (("sigma_b2", "sigma_w2", "level"), theory, one)}


def _drawn(
    settings: Settings, task: _Task, count: int, variances: dict[str, Any], seed: int
) -> Array:
    """The rows of `UNTRAINED` by level, of one network."""
    sizes: Any = {"depth": settings.untrained_depth, "width": settings.untrained_width}
    with torch.random.fork_rng(devices=[]):  # which layers draw from before initialisation
        network = mlp(task.train.shape[1:], activation=settings.activation, **sizes)
    initialise(network, **variances, seed=seed)
    fitted, test = task.train[:count], task.test[:count]
    labels, truth = task.labels[:count].numpy(), task.truth[:count].numpy()
    inside = [values for _, values in look(network, torch.cat([fitted, test]), batch_size=500)]
    rows = []
    for under, over in zip([test, *(values[count:] for values in inside)], inside, strict=False):
        codes = (over > 0).numpy()
        flat = under.flatten(1).double().numpy()
        covariance = variances["sigma_w2"] * flat @ flat.T / flat.shape[1] + variances["sigma_b2"]
        bits = bit_differences(codes[count:])
        read = nearest(codes[:count], labels, codes[count:], settings.neighbours)
        rows.append((
            bits.mean(), expected_difference(covariance), bits.std(ddof=1) / math.sqrt(len(bits)),
            redundancy(codes[count:]), (read == truth).mean(),
        ))  # fmt: skip
    back = Cascade.for_network(network, fitted[:1]).fit(fitted).reconstruct(test)
    kept = r_squared(test, back, mean=fitted.mean(0))
    return np.vstack([np.transpose(rows), kept.numpy()])


# --- drawing and saying


def figure(result: xr.Dataset) -> Figure:
    """Draw codes by width and time, and the bits of untrained networks beside theory."""
    with paper_style():
        drawn = Figure(figsize=(10.5, 6.2), layout="constrained")
        axes: Any = drawn.subplots(2, 3)
        _draw_widths(axes[0, 0], axes[0, 1], result.isel(epoch=-1))
        _draw_chart(axes[0, 2], result)
        _draw_time(axes[1, 0], result)
        _draw_untrained(axes[1, 1], axes[1, 2], result)
    return drawn


def takeaway(result: xr.Dataset) -> str:
    """Return what the figure shows in a few sentences, with this run's numbers."""
    width = result.attrs["shown_width"]
    one = result.sel(width=width).mean("network")
    course = ", ".join(
        f"{float(one['redundancy'].sel(images='train', epoch=epoch)):.1%} after {epoch}"
        for epoch in result["epoch"].values
    )
    end = one.isel(epoch=-1).sel(images="test")
    return (
        f"**In short.** Of the training images, these share a code at width {width}: {course} "
        f"epochs. Of the test images {float(end['redundancy']):.1%} do at the end; if every bit "
        f"were drawn on its own, {float(end['shuffled']):.1%} would. In untrained layers "
        f"{_within(result):.0%} of the mean bit differences lie within two standard errors of "
        "arccos(c)/π."
    )


def findings(result: xr.Dataset) -> str:
    """Return what a run says, as Markdown: its own numbers, and the published ones apart."""
    about, ends = result.attrs, result.isel(epoch=-1)
    norm = _norm(about["statistics"])
    width, best = about["shown_width"], _best(result)
    at_width = result.sel(width=width)
    times = {str(n): _cells(at_width.sel(epoch=n)) for n in result["epoch"].values}
    widths = {f"{n}, {_regime(ends.sel(width=n), best)}": _cells(ends.sel(width=n))
              for n in result["width"].values}  # fmt: skip
    norms = {_norm(n): _course_of(result.sel(statistics=n)["redundancy_other"])
             for n in result["statistics"].values}  # fmt: skip
    fewer = {f"{n:,}": _cells(result.sel(learnt=n), "_learnt") for n in result["learnt"].values}
    return "\n\n".join([
        f"**This run.** {data_name(result)}: {about['learnt_images']:,} training and "
        f"{about['test_images']:,} test images; hidden layers: {about['depth']}, {norm}; "
        f"mean ± standard deviation over {result.sizes['network']} networks. Redundancy is the "
        "share of images without a code of their own.",
        f"**Time**, at width {width}. Shuffled: every bit permuted over the images on its own.",
        _table(f"epochs | {HEAD}", times),
        f"**Batch norm's statistics** lag behind the weights. Redundancy of the training images at "
        f"width {width}, after so many epochs:",
        _table("running over | " + " | ".join(map(str, result["epoch"].values)), norms),
        "**Width**, at the end:",
        _table(f"width | {HEAD}", widths),
        f"**Data**, at width {width}, with as many steps on fewer images:",
        _table(f"images learnt | {HEAD}", fewer),
        f"**Bits that differ in untrained layers.** {_within(result):.0%} of the "
        f"{result['differ'].size} means over pairs lie within two standard errors of arccos(c)/π, "
        "c as the layer below has it. At infinite width theory alone says c. Without biases:",
        _bits_table(result),
        f"**Untrained networks**, σ_b² = {float(result['sigma_b2'][-1]):g}, at level "
        f"{result.sizes['level']}, mean over networks:",
        _untrained_table(result),
        _naswot(result),
        "**Against the paper:** its numbers are of 48,000 training images and other sizes, and "
        "redundancy grows with the number of images, so none is compared. There, redundancy at "
        "width 40 is lowest before training, largest after one epoch, and then falls. "
        + _course(result),
    ])  # fmt: skip


HEAD = (
    "redundancy: train | test | train, as many images as test | test, shuffled "
    "| accuracy: network | k-NN | logistic regression | k-means: purity, one to one, NMI"
)


def _cells(one: xr.Dataset, suffix: str = "") -> list[str]:
    """Redundancy, by chance too, the readers' accuracy and how k-means agrees with classes."""
    shares, chance = one[f"redundancy{suffix}"], one[f"shuffled{suffix}"].sel(images="test")
    read, groups = one[f"accuracy{suffix}"], one[f"clusters{suffix}"].mean("network")
    return [
        *(_spelt(shares.sel(images=name), 3) for name in SETS), f"{float(chance.mean()):.3f}",
        *(_spelt(read.sel(reader=reader)) for reader in READERS),
        ", ".join(f"{value:.2f}" for value in groups.values),
    ]  # fmt: skip


def _norm(statistics: int) -> str:
    return f"batch norm over {statistics} batches" if statistics else "no batch norm"


def _course_of(shares: xr.DataArray) -> list[str]:
    return [_spelt(shares.sel(images="train", epoch=epoch), 3) for epoch in shares["epoch"].values]


def _table(head: str, rows: dict[str, list[str]]) -> str:
    lines = (f"| {name} | {' | '.join(cells)} |" for name, cells in rows.items())
    return "\n".join([f"| {head} |", "|---" * (head.count("|") + 1) + "|", *lines])


def _spelt(values: xr.DataArray, digits: int = 2) -> str:
    """Mean ± standard deviation over networks."""
    spread = f" ± {float(values.std('network', ddof=1)):.{digits}f}" if values.size > 1 else ""
    return f"{float(values.mean()):.{digits}f}{spread}"


def _within(result: xr.Dataset) -> float:
    """The share of bit differences within two standard errors of what the layer below says."""
    apart = np.abs(result["differ"] - result["below"])
    return float((apart <= 2 * result["error"]).mean())


def _best(result: xr.Dataset) -> float:
    return float(result["accuracy"].sel(reader="k-NN").mean("network").max())


def _regime(one: xr.Dataset, best: float) -> str:
    redundant = float(one["redundancy"].sel(images="test").mean())
    return regime(redundant, float(one["accuracy"].sel(reader="k-NN").mean()), best)


def _course(result: xr.Dataset) -> str:
    """Whether redundancy runs as published at the width that is shown."""
    shown = result["redundancy"].sel(width=result.attrs["shown_width"], images="train")
    means = shown.mean("network").values
    if len(means) < 3 or result["epoch"].values[:2].tolist() != [0, 1]:
        return "This run has not looked at these times."
    return (
        f"Here it is {'' if means[0] == means.min() else 'not '}lowest before training, "
        f"{'' if means[1] == means.max() else 'not '}largest after one epoch, and "
        f"{'falls' if means[-1] < means[1] else 'does not fall'} from there to the end."
    )


def _bits_table(result: xr.Dataset) -> str:
    last, free = result.sizes["level"], result.isel(sigma_b2=0)
    levels = sorted({level for level in (1, 2, 5, 10) if level < last} | {last})
    rows = {}
    for sigma_w2 in result["sigma_w2"].values:
        places = [free.sel(sigma_w2=sigma_w2, level=level) for level in levels]
        rows[f"{sigma_w2:g}"] = [f"{_spelt(p['differ'], 3)}, {p['theory']:.3f}" for p in places]
    return _table("σ_w² | " + " | ".join(f"level {n}: drawn, theory" for n in levels), rows)


def _untrained_table(result: xr.Dataset) -> str:
    own = result.isel(sigma_b2=-1).mean("network")
    rows = {}
    for sigma_w2 in result["sigma_w2"].values:
        one = own.sel(sigma_w2=sigma_w2)
        end = {name: float(one[name][-1]) for name in UNTRAINED}
        shared = collapse_depth(1 - one["alike"].values, threshold=SHARED)
        lost = collapse_depth(one["r_squared"].values)
        rows[f"{sigma_w2:g}"] = [
            f"{end['differ']:.3f}", f"{1 - end['alike']:.0%}", f"{end['read']:.0%}",
            f"{end['r_squared']:z.2f}",
            *(str(d) if d <= result.sizes["level"] else "never" for d in (shared, lost)),
        ]  # fmt: skip
    head = "σ_w² | bits that differ | distinct codes | k-NN on codes | R² of the image "
    head += f"| most images share a code from level | R² below {LOST:g} from level"
    return _table(head, rows)


def _naswot(result: xr.Dataset) -> str:
    """What NASWOT, which rewards codes that differ, cannot see."""
    own = result.isel(sigma_b2=-1, level=-1).mean("network")
    far, best = (own.isel(sigma_w2=int(own[name].values.argmax())) for name in ("differ", "read"))
    return (
        f"Codes differ most at σ_w² = {far['sigma_w2']:g} (k-NN {float(far['read']):.0%}) and are "
        f"read best at {best['sigma_w2']:g} ({float(best['read']):.0%}). NASWOT is the logarithm "
        "of the determinant of their agreement: it grows with the difference, whatever the class."
    )


def _line(axis: Any, dim: str, values: xr.DataArray, **look: Any) -> None:
    """Mean over networks with the standard deviation."""
    axis.errorbar(values[dim], values.mean("network"), values.std("network"), capsize=1.5,
                  **{"marker": ".", **look})  # fmt: skip


def _draw_widths(left: Any, right: Any, end: xr.Dataset) -> None:
    for low, high, shade in ((SHARED, 1.0, "0.85"), (OWN, SHARED, "0.93")):
        left.axhspan(low, high, color=shade, lw=0)
    for name, colour, style in zip(SETS, (BLUE, ORANGE, BLUE), ("-", "-", "--"), strict=True):
        values = end["redundancy"].sel(images=name)
        _line(left, "width", values, color=colour, ls=style, label=name)
    chance = end["shuffled"].sel(images="test").mean("network")
    left.plot(end["width"], chance, ":", color="0.3", label="test, bits shuffled")
    left.set_yscale("symlog", linthresh=1e-3)
    left.set(ylim=(0, 1), ylabel="redundancy, at the end")
    left.set_title("a  Images without a code of their own")
    for reader, colour in zip(READERS, ("0.3", BLUE, GREEN), strict=True):
        _line(right, "width", end["accuracy"].sel(reader=reader), color=colour, label=reader)
    for name, style in zip(AGREEMENTS[:2], ("-", "--"), strict=True):
        values = end["clusters"].sel(agreement=name)
        _line(right, "width", values, color=ORANGE, ls=style, label=f"k-means, {name}")
    right.set(ylim=(0, 1), title="b  Classes read from codes")
    right.set_ylabel("accuracy on test images, at the end")
    for axis in (left, right):
        axis.set(xscale="log", xlabel="width")
        axis.set_xticks(end["width"].values, [str(width) for width in end["width"].values])
        axis.minorticks_off()
        axis.legend()


def _draw_chart(axis: Any, result: xr.Dataset) -> None:
    """The regime at every width and time, with redundancy and k-NN in the cells."""
    shares = result["redundancy"].sel(images="test").mean("network").transpose("width", "epoch")
    read = result["accuracy"].sel(reader="k-NN").mean("network").transpose("width", "epoch").values
    found = np.zeros(shares.shape, int)
    for place in np.ndindex(shares.shape):
        share, right = float(shares[place]), float(read[place])
        found[place] = REGIMES.index(regime(share, right, _best(result)))
        axis.text(place[1], place[0], f"{share:.3f}\n{right:.2f}", ha="center", va="center",
                  fontsize=6, color="black" if found[place] == 2 else "white")  # fmt: skip
    picture = axis.imshow(found, cmap=SEQUENTIAL, vmin=-1, vmax=3, origin="lower", aspect="auto")
    for number, name in enumerate(REGIMES):
        axis.plot([], [], "s", color=picture.to_rgba(number), label=name)
    axis.set_xticks(range(len(shares["epoch"])), shares["epoch"].values)
    axis.set_yticks(range(len(shares["width"])), shares["width"].values)
    axis.set(xlabel="epochs", ylabel="width", title="c  Redundancy above k-NN's accuracy")
    axis.legend(loc="upper center", bbox_to_anchor=(0.5, -0.16), fontsize=6, ncols=3,
                handletextpad=0.2, columnspacing=0.8)  # fmt: skip


def _draw_time(axis: Any, result: xr.Dataset) -> None:
    one = result.sel(width=result.attrs["shown_width"], images="train")
    own = _norm(result.attrs["statistics"])
    _line(axis, "epoch", one["redundancy"], color=BLUE, label=own)
    for number, count in enumerate(one["statistics"].values, start=1):
        values = one["redundancy_other"].sel(statistics=count)
        _line(axis, "epoch", values, color=PALETTE[number % len(PALETTE)], label=_norm(count))
    chance = one["shuffled"].mean("network")
    axis.plot(one["epoch"], chance, ":", color="0.3", label="that, bits shuffled")
    axis.set(xlabel="epochs", xticks=one["epoch"], title=f"d  Width {int(one['width'])}, learning")
    axis.set_ylim(bottom=0)
    axis.set_ylabel("redundancy of the training images")
    axis.legend(fontsize=6, loc="upper right")


def _draw_untrained(left: Any, right: Any, result: xr.Dataset) -> None:
    free, own = result.isel(sigma_b2=0), result.isel(sigma_b2=-1).mean("network")
    level = result["level"]
    curves = (("-", own["read"]), ("--", own["r_squared"].clip(0)), (":", 1 - own["alike"]))
    for number, sigma_w2 in enumerate(result["sigma_w2"].values):
        one, colour = free.sel(sigma_w2=sigma_w2), PALETTE[number % len(PALETTE)]
        left.plot(level, one["theory"], color=colour, label=f"{sigma_w2:g}")
        _line(left, "level", one["differ"], color=colour, ls="none", marker="o", ms=3)
        for style, values in curves:
            right.plot(level, values.sel(sigma_w2=sigma_w2), style, color=colour)
    left.plot([], [], color="0.4", label="arccos(c)/π")
    left.plot([], [], "o", ms=3, color="0.4", label="drawn")
    left.margins(y=0.25)
    left.set(title="e  Bits that differ, no biases, by $\\sigma_w^2$")
    left.set_ylabel("share of bits, mean over pairs")
    names = ("k-NN on codes", "R² of the image", "distinct codes")
    for (style, _), name in zip(curves, names, strict=True):
        right.plot([], [], style, color="0.4", label=name)
    right.set(ylim=(0, 1.02), ylabel="accuracy, R², share of images")
    right.set_title(f"f  Untrained, $\\sigma_b^2$ = {float(own['sigma_b2']):g}")
    for axis in (left, right):
        axis.set_xlabel("level")
        axis.xaxis.get_major_locator().set_params(integer=True)
    left.legend(ncols=3, loc="upper left", fontsize=6)
    right.legend(loc="lower left")
