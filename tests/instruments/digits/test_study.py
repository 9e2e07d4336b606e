"""A study: its parts against values by hand, and the whole on made-up pictures."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from paperlib import load_dataset
from paperlib.cascade import Cascade
from paperlib.datasets import Dataset
from paperlib.instruments.digits import study
from paperlib.instruments.digits.settings import StudyPoint
from paperlib.instruments.digits.study import (
    Judges,
    Study,
    as_seen,
    chosen_images,
    class_means,
    ideal_outputs,
    margins,
    nearest,
    run_study,
)
from paperlib.networks import Network, mlp
from paperlib.training import train_network, train_point

POINT = StudyPoint(
    shape="shrinking",
    depth=3,
    optimiser="adam",
    learning_rate=0.02,
    rate_exponent=0.0,
    steps=60,
    batch_size=20,
    train_images=100,
    test_images=60,
    fit_images=80,
    shown_class=1,
)


def pictures(
    *, channels: int = 1, size: int = 4, train: int = 100, test: int = 60, classes: int = 3
) -> Dataset:
    """Noise, and for each class a bright row: easy to learn."""
    random = torch.Generator().manual_seed(0)

    def split(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.arange(count) % classes
        images = torch.randint(0, 120, (count, channels, size, size), generator=random)
        images[torch.arange(count), :, labels] += 100
        return images.to(torch.uint8), labels

    names = tuple("abcdefg"[:classes])
    return Dataset(*split(train), *split(test), "pictures", "here", "0" * 64, names)


@pytest.fixture(scope="module")
def done() -> Study:
    return run_study(POINT, data=pictures())


class Fixed(nn.Module):
    """A network whose logits are the first numbers of the image."""

    def forward(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :3]


def judges(means: Tensor) -> Judges:
    fixed = Network(nn.Sequential(nn.Flatten()), nn.Identity(), image_shape=(1, 1, 3))
    fixed.forward = Fixed()  # type: ignore[method-assign]
    return Judges(fixed, means)


# --- parts, by hand ---


def test_ideal_outputs_are_one_for_the_class_and_off_for_the_others() -> None:
    assert ideal_outputs(3, off=-0.5).tolist() == [
        [1, -0.5, -0.5],
        [-0.5, 1, -0.5],
        [-0.5, -0.5, 1],
    ]
    assert ideal_outputs(2).tolist() == [[1, -1], [-1, 1]]


def test_a_margin_is_the_own_logit_less_the_largest_other() -> None:
    logits = torch.tensor([[3.0, 1.0, 2.5], [0.0, -1.0, 4.0], [1.0, 1.0, 0.0]])
    assert margins(logits, torch.tensor([0, 1, 0])).tolist() == [0.5, -5.0, 0.0]


def test_class_means_are_the_means_of_their_images_in_float64() -> None:
    images = torch.rand(30, 2, 3, 4, generator=torch.Generator().manual_seed(0))
    labels = torch.arange(30) % 4
    found = class_means(images, labels, 5)
    assert found.shape == (5, 2, 3, 4)
    for number in range(4):
        expected = images[labels == number].double().mean(0)
        torch.testing.assert_close(found[number].double(), expected, rtol=1e-6, atol=0)
    assert found[4].isnan().all()


def test_the_nearest_mean_is_never_that_of_a_class_without_images() -> None:
    means = torch.tensor([[0.0, 0.0], [math.nan, math.nan], [1.0, 1.0]]).view(3, 1, 1, 2)
    images = torch.tensor([[0.1, 0.2], [0.9, 0.4], [5.0, 5.0]]).view(3, 1, 1, 2)
    assert nearest(images, means).tolist() == [0, 2, 2]


def test_judges_see_pictures_of_any_leading_shape() -> None:
    means = torch.eye(3).view(3, 1, 1, 3)
    shown = torch.tensor([[[0.0, 1.0, 0.0]], [[2.0, 1.9, 0.0]]]).view(2, 1, 1, 1, 3)
    assert judges(means).verdicts(shown).tolist() == [[[1], [0]], [[1], [0]]]
    assert judges(means).verdicts(shown[0]).tolist() == [[1], [1]]


def test_images_are_chosen_by_the_stated_rules() -> None:
    images = torch.tensor([
        [0.1, 0.9, 0.0],  # right, the nearest to the mean
        [0.6, 0.7, 0.0],  # right, the smallest margin
        [0.0, 5.0, 0.0],  # right, far away
        [1.0, 0.9, 0.0],  # wrong, the nearest to the mean of its class
        [9.0, 0.0, 0.0],  # wrong, far away
        [0.1, 1.0, 0.0],  # another class
    ]).view(6, 1, 1, 3)  # fmt: skip
    labels = torch.tensor([1, 1, 1, 1, 1, 0])
    means = torch.tensor([[0.0, 0.0, 0.0], [0.1, 1.0, 0.0], [0.0, 0.0, 1.0]]).view(3, 1, 1, 3)
    found = chosen_images(images, labels, judges(means), 1)
    assert found == {"typical": 0, "ambiguous": 1, "misclassified": 3}
    assert chosen_images(images[:3], labels[:3], judges(means), 1) == {
        "typical": 0,
        "ambiguous": 1,
    }
    assert chosen_images(images[3:5], labels[3:5], judges(means), 1) == {"misclassified": 0}
    means[1] = math.nan  # no training image of the class: one of its images is shown all the same
    assert "misclassified" in chosen_images(images, labels, judges(means), 1)


def test_the_class_misjudged_most_often_is_that_with_the_largest_part_wrong() -> None:
    logits = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 1, 0], [1, 0, 0], [1, 0, 0]])
    labels = torch.tensor([0, 2, 1, 0, 0, 1])  # wrong: one of one 2, one of three 0, half of the 1
    by_part = study.most_misjudged(logits.view(6, 1, 1, 3), labels, judges(torch.zeros(4, 1, 1, 3)))
    assert by_part == 2


def test_a_study_may_choose_its_class() -> None:
    result = run_study(replace(POINT, shown_class=-1, steps=1), data=pictures()).result
    label = int(result.label)
    assert pictures().test_labels[result.number.values].tolist() == [label] * len(result.number)
    assert "misclassified" in result.shown


# --- images as a network takes them ---


def test_small_images_stay_as_they_are() -> None:
    data = pictures(channels=3)
    same = as_seen(data, grey=False, numbers=48)
    assert torch.equal(same.train_images, data.train_images)
    assert (same.checksum, same.classes) == (data.checksum, data.classes)


@pytest.mark.parametrize(
    ("grey", "numbers", "shape"),
    [
        (False, 47, (3, 3, 3)),
        (True, 1000, (1, 4, 4)),
        (True, 16, (1, 4, 4)),
        (True, 4, (1, 2, 2)),
        (False, 3, (3, 1, 1)),
    ],
)
def test_larger_images_are_scaled_down_until_they_fit(
    grey: bool, numbers: int, shape: tuple[int, ...]
) -> None:
    seen = as_seen(pictures(channels=3), grey=grey, numbers=numbers)
    assert seen.image_shape == shape
    assert tuple(seen.test_images.shape) == (60, *shape)
    assert seen.test_images.dtype == torch.uint8


def test_proportions_are_kept_and_pixels_averaged(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = torch.arange(8, dtype=torch.uint8).repeat(20, 1, 4, 1) * 20
    data = replace(pictures(), train_images=wide, test_images=wide)
    monkeypatch.setattr(study, "TOGETHER", 7)  # with a remainder
    halved = as_seen(data, grey=False, numbers=8)
    assert halved.image_shape == (1, 2, 4)
    torch.testing.assert_close(
        halved.train_images.float().mean(), wide.float().mean(), rtol=0, atol=1
    )
    assert bool((halved.train_images.diff(dim=-1) > 20).all())


def test_grey_is_the_luma_of_the_data_set() -> None:
    data = pictures(channels=3)
    grey = as_seen(data, grey=True, numbers=1000)
    expected = (data.floats("test") * 255).round()
    assert torch.equal(grey.test_images, expected.to(torch.uint8))


def test_an_image_holds_at_least_one_pixel() -> None:
    with pytest.raises(ValueError, match="numbers must be >= 3, one pixel; got 2"):
        as_seen(pictures(channels=3), grey=False, numbers=2)


# --- the training itself ---


def test_a_trained_network_is_handed_out_with_what_it_has_learnt() -> None:
    data = pictures()
    network, learnt = train_network(POINT, data=data)
    assert float(learnt["loss"]) == float(train_point(POINT, data=data)["loss"])
    right = network(data.floats("test")).argmax(1) == data.test_labels
    assert float(learnt["accuracy"]) == pytest.approx(float(right.double().mean()))
    assert learnt["accuracy"] > 0.9


def test_a_network_may_take_colours() -> None:
    data = pictures(channels=3)
    network, _ = train_network(POINT, data=data, grey=False)
    assert network.image_shape == (3, 4, 4)
    assert train_network(POINT, data=data)[0].image_shape == (1, 4, 4)


# --- the whole ---


def test_a_study_holds_what_its_cascade_and_judges_say(done: Study) -> None:
    result, data = done.result, pictures()
    trained = result.sel(state="trained")
    numbers = result.number.values
    images = data.floats("test")[numbers]
    assert data.test_labels[numbers].tolist() == [1] * len(numbers)
    back = done.cascade.reconstruct(images)
    found = trained.picture.transpose("level", "shown", "channel", "row", "column").values
    np.testing.assert_allclose(found[0], images.numpy())
    np.testing.assert_allclose(found[1:], back.numpy(), atol=1e-5)
    ideal = done.cascade.ideal_input(ideal_outputs(3))
    np.testing.assert_allclose(trained.ideal.values, ideal.numpy(), atol=1e-5)
    seen = trained.verdict.sel(judge="network").transpose("level", "shown").values
    with torch.no_grad():
        expected = [done.judges.network(level).argmax(1).tolist() for level in [images, *back]]
    assert seen.tolist() == expected


def test_what_comes_back_is_measured_against_the_mean_training_image(done: Study) -> None:
    data, trained = pictures(), done.result.sel(state="trained")
    mean = data.floats("train").double().mean(0)
    for kind, number in zip(done.result.shown.values, done.result.number.values, strict=True):
        image = data.floats("test")[number].double()
        picture = torch.from_numpy(trained.picture.sel(shown=kind, level=2).values).double()
        expected = 1 - (picture - image).square().sum() / (image - mean).square().sum()
        found = trained.r_squared.sel(shown=kind)
        assert float(found.sel(level=2)) == pytest.approx(float(expected), abs=1e-5)
        assert float(found.sel(level=0)) == 1
        assert float(trained.relative_entropy.sel(shown=kind, level=0)) == pytest.approx(0)


def test_rates_of_many_images_agree_with_counting_them(done: Study) -> None:
    data, trained = pictures(), done.result.sel(state="trained")
    images, labels = data.floats("test"), data.test_labels
    with torch.no_grad():
        believed = done.judges.network(images).argmax(1)
        seen = done.judges.network(done.cascade.reconstruct(images, levels=2)[0]).argmax(1)
    at = trained.sel(judge="network", level=2)
    assert float(at.right) == pytest.approx(float((seen == labels).double().mean()))
    assert float(at.faithful) == pytest.approx(float((seen == believed).double().mean()))
    assert float(trained.faithful.sel(judge="network", level=0)) == 1
    accuracy = float(trained.right.sel(judge="network", level=0))
    assert accuracy == pytest.approx(float(done.result.accuracy))


def test_training_teaches_what_an_ideal_input_is(done: Study) -> None:
    known = (done.result.ideal_verdict == np.arange(3)).sum("class")
    assert known.sel(state="trained").values.tolist() == [3, 3]
    changed = done.result.ideal.sel(state="trained") - done.result.ideal.sel(state="untrained")
    assert float(np.abs(changed).max()) > 0.1


def test_before_training_the_cascade_is_that_of_the_initial_network() -> None:
    still = run_study(replace(POINT, steps=0), data=pictures()).result
    for name in ("picture", "ideal", "right"):
        first, second = (still[name].sel(state=state) for state in still.state.values)
        np.testing.assert_array_equal(first.values, second.values)


@pytest.mark.parametrize("solver", ["ridge", "adam"])
def test_the_same_seed_gives_the_same_study(solver: str) -> None:
    point = replace(POINT, solver=solver, steps=10)
    state = torch.get_rng_state()
    first, second = (run_study(point, data=pictures()).result for _ in range(2))
    drop = ["seconds"]
    xr.testing.assert_identical(
        first.drop_vars(drop).drop_attrs(), second.drop_vars(drop).drop_attrs()
    )
    assert torch.equal(torch.get_rng_state(), state)
    other = run_study(replace(point, seed=1), data=pictures()).result
    assert not np.array_equal(first.picture.values, other.picture.values)


@pytest.mark.parametrize("solver", ["ridge", "adam"])
def test_a_trained_network_with_a_head_is_inverted_by_both_solvers(solver: str) -> None:
    network, _ = train_network(POINT, data=pictures())
    train = pictures().floats("train")
    fitted = Cascade.for_network(network, train[:1]).fit(train, solver=solver)
    assert fitted.depth == 3
    assert fitted.reconstruct(train[:2], levels=[3, 1]).shape == (2, 2, 1, 4, 4)
    assert fitted.ideal_input(ideal_outputs(3)).shape == (3, 1, 4, 4)


def test_colour_is_kept_unless_grey_is_asked_for() -> None:
    colour = run_study(replace(POINT, steps=2), data=pictures(channels=3)).result
    assert colour.sizes["channel"] == 3
    grey = run_study(replace(POINT, steps=2, grey=True), data=pictures(channels=3)).result
    assert grey.sizes["channel"] == 1
    assert json.loads(grey.attrs["provenance"])["data"]["image_shape"] == [1, 4, 4]


def test_the_provenance_names_data_settings_and_commit(done: Study) -> None:
    about = json.loads(done.result.attrs["provenance"])
    assert about["config"] == POINT.as_dict()
    assert (about["data"]["name"], about["data"]["train_images"]) == ("pictures", 100)
    assert {"commit", "versions"} <= about["computed"][0].keys()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"shown_class": 3},
            "shown_class must be one of 0 … 2, the classes of pictures, or .* got 3",
        ),
        ({"shown_class": 2, "test_images": 2}, r"none of 2 test images .* class 2 \(c\)"),
        (
            {"activation": "linear", "learning_rate": 1e30, "optimiser": "sgd"},
            "diverged after .* steps; .* got 1e.30: use a smaller one",
        ),
    ],
)
def test_a_study_that_cannot_be_made_says_why(changes: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_study(replace(POINT, **changes), data=pictures())


@pytest.mark.slow
def test_a_small_network_knows_its_ideal_digits() -> None:
    point = replace(POINT, dataset="digits", learning_rate=3e-4, batch_size=50, steps=120)
    point = replace(point, train_images=1400, test_images=300, shown_class=5)
    found = run_study(point, data=load_dataset("digits"))
    known = (found.result.ideal_verdict == np.arange(10)).sum("class").sel(state="trained")
    assert float(found.result.accuracy) > 0.9
    assert known.values.min() >= 9


def test_a_wide_network_has_no_ideal_outputs_of_its_classes() -> None:
    wide = mlp((1, 4, 4), depth=2, classes=3)
    train = pictures().floats("train")
    fitted = Cascade.for_network(wide, train[:1]).fit(train)
    with pytest.raises(ValueError, match=r"shape \(batch, 16\), got \(3, 3\)"):
        fitted.ideal_input(ideal_outputs(3))
