"""Few-shot: what each level of a network knows of classes that it has never learnt.

A network learns half of the classes, and is frozen. An *episode* then asks it to tell a few of the
others apart, from one or a few labelled images of each: every query goes to the nearest mean of a
class's images, in features of one level less their mean over images of the learnt classes, at unit
length. Level 0 is the pixels. R² of the images by level stands beside it.

Source: Ramalho, Sousbie & Peluchetti, arXiv:1910.01319; nearest centroids of centred features: Wang
et al., arXiv:1911.04623; the attack in one step: Wong et al., arXiv:2001.03994. The published
networks are ImageNet's and their numbers are not compared.
"""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy import stats
from torch import Tensor, nn

from paperlib.activations import features, look
from paperlib.cascade import Cascade
from paperlib.core.checks import LARGEST_SEED
from paperlib.core.provenance import data_name
from paperlib.core.seeds import random_numbers
from paperlib.core.settings import Parameters, option
from paperlib.datasets import Dataset
from paperlib.measures import LOST, collapse_depth, r_squared
from paperlib.networks import IMAGENET_DEVIATION, IMAGENET_MEAN, Network, Normalise, initialise, mlp
from paperlib.networks.weights import imagenet_state, read_state, take
from paperlib.plots import BLUE, GREEN, ORANGE, PALETTE, paper_style
from paperlib.training import Rule, backpropagation, train

CODE_VERSION = 1
FORETELLS = ("few-shot accuracy",)
ARCHITECTURES = ("cnn", "mlp")
LEARNT = ("untrained", "supervised", "adversarial", "shuffled labels")
CLASSES = ("novel", "known")
COLOURS = dict(zip(LEARNT, ("0.45", BLUE, ORANGE, PALETTE[3]), strict=True))
STAGES = {"cnn": 3, "mlp": 8}
WIDTH = 150  # of the MLP
ATTACK = 1.25  # the step of the attack, in ε
SECOND = 2  # the level at which ways of learning are compared
PART = 100  # images that pass a given model at a time
ROUNDING = 1e-9  # of similarities of unit vectors, below which two are a tie


@dataclass(frozen=True, kw_only=True)
class Settings(Parameters):
    """The parameters of notebook 19: of networks that learn some classes, and of episodes with the
    others."""

    architectures: tuple[str, ...] = option(("cnn",), choices=ARCHITECTURES)
    known: int = option(5, low=2, high=1000)  # classes that are learnt; the others are novel
    splits: int = option(3, low=1, high=100)  # of the classes into both
    networks: int = option(1, low=1, high=100)  # of each split; no two splits share a seed
    steps: int = option(200, low=0)
    learning_rate: float = option(0.02, above=0.0)  # of SGD with momentum 0.9
    batch_size: int = option(64, low=1)
    epsilon: float = option(0.1, above=0.0, high=1.0)  # of the attack, for pixels from 0 to 1
    ways: int = option(5, low=2, high=1000)
    shots: tuple[int, ...] = option((1, 5), low=1, high=1000)
    queries: int = option(15, low=1, high=1000)
    episodes: int = option(300, low=1, high=100_000)
    variances: tuple[float, ...] = option((0.6, 1.1, 1.76, 3.0), above=0.0)  # untrained MLPs, σ_w²
    sigma_b2: float = option(0.05, low=0.0)
    untrained_depth: int = option(20, low=1, high=1000)
    untrained_width: int = option(150, low=1, high=10_000)
    resolution: float = option(1e-3, low=0.0)  # λ, variance of noise in their features
    model: str = ""  # of torchvision, to be read as well
    weights: str = "random"
    fitted: int = option(500, low=2)  # images of learnt classes: their mean, and the cascade
    train_images: int = option(6000, low=2)
    test_images: int = option(2000, low=2)  # from which episodes are drawn
    data_seed: int = option(0, low=0, high=LARGEST_SEED)
    seed: int = option(0, low=0, high=LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "shots", tuple(sorted(set(self.shots))))
        object.__setattr__(self, "variances", tuple(sorted(set(self.variances))))
        object.__setattr__(self, "architectures", tuple(dict.fromkeys(self.architectures)))
        if self.weights != "random" and not self.model:
            raise ValueError(
                "weights need a model, the name of one of torchvision's networks, that takes them; "
                f"got model {self.model!r}, weights {self.weights!r}"
            )


