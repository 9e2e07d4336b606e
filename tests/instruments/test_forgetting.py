"""Forgetting: counts by hand and by chance, and what removing images leaves alone."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from paperlib.datasets import load_dataset
from paperlib.instruments import forgetting
from paperlib.instruments.forgetting import Settings, first_learnt, forgetting_events

SMALL = Settings(
    dataset="digits", train_images=120, test_images=60, epochs=3, networks=2, removed=(0.5,),
    batch_size=20, depth=4, learning_rate=0.05,
)  # fmt: skip


def column(*right: int) -> np.ndarray:
    return np.array(right, bool)[:, None]


@pytest.mark.parametrize(("right", "events", "first"), [
    ((0, 1, 1, 0, 1), 1, 1),
    ((1, 1, 1), 0, 0),
    ((0, 0, 0), 0, 3),  # never learnt: as many as presentations
    ((1, 0, 1, 0, 1, 0), 3, 0),
    ((0, 1, 0, 1, 0, 1), 2, 1),
])  # fmt: skip
def test_events_are_steps_from_right_to_wrong(right, events: int, first: int) -> None:
    assert forgetting_events(column(*right)).tolist() == [events]
    assert first_learnt(column(*right)).tolist() == [first]


@pytest.mark.parametrize("chance", [0.1, 0.5, 0.9])
def test_coin_flips_are_forgotten_as_often_as_chance_says(chance: float) -> None:
    epochs, examples = 9, 20_000
    right = np.random.default_rng(0).random((epochs, examples)) < chance
    expected = (epochs - 1) * chance * (1 - chance)
    assert forgetting_events(right).mean() == pytest.approx(expected, rel=0.03)


def test_counts_follow_the_examples_when_these_are_shuffled() -> None:
    right = np.random.default_rng(1).random((2, 6, 30)) < 0.5
    order = np.random.default_rng(2).permutation(30)
    assert (forgetting_events(right[..., order]) == forgetting_events(right)[..., order]).all()


def test_a_presentation_is_judged_before_the_steps_update() -> None:
    """Against a training by hand that judges every batch in its own forward pass."""
    data = load_dataset("digits", limit=120)
    images, labels = data.examples("train", 120)
    log = forgetting._watched(SMALL, data, (images, labels), (images, labels), seed=1)
    network = forgetting._network(SMALL, data, 1)
    optimiser = torch.optim.SGD(network.parameters(), lr=0.05, momentum=0.5)
    right = np.zeros((3, 120), bool)
    order = forgetting.batches(120, 20, 1)
    scaled = (images - forgetting.MEAN) / forgetting.DEVIATION
    for epoch in range(3):
        for _ in range(120 // 20):
            chosen = next(order)
            logits = network(scaled[chosen])
            right[epoch, chosen.numpy()] = (logits.argmax(1) == labels[chosen]).numpy()
            optimiser.zero_grad()
            torch.nn.functional.cross_entropy(logits, labels[chosen]).backward()
            optimiser.step()
    assert (log["right"] == right).all()
    assert 0 < right.mean() < 1


def test_an_image_that_an_epoch_leaves_out_keeps_its_last_judgement() -> None:
    data = load_dataset("digits", limit=120)
    lessons = data.examples("train", 120)
    uneven = Settings.from_dict({**SMALL.as_dict(), "batch_size": 50})
    right = forgetting._watched(uneven, data, lessons, lessons, seed=1)["right"]
    presented = np.zeros(120, int)
    order = forgetting.batches(120, 50, 1)
    for _ in range(3 * 2):
        presented[next(order).numpy()] += 1
    short = presented < 3
    assert short.any()
    assert (right[2, short] == right[1, short]).all()


def test_removing_nothing_is_the_training_on_all_images_bit_for_bit() -> None:
    data = load_dataset("digits", limit=120)
    lessons, test = (data.examples(split, 120) for split in ("train", "test"))
    watched = forgetting._watched(SMALL, data, lessons, test, seed=0)["accuracy"]
    plain = forgetting._learn(SMALL, data, lessons, 0)
    assert forgetting._accuracy(SMALL, plain, test) == watched


@pytest.mark.slow
def test_a_network_that_never_learns_has_no_events_and_is_not_called_unforgettable() -> None:
    # float32's smallest steps: nothing changes
    still = Settings.from_dict({**SMALL.as_dict(), "learning_rate": 1e-30})
    data = load_dataset("digits", limit=120)
    result = forgetting.measure(still, data)
    assert (result["events"] == 0).all()
    learnt = result["learnt"].all("network")
    never = float(result["never_forgotten"].isel(epoch=-1).mean())
    assert never < 0.5
    text = forgetting.findings(result)
    assert f"{1 - float(learnt.mean()):.1%} were not learnt by every network" in text
    assert "correlate by nan" in text


def test_the_packages_own_networks_can_be_watched_too() -> None:
    own = Settings.from_dict({**SMALL.as_dict(), "published": False, "width": 20, "depth": 2})
    result = forgetting.measure(own, load_dataset("digits", limit=120))
    assert result["accuracy_without"].shape == (3, 2, 2)
    assert float(result["accuracy"].max()) <= 1


def test_images_too_small_for_the_published_network_are_refused() -> None:
    data = load_dataset("digits", limit=40)
    small = replace(data, train_images=data.train_images[..., :12, :12])
    with pytest.raises(ValueError, match=r"at least 16×16, got \(1, 12, 12\)"):
        forgetting._network(SMALL, small, 0)
