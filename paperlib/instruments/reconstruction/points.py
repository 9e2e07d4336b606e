"""How deep the image survives: an untrained network's cascade, and grids of them."""

import warnings
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, ClassVar

import numpy as np
import torch

from paperlib import measures
from paperlib.cascade import Cascade
from paperlib.cascade.cascade import is_collapsed
from paperlib.cascade.fitting import ENDS, PRECISIONS, SOLVERS, arithmetic_of
from paperlib.core.replay import exact_products
from paperlib.core.settings import option
from paperlib.datasets import PICTURE, Dataset
from paperlib.networks import Network, untrained
from paperlib.networks.experiment import Experiment, Point
from paperlib.networks.kinds import RESOLUTION
from paperlib.sweep.grid import Sweep

RTOL = {"mlp": 0.005, "cnn": 0.01, "resnet": 0.01}  # as published
CURVES = ("relative_entropy", "differential_entropy", "gram_entropy", "r_squared")
MEASURES = (*CURVES, "differential_entropy_published")


@dataclass(frozen=True, kw_only=True)
class _CascadeExperiment(Experiment):
    """What all points of a sweep of cascades share: depth, inverses and measures."""

    depth: int = option(60, low=1, high=10_000)
    solver: str = option("ridge", choices=SOLVERS)
    resolution: float = option(0.0, low=0.0)  # ridge only: what lies below its root is lost
    steps: int = option(0, low=0, zero="one epoch")  # adam only
    batch_size: int = option(64, low=1)  # adam only
    precision: str = option("float32", choices=PRECISIONS, before="float32")  # adam only
    weight_decay: float = option(0.0, low=0.0, before=0.0)  # adam only
    until: str = option("deepest", choices=ENDS, before="deepest")  # "lost", "r_squared": skip
    rtol: float = option(0.0, low=0.0)  # the published cutoff's tolerance
    # taken of the pictures from all depths, besides R²: the others, and their cutoffs, stay unknown
    measures: tuple[str, ...] = option(MEASURES, choices=MEASURES, before=MEASURES)

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, defaults in (("resolution", RESOLUTION), ("rtol", RTOL)):
            if not getattr(self, name):  # 0 stands for the architecture's own
                object.__setattr__(self, name, defaults[self.architecture])
        taken = tuple(name for name in MEASURES if name in (*self.measures, "r_squared"))
        object.__setattr__(self, "measures", taken)  # one order: the same numbers, one identity

    def unread(self) -> tuple[str, ...]:
        of_adam = ("steps", "batch_size", "precision", "weight_decay")
        other = {"ridge": of_adam, "adam": ("resolution",)}[self.solver]
        return (*super().unread(), *other)


@dataclass(frozen=True, kw_only=True)
class CascadePoint(_CascadeExperiment, Point):
    """One network: its initialisation and the fit of its cascade.

    Example:
        >>> from paperlib import CascadePoint
        >>> point = CascadePoint(dataset="digits", sigma_w2=1.7, depth=10)
        >>> point.solver, point.resolution  # of the architecture where it is not given
        ('ridge', 0.001)
        >>> CascadePoint(depth=0)
        Traceback (most recent call last):
        ValueError: depth must be >= 1, got 0
    """

    fields: ClassVar[Mapping[str, tuple[str, ...]]] = {
        **dict.fromkeys(CURVES, ("depth",)),
        "cutoff": (),
        "example": ("shown_depth", *PICTURE),
        "differential_entropy_published": ("depth",),
        "cutoff_differential": (),
        "cutoff_per_image": ("image",),
        "inverse_loss": ("depth",),
        "measured_depth": (),
    }
    shared: ClassVar[Mapping[str, tuple[str, ...]]] = {"original": PICTURE}
    added: ClassVar[Collection[str]] = (
        "differential_entropy_published",
        "cutoff_differential",
        "cutoff_per_image",
        "inverse_loss",
        "measured_depth",
    )
    watched: ClassVar[str] = "r_squared"

    def measure(self, data: Dataset, *, device: str = "cpu") -> dict[str, np.ndarray]:
        """Return what an untrained network's cascade keeps of the images.

        Args:
            data: the point's data set.
            device: "cpu" or "cuda".

        Returns:
            The five curves (depth,) in float32, entropies in nats, means over the test images where
            a measure is per image; `cutoff` (), the published one, `cutoff_per_image` (image,), of
            each test image's own curve, and `cutoff_differential` (), of the published differential
            entropy, in int32, 1-based, -1 where a curve has no usable end; `example` (6, channels,
            height, width) in uint8, one test image as it comes back from `shown_depths`;
            `original`, that image; `inverse_loss` (depth,) in float32, of each inverse's fit; and
            `measured_depth` (), down to which the cascade was fitted. Below it all is that of a
            collapsed batch; or, where until="r_squared" ended before the images had collapsed to
            one, R² and `example` stay the last ones, entropies are NaN and cutoffs -1.
        """
        with exact_products():
            return self._measured(data, device)

    def _measured(self, data: Dataset, device: str) -> dict[str, np.ndarray]:
        train = data.floats("train", limit=self.train_images, device=device)
        test = data.floats("test", limit=self.test_images, device=device)
        network = untrained(self, data.image_shape, len(data.classes)).to(device)
        cascade = fitted(self, network, train, test)
        beyond_stem = range(network.stem + 1, cascade.depth + 1)
        pictures = cascade.reconstruct(test, levels=beyond_stem)
        measured = len(pictures)
        skipped = self.depth - measured  # where all images come back as they do from the last level
        losses = np.full(self.depth, np.nan, np.float32)
        losses[:measured] = cascade.losses[network.stem :]
        shown = pictures[[min(level, measured) - 1 for level in shown_depths(self.depth)], 0]
        mean, taken = train.mean(0), self.measures
        curves = _curves(test, pictures, mean=mean, rtol=self.rtol, taken=taken, skipped=skipped)
        if skipped and self.until == "r_squared" and not is_collapsed(pictures[-1]):
            curves |= _unknown_beyond(measured, curves)  # wrong pictures, which still change
        return {
            **curves,
            "inverse_loss": losses,
            "measured_depth": np.int32(measured),
            "example": as_bytes(shown),
            "original": as_bytes(test[0]),
        }

    def computed_with(self, device: str) -> dict[str, str]:
        if self.solver != "ridge":
            return {}
        return {"arithmetic": arithmetic_of(torch.zeros(0, device=device), self.resolution)}


