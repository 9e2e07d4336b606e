"""The method, step by step, on one image: its activations, and what each cascade makes of them."""

import json
from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from paperlib import measures
from paperlib.activations.stages import of_stages
from paperlib.cascade import Cascade
from paperlib.core.provenance import about_one
from paperlib.core.threads import one_thread
from paperlib.datasets import PICTURE, Dataset
from paperlib.instruments.reconstruction.points import CascadePoint, fitted
from paperlib.networks import untrained
from paperlib.sweep.plan import load_data

CODE_VERSION = 1  # raised when a change to the code changes the numbers


@torch.no_grad()
def run_procedure(
    point: CascadePoint, *, image: int = 0, data: Dataset | None = None
) -> xr.Dataset:
    """One test image on its way through a small untrained network, and back from every stage.

    Args:
        point: the network and the fit of its cascade; its levels must have one shape.
        image: which of the test images.
        data: the point's data set, where it is loaded already.

    Returns:
        `activation` (level, unit) from level 1 on; `estimate` (cascade, level, unit), what the
        cascade from level `cascade` makes of `level` on its way to the image: the activation itself
        where it begins, NaN beyond; `input` and `reconstruction` (cascade, …), pictures (channel,
        row, column) in float32; `r_squared` (cascade) of all test images.

    Raises:
        ValueError: no such test image, or levels of several shapes.
    """
    data = data or load_data(point)
    train, test = (data.floats(s, limit=getattr(point, f"{s}_images")) for s in ("train", "test"))
    if image not in range(len(test)):
        raise ValueError(f"image must be one of the {len(test)} test images from 0 on, got {image}")
    if point.architecture != "mlp" or point.shape != "wide":
        raise ValueError(
            "the procedure is drawn of a wide MLP, whose levels have one shape; "
            f"got {point.architecture}, {point.shape}"
        )
    with one_thread():
        network = untrained(point, data.image_shape, len(data.classes))
        cascade = fitted(point, network, train)
        levels = np.arange(1, point.depth + 1)
        activations = list(of_stages(network.stages, test[image : image + 1]).values())
        pictures = cascade.reconstruct(test)
        kept = measures.r_squared(test, pictures, mean=train.mean(0))
        estimates = _estimates(cascade, activations)
    about = about_one(point, data, code_version=CODE_VERSION)
    return xr.Dataset(
        {
            "input": (PICTURE, test[image].numpy()),
            "activation": (("level", "unit"), torch.cat(activations).numpy()),
            "estimate": (("cascade", "level", "unit"), estimates.numpy()),
            "reconstruction": (("cascade", *PICTURE), pictures[:, image].numpy()),
            "r_squared": ("cascade", kept.numpy()),
        },
        {"level": levels, "cascade": levels},
        {"provenance": json.dumps(about, sort_keys=True)},
    )


def _estimates(cascade: Cascade, activations: Sequence[Tensor]) -> Tensor:
    """The activation of every level as every cascade passes it, (cascade, level, unit)."""
    depth = cascade.depth
    found = torch.full((depth, depth, activations[0].shape[1]), torch.nan)
    for start in range(1, depth + 1):
        for level in range(1, start + 1):
            passed = cascade.from_activation(activations[start - 1], start, to=level)
            found[start - 1, level - 1] = passed[0]
    return found
