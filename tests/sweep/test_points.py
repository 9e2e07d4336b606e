"""One point of a grid: what it measures, and that its numbers stay those of its code version."""

import numpy as np
import pytest
import torch

from paperlib import Cascade, initialise, load_dataset, measures, mlp
from paperlib.instruments.prediction.points import PredictorPoint
from paperlib.instruments.reconstruction import points
from paperlib.instruments.reconstruction.points import CascadePoint, shown_depths
from paperlib.networks.experiment import Point
from paperlib.sweep.points import measure_point
from paperlib.training import TrainingPoint


def test_a_point_is_the_measures_of_its_cascade() -> None:
    point = CascadePoint(
        dataset="digits", depth=3, width=24, sigma_w2=1.3, seed=5, train_images=100, test_images=20
    )
    measured = measure_point(point)
    data = load_dataset("digits", limit=100)
    train, test = data.floats("train"), data.floats("test")[:20]
    network = mlp((1, 28, 28), depth=3, width=24)
    initialise(network, sigma_w2=1.3, sigma_b2=0.05, seed=5)
    pictures = Cascade.for_network(network, train[:1]).fit(train, seed=5).reconstruct(test)
    relative = measures.relative_entropy(test, pictures)
    expected = {
        "relative_entropy": relative.mean(1),
        "differential_entropy": measures.differential_entropy(pictures),
        "differential_entropy_published": measures.differential_entropy_published(pictures),
        "gram_entropy": measures.gram_entropy(pictures),
        "r_squared": measures.r_squared(test, pictures, mean=train.mean(0)),
    }
    for name, curve in expected.items():
        np.testing.assert_allclose(measured[name], curve, rtol=1e-3, atol=1e-4)
    published = expected["differential_entropy_published"]
    assert measured["cutoff"] == measures.cutoff(relative, rtol=0.005)
    assert measured["cutoff_differential"] == measures.cutoff(published[:, None], rtol=0.005)
    assert measured["cutoff_per_image"].tolist() == measures.cutoffs(relative, rtol=0.005).tolist()
    assert len(measured["cutoff_per_image"]) == 20
    assert measured["example"].shape == (3, 1, 28, 28)
    np.testing.assert_array_equal(measured["original"], (test[0] * 255).round())


SMALL = {"dataset": "digits", "depth": 2, "width": 8, "train_images": 50}


@pytest.mark.parametrize(
    "point",
    [
        CascadePoint(**SMALL, test_images=5),
        TrainingPoint(**SMALL, test_images=5, steps=2),
        PredictorPoint(**SMALL, predictors=("random", "snip")),
    ],
    ids=lambda point: type(point).__name__,
)
def test_a_point_measures_every_field_that_its_class_names(point: Point) -> None:
    measured = measure_point(point)
    assert set(measured) == {*point.fields, *point.shared}
    for name, dims in {**point.fields, **point.shared}.items():
        assert np.ndim(measured[name]) == len(dims), name


def test_only_what_was_added_later_may_be_missing_from_a_point() -> None:
    kind = CascadePoint
    assert kind.fields_in(()) == [*points.CURVES, "cutoff", "example"]
    assert kind.fields_in(kind.fields) == list(kind.fields)
    for other in (TrainingPoint, PredictorPoint):
        assert other.fields_in(()) == list(other.fields)


def test_a_point_measured_until_the_image_is_lost_is_the_whole_one() -> None:
    shared = {"dataset": "digits", "depth": 40, "width": 30, "sigma_w2": 0.05, "train_images": 200}
    whole = measure_point(CascadePoint(**shared))
    part = measure_point(CascadePoint(**shared, until="lost"))
    depth = int(part["measured_depth"])
    assert 0 < depth < whole["measured_depth"] == 40
    assert np.isnan(part["inverse_loss"][depth:]).all()
    np.testing.assert_array_equal(part["inverse_loss"][:depth], whole["inverse_loss"][:depth])
    for name, tolerance in [
        ("r_squared", 1e-3),
        ("relative_entropy", 1e-3),
        ("differential_entropy_published", 0.02),
        ("differential_entropy", 0.02),
    ]:
        np.testing.assert_allclose(part[name], whole[name], atol=tolerance)
    assert part["cutoff"] == whole["cutoff"]


@pytest.mark.parametrize("sigma_w2", [0.05, 1.7, 6.0])
def test_a_point_measured_until_r_squared_is_lost_knows_its_depth_and_not_what_lies_below(
    sigma_w2: float,
) -> None:
    shared = {"dataset": "digits", "depth": 60, "width": 64, "train_images": 300}
    whole = measure_point(CascadePoint(**shared, sigma_w2=sigma_w2))
    part = measure_point(CascadePoint(**shared, sigma_w2=sigma_w2, until="r_squared"))
    depth = int(part["measured_depth"])
    assert (depth < 60) == (sigma_w2 != 1.7)
    assert measures.collapse_depth(part["r_squared"]) == measures.collapse_depth(whole["r_squared"])
    np.testing.assert_allclose(part["r_squared"], whole["r_squared"], atol=0.02)
    unknown = depth < 60 and sigma_w2 == 6.0  # in the ordered phase all has collapsed
    for name in points.CURVES:
        beyond = part[name][depth:]
        np.testing.assert_allclose(part[name][:depth], whole[name][:depth], atol=1e-3)
        assert (
            np.isnan(beyond).all() if unknown and name != "r_squared" else np.isfinite(beyond).all()
        )
    assert part["cutoff"] == (-1 if unknown else whole["cutoff"])
    assert (part["cutoff_per_image"] == -1).all() == unknown


