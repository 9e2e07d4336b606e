"""Training: against a loop written out by hand, together as alone, and where it cannot succeed."""

import math
import time
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from paperlib import initialise, load_dataset, mlp
from paperlib.core.seeds import random_numbers
from paperlib.datasets import Dataset
from paperlib.training import TrainingPoint, learning_rate, train_point, train_points, training

POINT = TrainingPoint(
    seed=3,
    width=8,
    depth=2,
    learning_rate=0.1,
    steps=7,
    batch_size=8,
    train_images=30,
    test_images=40,
)
RESULTS = {"accuracy", "loss", "steps", "diverged", "seconds"}


def pictures(*, channels: int = 1, train: int = 30, test: int = 40, classes: int = 3) -> Dataset:
    """Noise, and for each class two brighter pixels of six: easy to learn, but not in one step."""
    random = torch.Generator().manual_seed(0)

    def split(count: int) -> tuple[Tensor, Tensor]:
        labels = torch.randint(classes, (count,), generator=random)
        images = torch.randint(0, 150, (count, channels, 3, 2), generator=random)
        images[torch.arange(count), :, labels] += 100
        return images.to(torch.uint8), labels

    names = tuple(str(n) for n in range(classes))
    return Dataset(*split(train), *split(test), "pictures", "here", "0" * 64, names)


def numbers(result: dict[str, np.ndarray]) -> dict[str, float]:
    """What does not depend on the clock."""
    return {name: float(value) for name, value in result.items() if name != "seconds"}


def assert_same(
    first: dict[str, np.ndarray], second: dict[str, np.ndarray], **limits: float
) -> None:
    # NaN is the loss of a budget without steps
    assert numbers(first) == pytest.approx(numbers(second), nan_ok=True, **limits)


# --- against plain torch ---


