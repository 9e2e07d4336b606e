"""One point of a grid: its numbers, by its kind."""

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch

from paperlib import measures
from paperlib.cascade import Cascade
from paperlib.checks import device_of, instance_of
from paperlib.config import CascadePoint, PredictorPoint, TrainingPoint
from paperlib.datasets import Dataset
from paperlib.networks import Network, untrained
from paperlib.plan import load_data
from paperlib.predictors import predict_point
from paperlib.training import train_point, train_points


def measure_point(
    point: CascadePoint | TrainingPoint | PredictorPoint,
    *,
    device: str = "cpu",
    data: Dataset | None = None,
) -> dict[str, np.ndarray]:
    """The numbers of one point: an untrained network's cascade, its training, or a prediction.

    Args:
        point: its settings.
        device: "cpu" or "cuda".
        data: the point's data set, where it is loaded already.

    Returns:
        Of a `TrainingPoint`, see `training.train_points`; of a `PredictorPoint`, see
        `predictors.predict_point`. Of a `CascadePoint`, the five curves (depth,) in float32,
        entropies in nats, means over the test images where a measure is per image; `cutoff` (), the
        published one, `cutoff_per_image` (image,), of each test image's own curve, and
        `cutoff_differential` (), of the published differential entropy, in int32, 1-based, -1 where
        a curve has no usable end; `example` (6, channels, height, width) in uint8, one test image
        as it comes back from `shown_depths`; `original`, that image.

    Raises:
        ValueError: an argument of another kind, a cascade whose activations overflow, or data that
            it cannot take.
    """
    instance_of("point", point, CascadePoint, TrainingPoint, PredictorPoint)
    device = str(device_of("device", device))
    data = load_data(point) if data is None else instance_of("data", data, Dataset)
    with one_thread():
        if isinstance(point, TrainingPoint):
            return train_point(point, data=data, device=device)
        if isinstance(point, PredictorPoint):
            return predict_point(point, data=data, device=device)
        return _measure_cascade(point, data, device)


def measure_together(points: Sequence[Any], *, device: str, data: Dataset) -> list[Any]:
    """The numbers of several points; trainings of one shape run as one program."""
    if len(points) == 1:
        return [measure_point(points[0], device=device, data=data)]
    return list(train_points(points, data=data, device=device))


def _measure_cascade(point: CascadePoint, data: Dataset, device: str) -> dict[str, np.ndarray]:
    train = data.floats("train", device=device)[: point.train_images]
    test = data.floats("test", device=device)[: point.test_images]
    network = untrained(point, data.image_shape, len(data.classes)).to(device)
    cascade = fitted(point, network, train)
    beyond_stem = range(network.stem + 1, cascade.depth + 1)
    pictures = cascade.reconstruct(test, levels=beyond_stem)
    # below the level where a fit ended, all images have come back as one, and do so from there on
    skipped = point.depth - len(pictures)
    pictures = torch.cat([pictures, pictures[-1:].expand(skipped, *pictures.shape[1:])])
    losses = np.full(point.depth, np.nan, np.float32)
    losses[: cascade.depth - network.stem] = cascade.losses[network.stem :]
    shown = pictures[[level - 1 for level in shown_depths(point.depth)], 0]
    return {
        **_curves(test, pictures, mean=train.mean(0), rtol=point.rtol),
        "inverse_loss": losses,
        "measured_depth": np.int32(cascade.depth - network.stem),
        "example": _as_bytes(shown),
        "original": _as_bytes(test[0]),
    }


def fitted(point: CascadePoint, network: Network, train: torch.Tensor) -> Cascade:
    """The network's cascade, fitted to these images as the point says."""
    return Cascade.for_network(network, train[:1]).fit(
        train,
        solver=point.solver,
        seed=point.seed,
        resolution=point.resolution,
        steps=point.steps or None,
        batch_size=point.batch_size,
        precision=point.precision,
        until=point.until,
    )


def _curves(
    test: torch.Tensor, pictures: torch.Tensor, *, mean: torch.Tensor, rtol: float
) -> dict[str, Any]:
    with warnings.catch_warnings():
        # a collapsed batch can sum to nothing; the NaN that says so goes into the curve
        warnings.simplefilter("ignore", RuntimeWarning)
        relative = measures.relative_entropy(test, pictures)
        published = measures.differential_entropy_published(pictures)
        curves = {
            "relative_entropy": relative.mean(1),
            "differential_entropy": measures.differential_entropy(pictures),
            "differential_entropy_published": published,
            "gram_entropy": measures.gram_entropy(pictures),
            "r_squared": measures.r_squared(test, pictures, mean=mean),
        }
        cutoff = measures.cutoff(relative, rtol=rtol)
        per_image = measures.cutoffs(relative, rtol=rtol).cpu().numpy().astype(np.int32)
        # not `cutoff`, which refuses a curve with a NaN: that is no reason to lose the point
        (differential,) = measures.cutoffs(published[:, None], rtol=rtol).tolist()
    as_arrays = {name: curve.cpu().numpy().astype(np.float32) for name, curve in curves.items()}
    return {
        **as_arrays,
        "cutoff": np.int32(cutoff),
        "cutoff_differential": np.int32(differential),
        "cutoff_per_image": per_image,
    }


def shown_depths(depth: int) -> list[int]:
    """The depths, 1-based and at most six, at which an example is kept for the figures."""
    return sorted({1, *(max(1, round(depth * part)) for part in (0.1, 0.25, 0.5, 0.75, 1.0))})


def _as_bytes(images: torch.Tensor) -> np.ndarray:
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()


@contextmanager
def one_thread() -> Iterator[None]:
    """One torch thread, so that the numbers depend neither on the cores nor on `jobs`."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
