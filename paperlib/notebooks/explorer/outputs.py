"""From ten outputs set by hand to the digit that they stand for: one matrix, as affine inverses
compose.

save_result(output_map(), Path("explorer_outputs.nc"))  # trains notebook 05's network: 90 s
"""

import torch
import xarray as xr

from paperlib.activations.stages import output_of
from paperlib.datasets import PICTURE
from paperlib.instruments.digits.parameters import DigitReconstructions
from paperlib.instruments.digits.settings import StudyPoint
from paperlib.instruments.digits.study import run_study
from paperlib.notebooks import catalogue

NOTEBOOK = "05_digit_reconstructions"


def committed_point() -> StudyPoint:
    """Return the settings of the network that the committed notebook shows."""
    return DigitReconstructions.from_dict(catalogue.given_by(NOTEBOOK)).point()


def output_map(point: StudyPoint | None = None) -> xr.Dataset:
    """Return the picture that a trained network's cascade makes of any outputs, as one matrix.

    Args:
        point: of the network; None: `committed_point()`.

    Returns:
        `weight` (class, channel, row, column) and `bias` (channel, row, column): the picture of
        outputs y is bias + Σ y·weight, not cut off at 0 and 1. Of the images that the notebook
        shows, `outputs` (shown, class) and `picture` (shown, channel, row, column).
    """
    study = run_study(point or committed_point())
    classes = study.result.sizes["class"]
    bias, *units = study.cascade.ideal_input(
        torch.cat([torch.zeros(1, classes), torch.eye(classes)])
    )
    weight = torch.stack(units) - bias
    images = study.images[study.result["number"].values.tolist()]
    outputs = output_of(study.judges.network.stages, images)
    return xr.Dataset(
        {
            "weight": (("class", *PICTURE), weight.numpy()),
            "bias": (PICTURE, bias.numpy()),
            "outputs": (("shown", "class"), outputs.numpy()),
            "picture": (("shown", *PICTURE), images.numpy()),
        },
        {name: study.result[name].values for name in ("class", "shown")},
        {"provenance": study.result.attrs["provenance"]},
    )