class Split(NamedTuple):
    """Classes that are learnt and classes that are not, and images of both.

    Attributes:
        known, novel: numbers of classes, disjoint.
        images, labels: of the known classes, from the training images; labels count from 0.
        pools: by CLASSES, images of the test split and their labels, counted from 0.
        drawn: by CLASSES, episodes (episodes, ways, shots + queries) of places in the pool.
    """

    known: list[int]
    novel: list[int]
    images: Tensor
    labels: Tensor
    pools: dict[str, tuple[Tensor, Tensor]]
    drawn: dict[str, Tensor]


def measure(settings: Settings, data: Dataset) -> xr.Dataset:
    """Return how well each level tells novel classes apart, and R² of their images.

    Args:
        settings: of the trainings and the episodes.
        data: networks learn its training images, episodes are of its test images.

    Returns:
        a Dataset along architecture, learnt (how the network has learnt), split, network, classes
        (novel, known), shot and level (0: the pixels; NaN beyond a network's last one); along
        sigma_w2 and depth of untrained MLPs; and along stage of a model of the user's, if any.

    Raises:
        ValueError: too few classes, or too few images of one.
    """
    splits = list(split_classes(settings, data))
    seeds = [settings.seed + number for number in range(settings.networks)]
    kinds, shots = settings.architectures, settings.shots
    shape = (len(kinds), len(LEARNT), len(splits), len(seeds))
    levels = 1 + max(STAGES[kind] for kind in kinds)
    found = np.full((*shape, len(CLASSES), len(shots), levels), math.nan)
    error, kept = np.full_like(found, math.nan), np.full((*shape, levels), math.nan)
    right = np.full(shape, math.nan)
    for place in np.ndindex(shape):
        kind, how = kinds[place[0]], LEARNT[place[1]]
        split, seed = splits[place[2]], seeds[place[3]] + settings.networks * place[2]
        network = _learnt(settings, split, kind, how, seed)
        for row, name in enumerate(CLASSES):
            features = _features(network, split, name, settings.fitted)
            pairs = [few_shot(each, split, name, shots) for each in features]
            found[(*place, row)][:, : len(pairs)] = np.transpose([mean for mean, _ in pairs])
            error[(*place, row)][:, : len(pairs)] = np.transpose([spread for _, spread in pairs])
        remains = _kept(network, split, settings.fitted)
        kept[place][: len(remains)] = remains
        right[place] = _accuracy(network, split)
    of, one = ("architecture", "learnt", "split", "network"), {"units": "1"}
    variables: dict[str, Any] = {
        "accuracy": ((*of, "classes", "shot", "level"), found, one),
        "error": ((*of, "classes", "shot", "level"), error, one),
        "r_squared": ((*of, "level"), kept, one),
        "known_accuracy": (of, right, one),
        "known": (("split", "number"), [split.known for split in splits], one),
    }
    variables |= _phases(settings, splits[0], seeds) | _given(settings, splits)
    return xr.Dataset(variables, {
        "architecture": list(kinds), "learnt": list(LEARNT), "split": np.arange(len(splits)),
        "network": seeds, "classes": list(CLASSES), "shot": list(shots),
        "level": np.arange(levels), "sigma_w2": list(settings.variances),
        "depth": np.arange(1, settings.untrained_depth + 1),
    }, {"ways": settings.ways, "episodes": settings.episodes, "steps": settings.steps,
        "epsilon": settings.epsilon, "model": settings.model})  # fmt: skip


def split_classes(settings: Settings, data: Dataset) -> Iterator[Split]:
    """Yield the splits of the classes: the first ones against the last ones, then random ones.

    Raises:
        ValueError: fewer classes or images than the episodes take.
    """
    count, known = len(data.classes), settings.known
    if count - known < settings.ways or known < settings.ways:
        raise ValueError(
            f"{settings.ways} ways need as many known and as many novel classes; {data.name} has "
            f"{count}, of which known = {known} are learnt: take fewer ways, or another number"
        )
    for number in range(settings.splits):
        order = torch.arange(count)
        if number:
            random = random_numbers(f"few-shot split {number}", settings.data_seed)
            order = torch.randperm(count, generator=random)
        learnt, others = sorted(order[:known].tolist()), sorted(order[known:].tolist())
        images, labels = _of(data, "train", settings.train_images, learnt)
        pools = {name: _of(data, "test", settings.test_images, classes)
                 for name, classes in zip(CLASSES, (others, learnt), strict=True)}  # fmt: skip
        drawn = {name: draw_episodes(pool[1], settings, number) for name, pool in pools.items()}
        assert not set(learnt) & set(others), "a class is known and novel"
        for places in drawn.values():
            met = places.flatten(1).sort(dim=1).values
            assert (met.diff(dim=1) > 0).all(), "an image is support and query"
        yield Split(learnt, others, images, labels, pools, drawn)