@dataclass(frozen=True, kw_only=True)
class CascadeSweep(_CascadeExperiment, Sweep):
    """Cascades: every variance with every seed.

    Example:
        >>> from paperlib import CascadeSweep
        >>> sweep = CascadeSweep(sigma_w2=(1.0, 1.7), seeds=(0, 1, 2), depth=10)
        >>> len(list(sweep.points()))
        6
    """

    point: ClassVar[type[Point]] = CascadePoint

    def coordinates(self) -> dict[str, np.ndarray]:
        return {**super().coordinates(), "shown_depth": np.array(shown_depths(self.depth))}


def fitted(
    point: CascadePoint, network: Network, train: torch.Tensor, test: torch.Tensor | None = None
) -> Cascade:
    """Return the network's cascade, fitted to training images as the point says.

    Test images only say where a fit until="r_squared" ends.
    """
    return Cascade.for_network(network, train[:1]).fit(
        train,
        solver=point.solver,
        seed=point.seed,
        resolution=point.resolution,
        steps=point.steps or None,
        batch_size=point.batch_size,
        precision=point.precision,
        weight_decay=point.weight_decay,
        until=point.until,
        held_out=test if point.until == "r_squared" else None,
    )


def _curves(
    test: torch.Tensor,
    pictures: torch.Tensor,
    *,
    mean: torch.Tensor,
    rtol: float,
    taken: Collection[str] = MEASURES,
    skipped: int = 0,
) -> dict[str, Any]:
    """The curves that are taken, NaN for others, and the cutoffs, -1 where their curve is not; at
    so many levels below the last they stay what they are there."""
    whole: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
        "relative_entropy": partial(measures.relative_entropy, test),
        "differential_entropy": measures.differential_entropy,
        "gram_entropy": measures.gram_entropy,
        "r_squared": partial(measures.r_squared, test, mean=mean),
        "differential_entropy_published": measures.differential_entropy_published,
    }
    unknown = torch.full((len(pictures),), torch.nan, dtype=torch.float64)
    with warnings.catch_warnings():
        # a collapsed batch can sum to nothing; the NaN that says so goes into the curve
        warnings.simplefilter("ignore", RuntimeWarning)
        curves = {n: take(pictures) if n in taken else unknown for n, take in whole.items()}
        curves = {n: torch.cat([v, *[v[-1:]] * skipped]) for n, v in curves.items()}
        relative, published = curves["relative_entropy"], curves["differential_entropy_published"]
        cutoffs = [torch.full((len(test),), -1), torch.tensor([-1])]
        cutoff = -1
        if "relative_entropy" in taken:
            curves["relative_entropy"] = relative.mean(1)
            cutoff = measures.cutoff(relative, rtol=rtol)
            cutoffs[0] = measures.cutoffs(relative, rtol=rtol)
        if "differential_entropy_published" in taken:
            # not `cutoff`, which refuses a curve with a NaN: that is no reason to lose the point
            cutoffs[1] = measures.cutoffs(published[:, None], rtol=rtol)
    as_arrays = {name: curve.cpu().numpy().astype(np.float32) for name, curve in curves.items()}
    per_image, differential = (found.cpu().numpy().astype(np.int32) for found in cutoffs)
    return {
        **as_arrays,
        "cutoff": np.int32(cutoff),
        "cutoff_differential": differential[0],
        "cutoff_per_image": per_image,
    }


def _unknown_beyond(depth: int, curves: Mapping[str, np.ndarray]) -> dict[str, Any]:
    """The curves of which only the beginning is known, and cutoffs, which are taken at their end.

    R² stays as it is: it is below what counts as lost.
    """
    known: dict[str, Any] = {
        name: np.append(curve[:depth], np.full(len(curve) - depth, np.nan, curve.dtype))
        for name, curve in curves.items()
        if "entropy" in name
    }
    per_image = np.full_like(curves["cutoff_per_image"], -1)
    none = np.int32(-1)
    return {**known, "cutoff": none, "cutoff_differential": none, "cutoff_per_image": per_image}


def shown_depths(depth: int) -> list[int]:
    """Return the depths, 1-based and at most six, at which an example is kept for the figures."""
    return sorted({1, *(max(1, round(depth * part)) for part in (0.1, 0.25, 0.5, 0.75, 1.0))})


def as_bytes(images: torch.Tensor) -> np.ndarray:
    """Return images of 0 to 1 as uint8; what lies outside is cut off."""
    return (images.clamp(0, 1) * 255).round().to(torch.uint8).cpu().numpy()
