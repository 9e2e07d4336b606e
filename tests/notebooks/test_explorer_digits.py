"""The digits that come back, and the matrix from outputs to a digit, against the cascade itself."""

from dataclasses import replace

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose, assert_array_equal

from paperlib import Cascade, load_dataset
from paperlib.core import paths
from paperlib.core.provenance import provenance
from paperlib.instruments.digits.settings import StudyPoint
from paperlib.instruments.digits.study import run_study
from paperlib.networks import untrained
from paperlib.notebooks.explorer import contents
from paperlib.notebooks.explorer.digits import MAPS, DigitPoint, DigitSweep, digit_sweep
from paperlib.notebooks.explorer.outputs import output_map
from paperlib.sweep.store import load_result

POINT = DigitPoint(dataset="digits", depth=6, sigma_w2=0.2, shown=(1, 3, 6), train_images=200)


def test_the_digit_of_a_point_is_what_its_cascade_makes_of_the_first_test_image() -> None:
    data = load_dataset("digits")
    found = POINT.measure(data)
    train, first = data.floats("train")[:200], data.floats("test")[:1]
    network = untrained(POINT, data.image_shape, len(data.classes))
    cascade = Cascade.for_network(network, train[:1]).fit(train, resolution=POINT.resolution)
    pictures = cascade.reconstruct(first)[[0, 2, 5], 0].clamp(0, 1) * 255
    assert_array_equal(found["example"], pictures.round().to(torch.uint8).numpy())
    assert_array_equal(found["original"], (first[0] * 255).round().to(torch.uint8).numpy())


def test_below_the_depth_where_the_fit_ended_the_digit_stays_as_it_is() -> None:
    found = replace(POINT, depth=12, shown=(1, 11, 12), until="lost").measure(
        load_dataset("digits")
    )
    first, *last = found["example"].astype(int)
    assert_array_equal(*last)
    assert abs(first - last[0]).max() > 50


@pytest.mark.parametrize("architecture", MAPS)
def test_the_shipped_digits_are_of_points_of_the_map(architecture: str) -> None:
    result, shipped = load_result(MAPS[architecture]), contents.digits_of(architecture)
    assert DigitSweep.from_dict(provenance(shipped)["config"]) == digit_sweep(architecture)
    assert provenance(shipped)["data"]["checksum"] == provenance(result)["data"]["checksum"]
    assert bool((shipped["finished"] == 1).all())
    both = [set(one["shown_depth"].values) for one in (result, shipped)]
    depths, variances = sorted(both[0] & both[1]), shipped["sigma_w2"].values
    pairs = [
        one["example"].sel(sigma_w2=variances, shown_depth=depths)
        for one in (result.isel(seed=0), shipped)
    ]
    # alike where the fit of the one did not end before; rounding
    assert len(depths) >= 3
    assert float(np.mean(abs(pairs[0].astype(int) - pairs[1].astype(int)))) < 2


def test_the_picture_of_outputs_is_the_matrix_times_the_outputs() -> None:
    point = StudyPoint(dataset="digits", shape="shrinking", depth=3, steps=30, fit_images=300)
    found, study = output_map(point), run_study(point)
    outputs = torch.linspace(-1, 1, 10)
    ideal = study.cascade.ideal_input(outputs[None])[0]
    made = found["bias"].values + np.einsum("c,cijk->ijk", outputs.numpy(), found["weight"].values)
    assert_allclose(made, ideal.numpy(), atol=1e-5)


def test_the_shipped_matrix_gives_the_ideal_digits_of_notebook_05() -> None:
    shipped = load_result("explorer_outputs.nc")
    three = np.full(10, -1.0)
    three[3] = 1
    made = shipped["bias"].values + np.einsum("c,cijk->ijk", three, shipped["weight"].values)
    assert made.shape == (1, 28, 28)
    images = load_dataset("mnist") if (paths.data_root() / "mnist.npz").exists() else None
    if images is None:
        pytest.skip("MNIST is not here")
    pictures, labels = images.floats("test"), images.labels("test")
    means = torch.stack([pictures[labels == k].mean(0) for k in range(10)]).numpy()
    assert np.argmin([np.abs(made - mean).sum() for mean in means]) == 3