def draw_episodes(labels: Tensor, settings: Settings, number: int) -> Tensor:
    """Return episodes as places of images, (episodes, ways, largest shot + queries): the classes
    are drawn, then as many different images of each, so that no query is a support.

    Args:
        labels: (n,), counted from 0.
        settings: how many.
        number: of the split; the same episodes are drawn for every network and level.
    """
    random = random_numbers(f"few-shot episodes {number}", settings.data_seed)
    wanted = settings.shots[-1] + settings.queries
    places = [(labels == each).nonzero()[:, 0] for each in range(int(labels.max()) + 1)]
    if min(map(len, places)) < wanted:
        raise ValueError(
            f"shots and queries take {wanted} images of every class, and one has only "
            f"{min(map(len, places))} test images: raise test_images, or take fewer"
        )
    drawn = []
    for _ in range(settings.episodes):
        chosen = torch.randperm(len(places), generator=random)[: settings.ways]
        drawn.append(torch.stack([
            places[each][torch.randperm(len(places[each]), generator=random)[:wanted]]
            for each in chosen.tolist()
        ]))  # fmt: skip
    return torch.stack(drawn)


def few_shot(
    features: Tensor, split: Split, name: str, shots: Sequence[int]
) -> tuple[list[float], list[float]]:
    """Return the accuracy by number of shots, and its standard error over episodes.

    Args:
        features: (n, features) of the pool's images.
        split: its episodes.
        name: of the classes.
        shots: supports of every class; queries are the same for all.
    """
    drawn = split.drawn[name]
    found = [episode_accuracy(features, drawn, shot, max(shots)) for shot in shots]
    spread = [float(each.std(correction=1)) / math.sqrt(len(each)) if len(each) > 1 else math.nan
              for each in found]  # fmt: skip
    return [float(each.mean()) for each in found], spread


def episode_accuracy(features: Tensor, drawn: Tensor, shots: int, first: int) -> Tensor:
    """Return the accuracy of nearest centroids in every episode, (episodes,).

    Of classes that are equally near one is taken at random: a query counts by that chance.

    Args:
        features: (n, features), centred and at unit length where that is wanted.
        drawn: (episodes, ways, images), places of images.
        shots: how many of the images are supports, from the first on.
        first: place of the first query.
    """
    gram = features.double() @ features.double().T
    supports, queries = drawn[..., :shots], drawn[..., first:]
    episodes, ways, asked = queries.shape
    # |q − c|² = |q|² − 2 q·c + |c|², of which |q|² is the same for all classes
    own = gram[supports[..., :, None], supports[..., None, :]].mean((-1, -2))
    across = gram[queries.reshape(episodes, -1, 1, 1), supports[:, None]].mean(-1)
    near = 2 * across - own[:, None]
    best = near >= near.amax(-1, keepdim=True) - ROUNDING
    truth = torch.arange(ways).repeat_interleave(asked).expand(episodes, -1)
    chance = best.double() / best.sum(-1, keepdim=True)
    return chance.gather(2, truth[..., None])[..., 0].mean(1)


def centred(features: Tensor, base: Tensor) -> Tensor:
    """Return features (n, …) less the mean of base images', at unit length; 0 stays 0."""
    flat = features.flatten(1).double() - base.flatten(1).double().mean(0)
    return flat / flat.norm(dim=1, keepdim=True).clamp(min=1e-300)


