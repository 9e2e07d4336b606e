"""What the paper says, to be compared with."""

from collections.abc import Mapping
from typing import Any

import xarray as xr

from paperlib.core.provenance import provenance

PUBLISHED_DEPTHS = {0.6: 16, 1.1: 38, 1.4: 87, 1.5: 120}
PUBLISHED_WALLS = {"cnn": {30: 0.65, 50: 0.78, 100: 0.87, 400: 0.97}, "resnet": {50: 0.95}}
# Block from which the published ResNet's picture is darkest, by σ_w², by eye: its edge is ragged.
# The axis of the figure counts the three stages of the stem; they are taken off here.
PUBLISHED_RESNET_DEPTHS = {0.1: 5, 0.2: 9, 0.3: 16, 0.5: 26, 0.7: 35, 0.95: 47}
EDGE = -10.0  # nats at which the colours of the published figures of convolutional networks end
# Of pictures shifted to minimum 0 first, and of pictures as they are.
ENTROPY_PUBLISHED, ENTROPY = "differential_entropy_published", "differential_entropy"


def published_depths(result: xr.Dataset) -> dict[float, int]:
    """Return the published depth by σ_w² for a result of the published network, else nothing.

    Read off the figure of arXiv:2406.12916: where the differential entropy crosses -13.

    Example:
        >>> from paperlib import load_result
        >>> from paperlib.plots import published_depths
        >>> published_depths(load_result("mnist_cnn_adam.nc"))  # read off for the MLP on MNIST only
        {}
    """
    published = {"architecture": "mlp", "shape": "wide", "width": 0, "sigma_b2": 0.05}
    return dict(PUBLISHED_DEPTHS) if _is_of(result, "mnist", published) else {}


def published_resnet_depths(result: xr.Dataset) -> dict[float, int]:
    """Return the published depths of loss by σ_w² for a result of the published ResNet, by eye.

    Example:
        >>> from paperlib import load_result
        >>> from paperlib.plots.published import published_resnet_depths
        >>> published_resnet_depths(load_result("resnet.nc"))  # of another block
        {}
    """
    published = {"architecture": "resnet", "block": "published", "channels": 32, "sigma_b2": 2e-5}
    return dict(PUBLISHED_RESNET_DEPTHS) if _is_of(result, "fashion_mnist", published) else {}


def _is_of(result: xr.Dataset, data: str, network: Mapping[str, Any]) -> bool:
    """Whether a result is of this data set and of a tanh network with these settings."""
    about = provenance(result)
    wanted = {**network, "activation": "tanh"}
    same = all(about["config"].get(name) == value for name, value in wanted.items())
    return same and about["data"]["name"] == data


def published_entropy(result: xr.Dataset) -> str:
    """Return the name of the entropy in a result that is compared with published values.

    The published one where every finished point has it; else this package's, of pictures that are
    not shifted, and figures and tables say so: the two are not mixed.

    Example:
        >>> from paperlib import load_result
        >>> from paperlib.plots import published_entropy
        >>> published_entropy(load_result("mnist_mlp_adam.nc"))
        'differential_entropy'
    """
    if ENTROPY_PUBLISHED in result:
        known = result[ENTROPY_PUBLISHED].notnull().any("depth")
        if (known | (result["finished"] != 1)).all():
            return ENTROPY_PUBLISHED
    return ENTROPY