def test_a_point_of_chosen_measures_has_their_numbers_and_says_that_it_lacks_the_others() -> None:
    shared = {**SMALL, "sigma_w2": 1.3, "test_images": 5}
    whole = measure_point(CascadePoint(**shared))
    for chosen, cutoffs in [
        (("gram_entropy",), ()),
        (("relative_entropy",), ("cutoff", "cutoff_per_image")),
        (("differential_entropy_published", "differential_entropy"), ("cutoff_differential",)),
    ]:
        part = measure_point(CascadePoint(**shared, measures=chosen))
        for name in points.MEASURES:
            if name in (*chosen, "r_squared"):
                np.testing.assert_array_equal(part[name], whole[name])
            else:
                assert np.isnan(part[name]).all()
                assert part[name].shape == whole[name].shape
        for name in ("cutoff", "cutoff_differential", "cutoff_per_image"):
            expected = whole[name] if name in cutoffs else np.full_like(whole[name], -1)
            np.testing.assert_array_equal(part[name], expected)
            assert part[name].dtype == whole[name].dtype
        np.testing.assert_array_equal(part["example"], whole["example"])


def test_the_order_of_chosen_measures_is_none_of_a_points_identity() -> None:
    one = CascadePoint(measures=("r_squared", "gram_entropy"))
    assert one == CascadePoint(measures=("gram_entropy",))
    assert one != CascadePoint()
    assert CascadePoint(measures=points.MEASURES[::-1]) == CascadePoint()
    assert "measures" not in CascadePoint().identifying()
    with pytest.raises(ValueError, match="measures"):
        CascadePoint(measures=("entropy",))


def test_pictures_that_overflow_leave_a_cutoff_of_minus_one_and_the_point_its_other_numbers() -> (
    None
):
    generator = torch.Generator().manual_seed(0)
    test = torch.rand(4, 1, 3, 3, generator=generator)
    pictures = torch.rand(3, 4, 1, 3, 3, generator=generator)
    pictures[1, 2, 0, 0, 0] = torch.inf
    curves = points._curves(test, pictures, mean=test.mean(0), rtol=0.01)
    assert curves["cutoff_differential"] == -1
    assert (curves["cutoff_per_image"] == -1).tolist() == [False, False, True, False]
    assert curves["cutoff"] >= 0


def test_shown_depths_run_from_the_first_to_the_last() -> None:
    assert shown_depths(200) == [1, 20, 50, 100, 150, 200]
    assert shown_depths(1) == [1]


# Written down once. If they change, results of before and after must not be mixed: raise
# the point's code_version, then write down the new ones.
GOLDEN = {
    "ridge": (0.8928, 0.8145, 0.7593, 0.7234),
    "adam": (-4.4158, -3.9873, -3.6877, -3.5829),
}
LOSS = 1.8516
SCORES = {"r_squared_ridge": 0.6895, "gradient_ratio": -1.8758, "snip": 17.4801}


@pytest.mark.parametrize("solver", ["ridge", "adam"])
def test_the_numbers_are_those_of_this_code_version(solver: str) -> None:
    point = CascadePoint(
        dataset="digits", depth=4, width=32, sigma_w2=1.7, solver=solver,
        train_images=256, test_images=20,
    )  # fmt: skip
    curve = measure_point(point)["r_squared"]
    assert CascadePoint.code_version == 1
    np.testing.assert_allclose(
        curve, GOLDEN[solver], atol=2e-3, err_msg="the numbers changed: raise code_version"
    )


def test_the_numbers_of_a_training_are_those_of_this_code_version() -> None:
    point = TrainingPoint(dataset="digits", depth=4, width=32, steps=20)
    assert TrainingPoint.code_version == 1
    assert measure_point(point)["loss"] == pytest.approx(LOSS, abs=2e-3)


def test_the_numbers_of_a_prediction_are_those_of_this_code_version() -> None:
    names = tuple(SCORES)
    point = PredictorPoint(dataset="digits", depth=4, width=32, train_images=200, predictors=names)
    assert PredictorPoint.code_version == 1
    last = measure_point(point)["scores"][:, -1]
    assert dict(zip(names, last, strict=True)) == pytest.approx(SCORES, abs=2e-3, rel=1e-3)


def test_the_ordered_phase_loses_the_image_and_the_critical_one_keeps_it() -> None:
    def curve(sigma_w2: float) -> np.ndarray:
        point = CascadePoint(
            dataset="digits", depth=20, width=200, sigma_w2=sigma_w2, train_images=600
        )
        return measure_point(point)["r_squared"]

    ordered, critical = curve(0.4), curve(1.7)
    assert measures.collapse_depth(ordered) < 15
    assert measures.collapse_depth(critical) == 21
    assert critical[-1] > 0.5
    assert np.all(np.diff(critical) < 0.01)  # depth never brings an image back