def attacking(epsilon: float, seed: int) -> Rule:
    """Return the rule that learns images moved by at most ε per pixel, where the loss grows most:
    one step of 1.25 ε from a random start (Wong et al. 2020)."""
    random = random_numbers("few-shot attack", seed)

    def rule(network: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        moved = epsilon * (2 * torch.rand(images.shape, generator=random) - 1)
        begin = (images + moved).clamp(0, 1).requires_grad_()
        backpropagation(network, begin, labels)
        assert begin.grad is not None
        moved = begin.detach() - images + ATTACK * epsilon * begin.grad.sign()
        network.zero_grad()
        attacked = (images + moved.clamp(-epsilon, epsilon)).clamp(0, 1)
        return backpropagation(network, attacked, labels)

    return rule


def differences(
    result: xr.Dataset, architecture: str, shot: int, level: int
) -> dict[str, tuple[float, float]]:
    """Return paired differences of accuracy on novel classes, and half of their 95% interval.

    Pairs share classes, episodes and seed. Networks of one split are averaged first: Student's
    interval is over splits, and NaN where there is one.

    Args:
        result: what `measure` returned.
        architecture, shot, level: where both are compared; pixels are level 0.
    """
    here = result["accuracy"].sel(architecture=architecture, shot=shot, classes="novel")
    at = {how: here.sel(learnt=how, level=level).mean("network").values for how in LEARNT}
    at["pixels"] = here.sel(learnt="untrained", level=0).mean("network").values
    pairs = (("adversarial", "supervised"), ("supervised", "untrained"), ("untrained", "pixels"),
             ("supervised", "pixels"), ("adversarial", "pixels"),
             ("shuffled labels", "untrained"))  # fmt: skip
    return {f"{a} − {b}": _interval(at[a] - at[b]) for a, b in pairs}


def scores(result: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return what untrained MLPs say of "will it train", (sigma_w2, depth): accuracy on novel
    classes, of the most shots, with noise of variance λ in their features."""
    phases = result["phase_accuracy"].isel(shot=-1, drop=True)
    return {"few-shot accuracy above the resolution": phases.mean("network")}


def foretell(network: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> dict[str, float]:
    """Return what few examples say of "will it train" about one untrained model; more is better.

    Args:
        network: any module; it is left as it was.
        images: (n, *shape).
        labels: (n,), whole numbers.
        seed: of the model's random numbers, the noise, and the episodes.

    Returns:
        the scores of `FORETELLS`, NaN where the model overflows, and where
        less than two classes have the images for an episode. `few-shot accuracy`: of classes
        seen five times each, in the features in front of the head with noise of variance λ.
    """
    last = features(network, images, seed=seed)[-1].cpu()
    shots, queries = 5, 5
    classes, counts = labels.cpu().unique(return_counts=True)
    classes = classes[counts >= shots + queries]
    if not last.isfinite().all() or len(classes) < 2:
        return dict.fromkeys(FORETELLS, math.nan)
    kept = torch.isin(labels.cpu(), classes)
    places = torch.searchsorted(classes, labels.cpu()[kept])
    ways = min(Settings.ways, len(classes))
    asked = Settings(ways=ways, shots=(shots,), queries=queries, data_seed=seed)
    random = random_numbers("few-shot noise", seed)
    noise = math.sqrt(asked.resolution) * torch.randn(last.shape, generator=random)
    seen = centred((last + noise)[kept], last)
    drawn = draw_episodes(places, asked, 0)
    return {"few-shot accuracy": float(episode_accuracy(seen, drawn, shots, shots).mean())}


# --- measuring


def _interval(values: NDArray[Any]) -> tuple[float, float]:
    count = len(values)
    if count < 2:
        return float(values.mean()), math.nan
    half = stats.t.ppf(0.975, count - 1) * values.std(ddof=1) / math.sqrt(count)
    return float(values.mean()), float(half)


def _of(data: Dataset, split: str, limit: int, classes: list[int]) -> tuple[Tensor, Tensor]:
    """Images of these classes among the first of a split, and their labels counted from 0."""
    labels = data.labels(split)[:limit]
    chosen = torch.isin(labels, torch.tensor(classes)).nonzero()[:, 0]
    places = torch.searchsorted(torch.tensor(classes), labels[chosen])
    return data.floats(split)[chosen], places


def _network(kind: str, split: Split, seed: int) -> Network:
    """An untrained network: two convolutions and a layer of 128 with ReLU, or a tanh MLP."""
    shape, classes = split.images.shape[1:], len(split.known)
    with torch.random.fork_rng(devices=[]):  # which layers draw from before initialisation
        if kind == "mlp":
            network = mlp(shape, depth=STAGES[kind], width=WIDTH, classes=classes)
        else:
            sides = [((side - 4) // 2 - 4) // 2 for side in shape[1:]]
            if min(sides) < 1:
                raise ValueError(
                    f"the CNN needs images of at least 16×16, got {tuple(shape)}; take "
                    "architectures ['mlp'] or larger images"
                )
            stages = [
                nn.Sequential(nn.Conv2d(1, 16, 5), nn.ReLU(), nn.MaxPool2d(2)),
                nn.Sequential(nn.Conv2d(16, 32, 5), nn.ReLU(), nn.MaxPool2d(2)),
                nn.Sequential(nn.Flatten(), nn.Linear(32 * math.prod(sides), 128), nn.ReLU()),
            ]
            network = Network(nn.Sequential(*stages), nn.Linear(128, classes), image_shape=shape)
    variances = (1.7, 0.05) if kind == "mlp" else (2.0, 0.0)
    initialise(network, sigma_w2=variances[0], sigma_b2=variances[1], seed=seed)
    return network


def _learnt(settings: Settings, split: Split, kind: str, how: str, seed: int) -> Network:
    """A network that has learnt the known classes in one of the ways of LEARNT."""
    network, labels = _network(kind, split, seed), split.labels
    if how == "untrained":
        return network
    if how == "shuffled labels":
        random = random_numbers("few-shot labels", seed)
        labels = labels[torch.randperm(len(labels), generator=random)]
    rate = settings.learning_rate
    train(network, (split.images, labels), steps=settings.steps, batch_size=settings.batch_size,
          optimiser=torch.optim.SGD(network.parameters(), lr=rate, momentum=0.9), seed=seed,
          rule=attacking(settings.epsilon, seed) if how == "adversarial" else None)  # fmt: skip
    return network


def _features(network: nn.Module, split: Split, name: str, fitted: int) -> list[Tensor]:
    """Centred features of a pool's images by level, from the pixels on."""
    base, pool = split.images[:fitted], split.pools[name][0]
    both = torch.cat([base, pool])
    inside = [both, *(values for _, values in look(network, both, batch_size=250))]
    return [centred(values[len(base) :], values[: len(base)]) for values in inside]


def _kept(network: nn.Module, split: Split, fitted: int) -> list[float]:
    """R² of novel images by level, by our cascade fitted to known classes."""
    base, images = split.images[:fitted], split.pools["novel"][0][:fitted]
    back = Cascade.for_network(network, base[:1]).fit(base).reconstruct(images)
    return [1.0, *r_squared(images, back, mean=base.mean(0)).tolist()]


def _accuracy(network: nn.Module, split: Split) -> float:
    images, labels = split.pools["known"]
    ((_, logits),) = look(network, images, ["head"], batch_size=250)
    return float((logits.argmax(1) == labels).double().mean())


def _phases(settings: Settings, split: Split, seeds: Sequence[int]) -> dict[str, Any]:
    """Untrained MLPs by σ_w² and depth: accuracy on novel classes above a noise of variance λ, and
    R² of the image at this resolution."""
    shape = (len(settings.variances), len(seeds))
    accuracy = np.zeros((*shape, len(settings.shots), settings.untrained_depth))
    kept = np.zeros((*shape, settings.untrained_depth))
    base, pool = split.images[: settings.fitted], split.pools["novel"][0]
    both = torch.cat([base, pool])
    for place in np.ndindex(shape):
        seed = seeds[place[1]]
        with torch.random.fork_rng(devices=[]):
            network = mlp(base.shape[1:], depth=settings.untrained_depth,
                          width=settings.untrained_width)  # fmt: skip
        initialise(network, sigma_w2=settings.variances[place[0]], sigma_b2=settings.sigma_b2,
                   seed=seed)  # fmt: skip
        random = random_numbers("few-shot noise", seed)
        for level, (_, values) in enumerate(look(network, both, batch_size=250)):
            noise = math.sqrt(settings.resolution) * torch.randn(values.shape, generator=random)
            features = centred((values + noise)[len(base) :], values[: len(base)])
            accuracy[place][:, level] = few_shot(features, split, "novel", settings.shots)[0]
        kept[place] = _kept(network, split, settings.fitted)[1:]
    dims, one = ("sigma_w2", "network"), {"units": "1"}
    return {"phase_accuracy": ((*dims, "shot", "depth"), accuracy, one),
            "phase_r_squared": ((*dims, "depth"), kept, one)}  # fmt: skip


def _given(settings: Settings, splits: Sequence[Split]) -> dict[str, Any]:
    """Accuracy on novel classes by stage of a model of the user's; nothing where there is none.

    Its convolutional features are averaged over positions.
    """
    if not settings.model:
        return {}
    from paperlib.core.vision import torchvision

    with torch.random.fork_rng(devices=[]):
        torch.default_generator.manual_seed(settings.seed)
        made = torchvision.models.get_model(settings.model, weights=None)
    if settings.weights != "random":
        state = (imagenet_state(settings.model) if settings.weights == "imagenet"
                 else read_state(settings.weights))  # fmt: skip
        take(made, state, settings.weights)
    model = nn.Sequential(Normalise(IMAGENET_MEAN, IMAGENET_DEVIATION), made).eval()
    rows, names = [], []
    for split in splits:
        both = torch.cat([split.images[: settings.fitted], split.pools["novel"][0]])
        parts = [look(model, part.expand(-1, 3, -1, -1)) for part in both.split(PART)]
        names = [stage.name for stage, _ in parts[0]]
        levels = [torch.cat([_pooled(part[n][1]) for part in parts]) for n in range(len(names))]
        base = min(settings.fitted, len(split.images))
        found = [few_shot(centred(each[base:], each[:base]), split, "novel", settings.shots)[0]
                 for each in levels]  # fmt: skip
        rows.append(np.transpose(found))
    return {"given_accuracy": (("split", "shot", "stage"), np.array(rows), {"units": "1"}),
            "stage": (("stage",), names, {"units": "1"})}  # fmt: skip


def _pooled(values: Tensor) -> Tensor:
    return values.mean((2, 3)) if values.ndim == 4 else values.flatten(1)


# --- drawing and saying


def figure(result: xr.Dataset) -> Figure:
    """Draw accuracy by level beside R² and against it, paired differences, and untrained MLPs."""
    kinds = result["architecture"].values
    with paper_style():
        drawn = Figure(figsize=(10.5, 2.9 * (1 + len(kinds))), layout="constrained")
        axes: Any = drawn.subplots(1 + len(kinds), 4)
        for row, kind in zip(axes, kinds, strict=False):
            _draw_levels(row, result.sel(architecture=kind), f"{str(kind).upper()}")
        _draw_differences(axes[-1, :2], result)
        _draw_phases(axes[-1, 2:], result)
        handles, labels = axes[0, 0].get_legend_handles_labels()
        drawn.legend(handles, labels, loc="outside upper center", ncols=len(labels))
    return drawn


def takeaway(result: xr.Dataset) -> str:
    """Return what the figure shows in a few sentences, with this run's numbers."""
    kind, shot = str(result["architecture"].values[0]), int(result["shot"][-1])
    level = min(SECOND, result.sizes["level"] - 1)
    at = result["accuracy"].sel(architecture=kind, classes="novel", shot=shot)
    means = at.mean(["split", "network"])
    said = ", ".join(f"{how} {float(means.sel(learnt=how, level=level)):.3f}" for how in LEARNT)
    found = differences(result, kind, shot, level)
    return (
        f"**In short.** {shot}-shot accuracy on novel classes at level {level} of the "
        f"{kind.upper()}: {said}; pixels {float(means.sel(learnt='untrained', level=0)):.3f}. "
        f"Paired: {_difference('adversarial − supervised', found)}, "
        f"{_difference('supervised − untrained', found)}, "
        f"{_difference('untrained − pixels', found)}."
    )


def findings(result: xr.Dataset) -> str:
    """Return what a run says, as Markdown: its own numbers, and the published ones apart."""
    about = result.attrs
    shot = int(result["shot"][-1])
    parts = [
        f"**This run.** {data_name(result)}: {result.sizes['split']} splits into known and novel "
        f"classes, {result.sizes['network']} networks of each kind, {about['steps']} steps; "
        f"{about['episodes']} episodes of {about['ways']} classes. Numbers are means ± standard "
        "deviation over splits.",
    ]
    for kind in map(str, result["architecture"].values):
        parts += [
            f"**{kind.upper()}**, {shot}-shot accuracy by level; 0 is the pixels:",
            _levels_table(result, kind, shot),
            f"**Paired differences at level {SECOND}** on novel classes, with 95% intervals over "
            "splits:",
            _differences_table(result, kind),
        ]
    parts += ["**Untrained MLPs**, above the resolution:", _phases_table(result, shot)]
    if "stage" in result:
        parts += [f"**{about['model']}**, accuracy on novel classes by stage:",
                  _given_table(result, shot)]  # fmt: skip
    parts.append(
        "**Against the paper:** its networks are ImageNet's, and its numbers are not compared. It "
        "says that supervised networks serve novel classes better than unsupervised ones, and that "
        f"adversarially trained ones transfer better still. {_verdict(result)}"
    )
    return "\n\n".join(parts)


def _verdict(result: xr.Dataset) -> str:
    """Which steps of the published order this run shows, by architecture, at the second level."""
    order = ("adversarial − supervised", "supervised − untrained", "untrained − pixels")
    said = []
    for kind in map(str, result["architecture"].values):
        found = differences(result, kind, int(result["shot"][-1]), SECOND)
        said.append(f"{kind.upper()}: " + ", ".join(
            f"{name} {_sign(*found[name])}" for name in order
        ))  # fmt: skip
    return f"Here, at level {SECOND}, " + "; ".join(said) + "."


def _sign(mean: float, half: float) -> str:
    if math.isnan(half):
        return "is of one split only"
    if abs(mean) <= half:
        return "is not told from 0"
    return "is positive" if mean > 0 else "is negative"


def _difference(name: str, found: dict[str, tuple[float, float]]) -> str:
    mean, half = found[name]
    return f"{name} {mean:+.3f}" + ("" if math.isnan(half) else f" ± {half:.3f}")


def _table(head: str, rows: Sequence[Sequence[str]]) -> str:
    lines = (f"| {' | '.join(row)} |" for row in rows)
    return "\n".join([f"| {head} |", "|---" * (head.count("|") + 1) + "|", *lines])


def _spelt(values: xr.DataArray) -> str:
    """Mean ± standard deviation over splits, of means over networks."""
    each = values.mean("network").values
    return f"{each.mean():.3f}" + (f" ± {each.std(ddof=1):.3f}" if len(each) > 1 else "")


def _levels_table(result: xr.Dataset, kind: str, shot: int) -> str:
    here = result.sel(architecture=kind)
    levels = range(STAGES[kind] + 1)
    rows = []
    for how in LEARNT:
        one = here.sel(learnt=how)
        for name in CLASSES:
            values = one["accuracy"].sel(classes=name, shot=shot)
            rows.append([how, f"{name} classes", *(_spelt(values.sel(level=n)) for n in levels)])
        rows.append([how, "R²", *(_spelt(one["r_squared"].sel(level=n)) for n in levels)])
    return _table("learnt | of | " + " | ".join(map(str, levels)), rows)


def _differences_table(result: xr.Dataset, kind: str) -> str:
    shots = [int(shot) for shot in result["shot"].values]
    found = [differences(result, kind, shot, SECOND) for shot in shots]
    rows = [[name, *(_difference(name, each).removeprefix(name).strip() for each in found)]
            for name in found[0]]  # fmt: skip
    return _table("difference | " + " | ".join(f"{shot}-shot" for shot in shots), rows)


def _phases_table(result: xr.Dataset, shot: int) -> str:
    deepest, chance = result.sizes["depth"], 1 / result.attrs["ways"]
    own = result.mean("network")
    rows = []
    for sigma_w2 in result["sigma_w2"].values:
        curve = own["phase_accuracy"].sel(sigma_w2=sigma_w2, shot=shot).values
        kept = own["phase_r_squared"].sel(sigma_w2=sigma_w2).values
        depths = (collapse_depth(curve, threshold=chance + 0.05), collapse_depth(kept))
        ends = [str(depth) if depth <= deepest else "never" for depth in depths]
        rows.append([f"{sigma_w2:g}", f"{curve[0]:.2f}, {curve[-1]:.2f}",
                     f"{kept[0]:.2f}, {kept[-1]:.2f}", *ends])  # fmt: skip
    return _table(f"σ_w² | {shot}-shot accuracy at depth 1, {deepest} | R² | accuracy below chance "
                  f"+ 0.05 from depth | R² below {LOST:g} from depth", rows)  # fmt: skip


def _given_table(result: xr.Dataset, shot: int) -> str:
    means = result["given_accuracy"].sel(shot=shot).mean("split")
    return _table("stage | accuracy", [[str(stage), f"{float(value):.3f}"]
                  for stage, value in zip(result["stage"].values, means, strict=True)])  # fmt: skip


def _draw_levels(axes: Any, here: xr.Dataset, title: str) -> None:
    """Accuracy on novel and known classes and R² by level, and the first against the last."""
    shot = int(here["shot"][-1])
    known, left, middle, path = axes[1], axes[0], axes[2], axes[3]
    for how in LEARNT:
        one, look_ = here.sel(learnt=how), {"color": COLOURS[how], "marker": ".", "label": how}
        each = one.mean("network")
        for axis, values in ((left, each["accuracy"].sel(classes="novel", shot=shot)),
                             (known, each["accuracy"].sel(classes="known", shot=shot)),
                             (middle, each["r_squared"])):  # fmt: skip
            spread = values.std("split", ddof=1) if here.sizes["split"] > 1 else None
            axis.errorbar(here["level"], values.mean("split"), spread, capsize=1.5, **look_)
        means = each.mean("split")
        path.plot(means["r_squared"], means["accuracy"].sel(classes="novel", shot=shot), **look_)
    pixels = float(here["accuracy"].sel(classes="novel", shot=shot, level=0).mean())
    for axis in (left, path):
        axis.axhline(pixels, color="0.2", ls="--", lw=1)
    left.set(title=f"{title}: novel classes", ylabel=f"{shot}-shot accuracy")
    known.set(title="known classes", ylabel=f"{shot}-shot accuracy")
    middle.set(title="R² of novel images", ylabel="R²")
    path.set(title="novel classes against R²", xlabel="R²", ylabel=f"{shot}-shot accuracy")
    path.invert_xaxis()
    for axis in (left, known, middle):
        axis.set(xlabel="level", xticks=range(int(here["level"][-1]) + 1))


def _draw_differences(axes: Any, result: xr.Dataset) -> None:
    kind = str(result["architecture"].values[0])
    for axis, shot in zip(axes, (result["shot"][0], result["shot"][-1]), strict=True):
        found = differences(result, kind, int(shot), SECOND)
        places = np.arange(len(found))[::-1]
        means, halves = np.transpose(list(found.values()))
        axis.errorbar(means, places, xerr=np.nan_to_num(halves), fmt="o", color=GREEN, capsize=2)
        axis.axvline(0, color="0.4", lw=1)
        axis.set_yticks(places, [name.replace(" − ", "\n− ") for name in found], fontsize=6)
        axis.set(
            title=f"{kind.upper()}, level {SECOND}, {int(shot)}-shot", ylim=(-0.6, places[0] + 0.6)
        )
        axis.set_xlabel("paired difference, 95% over splits")


def _draw_phases(axes: Any, result: xr.Dataset) -> None:
    """Untrained MLPs by depth, and accuracy against R²."""
    own, shot = result.mean("network"), int(result["shot"][-1])
    for number, sigma_w2 in enumerate(result["sigma_w2"].values):
        one, colour = own.sel(sigma_w2=sigma_w2), PALETTE[number % len(PALETTE)]
        curve = one["phase_accuracy"].sel(shot=shot)
        axes[0].plot(one["depth"], curve, color=colour, label=f"{sigma_w2:g}")
        axes[0].plot(one["depth"], one["phase_r_squared"].clip(0), "--", color=colour)
        axes[1].plot(one["phase_r_squared"].clip(0), curve, ".-", ms=3, lw=1, color=colour)
    for axis in axes:
        axis.axhline(1 / result.attrs["ways"], color="0.4", ls=":", lw=1)
    axes[0].plot([], [], "--", color="0.4", label="R²")
    axes[0].set(ylim=(0, 1), xlabel="depth", ylabel=f"{shot}-shot accuracy, R²")
    axes[0].set_title("Untrained MLPs, by $\\sigma_w^2$")
    axes[0].legend(ncols=2, fontsize=6)
    axes[1].set(xlabel="R²", ylabel=f"{shot}-shot accuracy", title="the same against R²")
    axes[1].invert_xaxis()
