"""The method on one image: against the cascade's own reconstructions."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from test_study import pictures

from paperlib.cascade import Cascade
from paperlib.instruments.reconstruction.points import CascadePoint
from paperlib.instruments.reconstruction.procedure import run_procedure
from paperlib.measures import r_squared
from paperlib.networks import untrained

POINT = CascadePoint(depth=3, width=9, train_images=80, test_images=20)


@pytest.fixture(scope="module", params=["ridge", "adam"])
def result(request: pytest.FixtureRequest) -> xr.Dataset:
    return run_procedure(replace(POINT, solver=request.param), image=4, data=pictures())


def test_activations_are_those_of_the_network(result: xr.Dataset) -> None:
    network = untrained(POINT, (1, 4, 4), 3)
    image = pictures().floats("test")[4:5]
    with torch.no_grad():
        for level in (1, 2, 3):
            expected = network.stages[:level](image)[0].numpy()
            np.testing.assert_allclose(result.activation.sel(level=level), expected, rtol=1e-6)
    np.testing.assert_allclose(result.input, image[0])


def test_a_cascade_begins_at_the_activation_and_passes_every_level_below(
    result: xr.Dataset,
) -> None:
    for start in (1, 2, 3):
        begun = result.estimate.sel(cascade=start, level=start)
        np.testing.assert_array_equal(begun, result.activation.sel(level=start))
        missing = result.estimate.sel(cascade=start).isnull().any("unit")
        assert missing.values.tolist() == [level > start for level in (1, 2, 3)]


def test_pictures_are_what_the_cascade_makes_of_the_last_estimate(result: xr.Dataset) -> None:
    settings = json.loads(result.attrs["provenance"])["config"]
    data = pictures()
    train, test = data.floats("train")[:80], data.floats("test")[:20]
    cascade = Cascade.for_network(untrained(POINT, (1, 4, 4), 3), train[:1]).fit(
        train, solver=settings["solver"], resolution=settings["resolution"]
    )
    for start in (1, 2, 3):
        first = torch.from_numpy(result.estimate.sel(cascade=start, level=1).values)
        picture = cascade.from_activation(first[None], 1)[0]
        found = result.reconstruction.sel(cascade=start).values
        np.testing.assert_allclose(found, picture, atol=1e-5)
    kept = r_squared(test, cascade.reconstruct(test), mean=train.mean(0))
    np.testing.assert_allclose(result.r_squared, kept, atol=1e-6)


@pytest.mark.parametrize(
    ("point", "image", "message"),
    [
        (POINT, 20, "one of the 20 test images from 0 on, got 20"),
        (POINT, -1, "got -1"),
        (replace(POINT, architecture="cnn"), 0, "of a wide MLP, .* got cnn, wide"),
        (replace(POINT, shape="shrinking", width=0), 0, "got mlp, shrinking"),
    ],
)
def test_a_procedure_that_cannot_be_drawn_says_why(
    point: CascadePoint, image: int, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        run_procedure(point, image=image, data=pictures())
