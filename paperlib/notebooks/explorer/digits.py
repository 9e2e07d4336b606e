"""The digit as it comes back from many depths: what the explorer shows beside its maps.

run_sweep(digit_sweep("mlp"))  # 13 minutes of one core; the result ships as explorer_mlp.nc
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from paperlib.core.provenance import provenance
from paperlib.core.settings import option
from paperlib.datasets import PICTURE, Dataset
from paperlib.instruments.reconstruction.points import CascadePoint, CascadeSweep, as_bytes, fitted
from paperlib.networks import untrained
from paperlib.sweep.store import load_result

MAPS = {
    "mlp": "mnist_mlp.nc",
    "cnn": "mnist_cnn.nc",
    "resnet": "resnet.nc",
}  # whose points these are
# Denser where the digit changes fast: at the wall and around the critical variance.
VARIANCES = {
    "mlp": (0.2, 0.4, 0.6, 0.8, 0.9, *(round(1 + i / 10, 1) for i in range(11)), 2.2, 2.4, 2.6,
            2.8, 3.0, 3.3, 3.6, 4.0, 4.5, 5.0, 5.5, 6.0),
    "cnn": (0.2, 0.4, 0.5, *(round(0.6 + i / 20, 2) for i in range(11)), 1.2, 1.3, 1.4, 1.6, 1.8,
            2.0, 2.5, 3.0),
    "resnet": (0.1, 0.2, 0.3, 0.4, 0.5, 0.7, 0.9, 1.1, 1.3, 1.6, 2.0, 2.4, 2.8, 3.2, 3.6, 4.0, 4.5,
               5.0, 5.5, 6.0),
}  # fmt: skip
DEPTHS = (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16, 18, 20, 23, 26, 30, 35, 40, 45, 50, 60, 70, 80, 90,
          100, 120, 140, 160, 180, 200)  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class DigitPoint(CascadePoint):
    """One network of a phase diagram, and the depths from which a digit is shown."""

    fields: ClassVar[Mapping[str, tuple[str, ...]]] = {"example": ("shown_depth", *PICTURE)}
    added: ClassVar[tuple[str, ...]] = ()

    shown: tuple[int, ...] = option(DEPTHS, low=1)

    def measure(self, data: Dataset, *, device: str = "cpu") -> dict[str, np.ndarray]:
        """Return the first test image as it comes back from the shown depths, and itself.

        Args:
            data: the point's data set.
            device: "cpu" or "cuda".

        Returns:
            `example` (shown depths, channels, height, width) in uint8, and `original`.
        """
        train = data.floats("train", limit=self.train_images, device=device)
        first = data.floats("test", limit=1, device=device)
        network = untrained(self, data.image_shape, len(data.classes)).to(device)
        cascade = fitted(self, network, train, first)
        # below the level where a fit ended, all images have come back as one, and stay one
        deepest = [min(network.stem + depth, cascade.depth) for depth in self.shown]
        levels, places = np.unique(deepest, return_inverse=True)
        pictures = cascade.reconstruct(first, levels=levels.tolist())
        return {"example": as_bytes(pictures[places, 0]), "original": as_bytes(first[0])}


@dataclass(frozen=True, kw_only=True)
class DigitSweep(CascadeSweep):
    """The digit at every variance with every seed."""

    point: ClassVar[type[DigitPoint]] = DigitPoint

    shown: tuple[int, ...] = option(DEPTHS, low=1)

    def coordinates(self) -> dict[str, Any]:
        return {**super().coordinates(), "shown_depth": np.array(self.shown)}


def digit_sweep(architecture: str) -> DigitSweep:
    """Return the settings of the digits that belong to one of MAPS: its first networks, fitted
    until their image is lost.

    Example:
        >>> from paperlib.notebooks.explorer.digits import digit_sweep
        >>> digit_sweep("resnet").shown[-1]
        50
    """
    config = provenance(load_result(MAPS[architecture]))["config"]
    sweep = DigitSweep.from_dict(config)
    shown = tuple(depth for depth in DEPTHS if depth <= sweep.depth)
    variances, first = VARIANCES[architecture], sweep.seeds[:1]
    return replace(sweep, sigma_w2=variances, seeds=first, shown=shown, until="lost")
