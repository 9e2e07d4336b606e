"""One classifier before and after training: what its stages keep, and the input each class wants.

    run = run_study(StudyPoint(shape="shrinking", depth=9, optimiser="adam", learning_rate=1e-3))
    run.result  # everything that its figures show, as an xarray.Dataset
    run.cascade.ideal_input(ideal_outputs(10))  # a picture for each class

Two judges look at every picture: the trained network, and the nearest class mean, which knows the
training images and never saw a network.
"""

import json
import math
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from paperlib import measures
from paperlib.cascade import Cascade
from paperlib.core.provenance import about_one
from paperlib.core.threads import one_thread
from paperlib.datasets import PICTURE, Dataset
from paperlib.instruments.digits.settings import StudyPoint
from paperlib.networks import Network, untrained
from paperlib.sweep.plan import load_data
from paperlib.training import train_network

CODE_VERSION = 1  # raised when a change to the code changes a study's numbers
JUDGED = 1000  # test images that are reconstructed from every level
TOGETHER = 5000  # images that are scaled at a time
STATES = ("untrained", "trained")
JUDGES = ("network", "class mean")


class Judges(NamedTuple):
    """Who says which class a picture shows."""

    network: Network  # trained
    means: Tensor  # (classes, *image_shape), see `class_means`

    @torch.no_grad()
    def verdicts(self, pictures: Tensor) -> Tensor:
        """The number of the class that each of JUDGES sees: (…, *image_shape) to (judge, …)."""
        flat = pictures.flatten(0, -4)
        found = torch.stack([self.network(flat).argmax(1), nearest(flat, self.means)])
        return found.view(-1, *pictures.shape[:-3])


class Study(NamedTuple):
    """What a study found, and what a reader needs to go on looking."""

    result: xr.Dataset
    cascade: Cascade  # of the trained network
    judges: Judges
    images: Tensor  # of the test split, as the network takes them


def run_study(point: StudyPoint, *, data: Dataset | None = None) -> Study:
    """Train a network, fit its cascade, and ask two judges about test images and ideal inputs.

    The cascade is fitted twice, to the network as it was initialised and as training left it.

    Args:
        point: its settings.
        data: the point's data set, where it is loaded already.

    Returns:
        `result` has the coordinates `state` (untrained, trained), `shown` (the kinds of
        `chosen_images`), `level` (0 is the image itself), `judge` (network, class mean) and
        `class`, and pictures in float32. Of the images that are shown: `picture`, `verdict` (the
        number of a class), `r_squared`, `relative_entropy` (nats), `number` (which test image it
        is) and `label`, the number of their class. Of the ideal inputs, one for each class:
        `ideal`, `ideal_verdict`. Of up to 1,000 test images: `test_r_squared`; `right` and
        `faithful`, the fractions whose verdict is their label, and what the network says of the
        image itself. Of the training, as `training.train_points`: `accuracy`, `loss`, `steps`,
        `diverged`, `seconds`.

    Raises:
        ValueError: a class that is not there or has no test image, a network that diverged, or data
            that it cannot take.
    """
    data = as_seen(data or load_data(point), grey=point.grey, numbers=point.numbers)
    _check_class(point, data)
    with one_thread():
        network, learnt = _trained(point, data)
        before = untrained(point, data.image_shape, len(data.classes), grey=False)
        train = data.examples("train", point.train_images, grey=False)
        test = data.examples("test", point.test_images, grey=False)
        judges = Judges(network, class_means(*train, len(data.classes)))
        label = point.shown_class if point.shown_class >= 0 else most_misjudged(*test, judges)
        chosen = chosen_images(*test, judges, label)
        cascades = [_fitted(stages, train[0], point) for stages in (before, network)]
        mean = train[0].mean(0)
        parts = [
            _of_shown(cascade, test[0][list(chosen.values())], judges, mean)
            .merge(_of_classes(cascade, judges, point.off))
            .merge(_of_many(cascade, test, judges, mean))
            for cascade in cascades
        ]
    result = xr.concat(parts, dim=xr.DataArray(list(STATES), dims="state", name="state"))
    result = result.assign({name: ((), value) for name, value in learnt.items()})
    result["label"] = ((), label)
    result["number"] = ("shown", np.array(list(chosen.values())))
    names = {"class": list(data.classes), "judge": list(JUDGES), "shown": list(chosen)}
    result = result.assign_coords(names)
    about = about_one(point, data, code_version=CODE_VERSION)
    about["data"]["image_shape"] = list(data.image_shape)
    result.attrs["provenance"] = json.dumps(about, sort_keys=True)
    return Study(result, cascades[-1], judges, test[0])