def grey(images: Tensor) -> Tensor:
    """Images in [0, 1] with one channel: the luma of ITU-R BT.601 where they have colours."""
    images = images.double() / 255
    if images.shape[1] == 1:
        return images
    red, green, blue = images.split(1, dim=1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def batches(point: TrainingPoint, data: Dataset) -> Iterator[tuple[Tensor, Tensor]]:
    """Each epoch in a new order, what does not fill a batch left out."""
    images = grey(data.train_images[: point.train_images])
    labels = data.train_labels[: point.train_images]
    generator = random_numbers("batches", point.seed)
    size = min(point.batch_size, len(labels))
    while True:
        order = torch.randperm(len(labels), generator=generator)
        for start in range(0, len(labels) - size + 1, size):
            chosen = order[start : start + size]
            yield images[chosen], labels[chosen]


def by_hand(point: TrainingPoint, data: Dataset) -> tuple[list[float], float]:
    """The loss of every step and the accuracy at the end, in float64, each update spelt out."""
    net = mlp(
        (1, *data.image_shape[1:]),
        depth=point.depth,
        width=point.width,
        activation=point.activation,
        classes=len(data.classes),
    )
    initialise(net, sigma_w2=point.sigma_w2, sigma_b2=point.sigma_b2, seed=point.seed)
    parameters = list(net.double().parameters())
    means = [torch.zeros_like(p) for p in parameters]
    squares = [torch.zeros_like(p) for p in parameters]
    rate = point.learning_rate / point.depth**point.rate_exponent
    stream, losses = batches(point, data), []
    for step in range(1, point.steps + 1):
        images, labels = next(stream)
        logits = net(images)
        loss = (logits.exp().sum(1).log() - logits[torch.arange(len(labels)), labels]).mean()
        losses.append(loss.item())
        gradients = torch.autograd.grad(loss, parameters)
        with torch.no_grad():
            for p, g, m, v in zip(parameters, gradients, means, squares, strict=True):
                if point.optimiser == "sgd":
                    p -= rate * g
                else:
                    m.copy_(0.9 * m + 0.1 * g)
                    v.copy_(0.999 * v + 0.001 * g**2)
                    p -= rate * (m / (1 - 0.9**step)) / ((v / (1 - 0.999**step)).sqrt() + 1e-8)
    test = grey(data.test_images[: point.test_images])
    right = net(test).argmax(1) == data.test_labels[: point.test_images]
    return losses, right.double().mean().item()


@pytest.mark.parametrize("activation", ["tanh", "relu"])
@pytest.mark.parametrize(("optimiser", "rate"), [("sgd", 0.1), ("adam", 0.02)])
@pytest.mark.parametrize("steps", [1, 7, 30])  # three batches are an epoch, with a remainder of 6
def test_training_is_the_loop_by_hand(
    optimiser: str, rate: float, activation: str, steps: int
) -> None:
    point = replace(
        POINT, optimiser=optimiser, learning_rate=rate, activation=activation, steps=steps
    )
    losses, accuracy = by_hand(point, pictures())
    result = train_point(point, data=pictures())
    assert set(result) == RESULTS
    assert numbers(result) == {
        "accuracy": pytest.approx(accuracy, abs=1e-6),
        "loss": pytest.approx(np.mean(losses[-max(1, steps // 10) :]), rel=1e-4),
        "steps": steps,
        "diverged": 0,
    }
    # another rate is told apart: the comparison above can fail
    slower, _ = by_hand(replace(point, learning_rate=rate * 0.99, steps=steps + 1), pictures())
    true, _ = by_hand(replace(point, steps=steps + 1), pictures())
    assert abs(slower[-1] / true[-1] - 1) > 2e-4


def test_a_batch_larger_than_the_data_set_is_the_whole_of_it() -> None:
    point = replace(POINT, batch_size=1000)
    losses, accuracy = by_hand(point, pictures())
    result = train_point(point, data=pictures())
    assert float(result["loss"]) == pytest.approx(losses[-1], rel=1e-4)
    assert float(result["accuracy"]) == pytest.approx(accuracy, abs=1e-6)
    assert_same(result, train_point(replace(POINT, batch_size=30), data=pictures()))


def test_only_as_many_images_are_used_as_the_point_names() -> None:
    few, data = replace(POINT, train_images=16, test_images=20), pictures()
    cut = replace(
        data,
        train_images=data.train_images[:16],
        train_labels=data.train_labels[:16],
        test_images=data.test_images[:20],
        test_labels=data.test_labels[:20],
    )
    assert_same(train_point(few, data=data), train_point(POINT, data=cut))
    assert numbers(train_point(few, data=data)) != numbers(train_point(POINT, data=data))


def test_the_accuracy_is_that_of_all_test_images_however_many_pass_at_a_time(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    whole = train_point(POINT, data=pictures())
    monkeypatch.setattr(training, "EVALUATED", 7)  # with a remainder of 5
    assert_same(train_point(POINT, data=pictures()), whole)


def test_the_rate_falls_with_depth_by_the_stated_rule() -> None:
    point = replace(POINT, learning_rate=0.3, depth=30)
    assert learning_rate(point) == pytest.approx(0.01)
    assert learning_rate(replace(point, rate_exponent=0.0)) == 0.3
    assert learning_rate(replace(point, rate_exponent=0.5)) == pytest.approx(0.3 / math.sqrt(30))


def test_training_goes_at_that_rate() -> None:
    deep = replace(POINT, depth=4, learning_rate=0.4)
    constant = replace(deep, learning_rate=0.1, rate_exponent=0.0)
    assert_same(train_point(deep, data=pictures()), train_point(constant, data=pictures()))


def test_colour_images_become_grey() -> None:
    colour = pictures(channels=3)
    losses, accuracy = by_hand(POINT, colour)
    result = train_point(POINT, data=colour)
    assert float(result["loss"]) == pytest.approx(losses[-1], rel=1e-4)
    assert float(result["accuracy"]) == pytest.approx(accuracy, abs=1e-6)


@pytest.mark.parametrize("shape", ["wide", "shrinking"])
def test_a_small_network_learns_digits(shape: str) -> None:
    width = 30 if shape == "wide" else 0
    point = TrainingPoint(depth=2, width=width, shape=shape, learning_rate=0.05, steps=100)
    digits = load_dataset("digits")
    before = train_point(replace(point, steps=0), data=digits)
    after = train_point(point, data=digits)
    assert before["accuracy"] < 0.3
    assert after["accuracy"] > 0.8
    assert after["loss"] < 1.0


# --- seeds ---


def test_the_same_seed_gives_the_same_numbers_and_another_seed_others() -> None:
    first, again = (train_point(POINT, data=pictures()) for _ in range(2))
    other = train_point(replace(POINT, seed=1), data=pictures())
    assert_same(first, again, rel=0, abs=0)
    assert first["loss"] != other["loss"]


def test_the_global_generator_is_not_touched() -> None:
    state = torch.get_rng_state()
    train_points([POINT, replace(POINT, seed=1)], data=pictures())
    assert torch.equal(torch.get_rng_state(), state)


def test_the_data_are_not_touched() -> None:
    data, fresh = pictures(), pictures()
    train_point(POINT, data=data)
    for name in ("train_images", "train_labels", "test_images", "test_labels"):
        assert torch.equal(getattr(data, name), getattr(fresh, name))


# --- several together ---


def several(point: TrainingPoint) -> list[TrainingPoint]:
    return [replace(point, sigma_w2=w, seed=s) for w, s in ((0.5, 0), (1.7, 0), (1.7, 1), (4, 2))]


def assert_together_as_alone(points: list[TrainingPoint], data: Dataset) -> list[dict]:
    together = train_points(points, data=data)
    for point, result in zip(points, together, strict=True):
        assert_same(result, train_point(point, data=data), rel=1e-4)
    return together


@pytest.mark.parametrize(("optimiser", "rate"), [("sgd", 0.1), ("adam", 0.02)])
@pytest.mark.parametrize("shape", ["wide", "shrinking"])
def test_points_trained_together_give_what_each_gives_alone(
    optimiser: str, rate: float, shape: str
) -> None:
    width = POINT.width if shape == "wide" else 0
    point = replace(POINT, optimiser=optimiser, learning_rate=rate, shape=shape, width=width)
    results = assert_together_as_alone(several(point), pictures())
    assert len({float(result["loss"]) for result in results}) == 4


def test_points_trained_together_stop_at_the_threshold_as_each_does_alone() -> None:
    point = replace(POINT, steps=100, threshold=0.8)
    steps = [int(r["steps"]) for r in assert_together_as_alone(several(point), pictures())]
    assert len(set(steps)) > 1


@pytest.mark.parametrize("threshold", [1.0, 0.9])
def test_a_point_that_diverges_leaves_the_others_alone(threshold: float) -> None:
    point = replace(POINT, activation="linear", steps=60, threshold=threshold, depth=3)
    points = [replace(point, sigma_w2=w) for w in (1.0, 1e30, 0.5, 10.0)]
    results = assert_together_as_alone(points, pictures())
    assert [int(result["diverged"]) for result in results] == [0, 1, 0, 1]
    assert results[1]["steps"] == 1
    assert 1 < results[3]["steps"] < 60


def test_together_each_point_bears_its_share_of_the_processors_time() -> None:
    begin = time.process_time()
    results = train_points(several(POINT), data=pictures())
    spent = time.process_time() - begin
    seconds = [float(result["seconds"]) for result in results]
    assert len(set(seconds)) == 1
    assert 0 < sum(seconds) <= spent


def test_points_that_differ_in_more_are_refused() -> None:
    others = [POINT, replace(POINT, seed=1, depth=3, batch_size=4)]
    with pytest.raises(ValueError, match=r"sigma_w2 and seed only; .* batch_size, depth"):
        train_points(others, data=pictures())
    with pytest.raises(ValueError, match=r"at least one point.*got none"):
        train_points([], data=pictures())


# --- where training stops ---


def test_training_stops_at_the_first_tenth_that_reaches_the_threshold() -> None:
    point, data = replace(POINT, steps=100, test_images=32), pictures()
    tenths = [train_point(replace(point, steps=n), data=data) for n in range(10, 101, 10)]
    accuracies = [float(result["accuracy"]) for result in tenths]  # in 32nds, so without rounding
    threshold = accuracies[2]
    first = accuracies.index(threshold)
    assert first > 0, accuracies
    assert max(accuracies[:first]) < threshold, accuracies
    stopped = train_point(replace(point, threshold=threshold), data=data)
    assert_same(stopped, tenths[first], rel=0, abs=0)


def test_a_threshold_that_is_not_reached_changes_nothing() -> None:
    point = replace(POINT, steps=25, learning_rate=1e-6)
    assert_same(
        train_point(replace(point, threshold=0.999), data=pictures()),
        train_point(point, data=pictures()),
        rel=0,
        abs=0,
    )


def test_a_budget_below_ten_steps_is_checked_at_every_one() -> None:
    stopped = train_point(replace(POINT, steps=4, threshold=1e-9), data=pictures())
    assert stopped["steps"] == 1


def test_divergence_is_recorded_and_raises_nothing() -> None:
    point = replace(POINT, activation="relu", depth=5, learning_rate=1e4, steps=50)
    result = train_point(point, data=pictures())
    found = numbers(result)
    assert 1 < found.pop("steps") < 50
    assert found == {"accuracy": 0, "loss": math.inf, "diverged": 1}


def test_an_infinite_loss_ends_a_training_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    def infinite(logits: Tensor, labels: Tensor, reduction: str) -> Tensor:
        return math.inf + 0 * logits.sum(1)

    monkeypatch.setattr(nn.functional, "cross_entropy", infinite)
    result = train_point(POINT, data=pictures())
    assert (result["steps"], result["diverged"]) == (1, 1)


def test_a_network_that_its_last_step_breaks_has_diverged() -> None:
    point = replace(POINT, activation="linear", depth=5, learning_rate=1e30, steps=1)
    assert numbers(train_point(point, data=pictures())) == {
        "accuracy": 0,
        "loss": math.inf,
        "steps": 1,
        "diverged": 1,
    }


def test_without_steps_the_accuracy_is_that_of_the_untrained_network() -> None:
    point = replace(POINT, steps=0)
    _, accuracy = by_hand(point, pictures())
    for threshold in (1.0, 0.5):
        result = train_point(replace(point, threshold=threshold), data=pictures())
        assert float(result["accuracy"]) == pytest.approx(accuracy, abs=1e-6)
        assert math.isnan(result["loss"])
        assert (result["steps"], result["diverged"]) == (0, 0)
    assert_together_as_alone(several(point), pictures())


# --- labels ---


@pytest.mark.parametrize("split", ["train", "test"])
@pytest.mark.parametrize("wrong", [-1, 3])
def test_labels_that_do_not_number_the_classes_are_refused(split: str, wrong: int) -> None:
    data = pictures()
    getattr(data, f"{split}_labels")[5] = wrong
    found = "-1 … 2" if wrong < 0 else "0 … 3"
    with pytest.raises(ValueError, match=f"{split} labels of pictures .* from 0 to 2, got {found}"):
        train_point(POINT, data=data)


def test_one_class_alone_is_refused() -> None:
    data = pictures()
    data.train_labels[:] = 1
    with pytest.raises(ValueError, match=r"two classes; the 30 training images .* class '1'"):
        train_point(POINT, data=data)
    with pytest.raises(ValueError, match="all of class '0'"):
        train_point(POINT, data=pictures(classes=1))


@pytest.mark.gpu
def test_a_gpu_trains_as_the_cpu_does() -> None:
    on_cpu = train_points(several(POINT), data=pictures())
    for result, expected in zip(
        train_points(several(POINT), data=pictures(), device="cuda"), on_cpu, strict=True
    ):
        assert_same(result, expected, rel=1e-3)