def as_seen(data: Dataset, *, grey: bool, numbers: int) -> Dataset:
    """Return the data set with its images as a network takes them: grey or not, and not too large.

    Args:
        data: any data set.
        grey: turn colour into one channel.
        numbers: most that one image may hold, its colours counted; larger ones are scaled down with
            their proportions kept, each pixel the average of those that it replaces.

    Raises:
        ValueError: fewer numbers than one pixel has.
    """
    channels, height, width = data.image_shape
    channels = 1 if grey else channels
    if numbers < channels:
        raise ValueError(f"numbers must be >= {channels}, one pixel; got {numbers}")
    scale = min(1.0, math.sqrt(numbers / (channels * height * width)))
    size = max(1, int(scale * height)), max(1, int(scale * width))
    splits = {}
    for split in ("train", "test"):
        images = getattr(data, f"{split}_images")
        if data.image_shape != (channels, *size):
            parts = replace(data, train_images=images).floats("train", grey=grey).split(TOGETHER)
            scaled = [
                nn.functional.interpolate(p, size, mode="bilinear", antialias=True) for p in parts
            ]
            images = (torch.cat(scaled).clamp(0, 1) * 255).round().to(torch.uint8)
        splits[f"{split}_images"] = images
    return replace(data, **splits)


def ideal_outputs(classes: int, *, off: float = -1.0) -> Tensor:
    """Outputs set by hand, one row for each class: 1 for the class and `off` for the others."""
    return torch.full((classes, classes), off).fill_diagonal_(1.0)


def class_means(images: Tensor, labels: Tensor, classes: int) -> Tensor:
    """Return each class's mean image, (classes, *image_shape); NaN for a class without images."""
    sums = torch.zeros(classes, *images.shape[1:]).index_add_(0, labels, images)
    counts = labels.bincount(minlength=classes)
    return sums / counts.view(-1, 1, 1, 1)


def nearest(images: Tensor, means: Tensor) -> Tensor:
    """Return the number of the class whose mean is the nearest to each image, (n,)."""
    distances = torch.cdist(images.flatten(1), means.flatten(1))
    return distances.nan_to_num(nan=math.inf).argmin(1)


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """Return how far the logit of each image's class is above the largest of the others, (n,)."""
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], -math.inf)
    return (own - others.amax(1, keepdim=True)).squeeze(1)


def most_misjudged(images: Tensor, labels: Tensor, judges: Judges) -> int:
    """Return the number of the class of whose images the network gets the largest part wrong."""
    wrong = (judges.verdicts(images)[0] != labels).double()
    count = len(judges.means)
    rates = labels.bincount(wrong, minlength=count) / labels.bincount(minlength=count)
    return int(rates.nan_to_num(nan=-1).argmax())


@torch.no_grad()
def chosen_images(
    images: Tensor, labels: Tensor, judges: Judges, shown_class: int
) -> dict[str, int]:
    """Return the numbers of the images of one class that are shown, by kind, where there are any.

    `typical`: of those that the network classifies as their class, the nearest to the class mean.
    `ambiguous`: of the same, the one with the smallest margin; see `margins`.
    `misclassified`: of the others, the nearest to the mean of their class.
    """
    members = (labels == shown_class).nonzero().squeeze(1)
    margin = margins(judges.network(images[members]), labels[members])
    away = images[members] - judges.means[shown_class].nan_to_num()
    distance = away.flatten(1).norm(dim=1)
    right = margin > 0
    candidates = {
        "typical": distance.masked_fill(~right, math.inf),
        "ambiguous": margin.masked_fill(~right, math.inf),
        "misclassified": distance.masked_fill(right, math.inf),
    }
    found = {kind: cost for kind, cost in candidates.items() if cost.isfinite().any()}
    return {kind: int(members[cost.argmin()]) for kind, cost in found.items()}


def _check_class(point: StudyPoint, data: Dataset) -> None:
    count = len(data.classes)
    if point.shown_class >= count:
        raise ValueError(
            f"shown_class must be one of 0 … {count - 1}, the classes of {data.name}, or -1 for "
            f"the one misjudged most often; got {point.shown_class}"
        )
    labels = data.test_labels[: point.test_images]
    if point.shown_class >= 0 and not (labels == point.shown_class).any():
        raise ValueError(
            f"none of {len(labels)} test images of {data.name} is of the class "
            f"{point.shown_class} ({data.classes[point.shown_class]}); "
            "use another shown_class, or -1 for the one misjudged most often"
        )


def _trained(point: StudyPoint, data: Dataset) -> tuple[Network, dict[str, np.ndarray]]:
    network, learnt = train_network(point, data=data, grey=False)
    if learnt["diverged"]:
        raise ValueError(
            f"the training diverged after {learnt['steps']} steps; expected a learning_rate at "
            f"which it does not, got {point.learning_rate:g}: use a smaller one"
        )
    return network, learnt


def _fitted(network: Network, train: Tensor, point: StudyPoint) -> Cascade:
    return Cascade.for_network(network, train[:1]).fit(
        train[: point.fit_images],
        solver=point.solver,
        seed=point.seed,
        resolution=point.resolution,
    )


def _levels(images: Tensor, cascade: Cascade) -> Tensor:
    """The images themselves, and as they come back from every level: (1 + levels, n, …)."""
    return torch.cat([images[None], cascade.reconstruct(images)])


def _of_shown(cascade: Cascade, images: Tensor, judges: Judges, mean: Tensor) -> xr.Dataset:
    """Each image that is shown, as it comes back, and what is left of it."""
    pictures = _levels(images, cascade)
    kept = [
        measures.r_squared(images[i : i + 1], pictures[:, i : i + 1], mean=mean)
        for i in range(len(images))
    ]
    relative = measures.relative_entropy(images, pictures)
    return xr.Dataset(
        {
            "picture": (("level", "shown", *PICTURE), pictures.numpy()),
            "verdict": (("judge", "level", "shown"), judges.verdicts(pictures).numpy()),
            "r_squared": (("shown", "level"), torch.stack(kept).numpy()),
            "relative_entropy": (("level", "shown"), relative.numpy()),
        },
        {"level": np.arange(len(pictures))},
    )


def _of_classes(cascade: Cascade, judges: Judges, off: float) -> xr.Dataset:
    """The ideal input of each class, and what the judges see in it."""
    ideal = cascade.ideal_input(ideal_outputs(len(judges.means), off=off))
    return xr.Dataset(
        {
            "ideal": (("class", *PICTURE), ideal.numpy()),
            "ideal_verdict": (("judge", "class"), judges.verdicts(ideal).numpy()),
        }
    )


def _of_many(
    cascade: Cascade, test: tuple[Tensor, Tensor], judges: Judges, mean: Tensor
) -> xr.Dataset:
    """How much of the test images comes back, and how well both judges know them again."""
    images, labels = (part[:JUDGED] for part in test)
    pictures = _levels(images, cascade)
    verdicts = judges.verdicts(pictures)
    believed = verdicts[0, 0]  # what the network says of the images themselves
    curves = {"right": verdicts == labels, "faithful": verdicts == believed}
    return xr.Dataset(
        {
            "test_r_squared": ("level", measures.r_squared(images, pictures, mean=mean).numpy()),
            **{k: (("judge", "level"), v.double().mean(-1).numpy()) for k, v in curves.items()},
        }
    )
