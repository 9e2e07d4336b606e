"""Clinic: each patient has the fault that it is said to have, by closed forms, and is rid of it."""

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
import xarray as xr
from torch import Tensor, nn

from paperlib.datasets import load_dataset
from paperlib.instruments import clinic
from paperlib.instruments.clinic import PATIENTS, STATES, Patient, Settings

SHAPE, CLASSES = (1, 28, 28), 10
NAMED = {patient.name: patient for patient in PATIENTS}
SMALL = Settings(
    dataset="digits", steps=3, probed_images=60, train_images=100, test_images=50, batch_size=10
)
ILL, TREATED = STATES


def built(name: str, state: str = ILL) -> nn.Module:
    return clinic._built(NAMED[name], state, SHAPE, CLASSES, seed=1)


def images(count: int = 20) -> Tensor:
    return load_dataset("digits").floats("train", limit=count)


def gradients(network: nn.Module) -> list[Tensor]:
    labels = torch.arange(20) % CLASSES
    loss = nn.functional.cross_entropy(network(images()), labels)
    return list(torch.autograd.grad(loss, [p for p in network.parameters() if p.dim() > 1]))


def weights(network: nn.Module) -> Iterator[Tensor]:
    for layer in list(network.modules())[:-1]:  # the last is the head, without an activation
        if isinstance(layer, nn.Linear | nn.Conv2d):
            yield layer.weight


@pytest.mark.parametrize(("name", "rule"), [("plain convolutions", 2.0), ("SELU by default", 1.0)])
def test_pytorchs_weights_have_a_third_and_the_treated_ones_the_variance_that_is_due(
    name: str, rule: float
) -> None:
    for state, variance in ((ILL, 1 / 3), (TREATED, rule)):
        found = [float(w.detach().var() * w[0].numel()) for w in weights(built(name, state))]
        assert np.mean(found) == pytest.approx(variance, rel=0.05)


def test_a_softmax_before_the_loss_keeps_it_above_what_a_one_hot_output_has() -> None:
    least = math.log1p((CLASSES - 1) / math.e)
    network = built("softmax before the loss")
    with torch.no_grad():
        for layer in network[:-1]:
            if isinstance(layer, nn.Linear):
                layer.weight *= 100
        outputs = network(images())
    losses = nn.functional.cross_entropy(outputs, outputs.argmax(1), reduction="none")
    assert losses.min() >= least - 1e-6
    assert losses.min() == pytest.approx(least, abs=0.01)


def test_nothing_passes_a_dead_layer_and_no_gradient_comes_back() -> None:
    first, second, *_ = gradients(built("dead layer"))
    assert first.abs().max() == second.abs().max() == 0
    assert all(g.abs().max() > 0 for g in gradients(built("dead layer", TREATED)))


def test_units_with_equal_weights_get_equal_gradients() -> None:
    for gradient in gradients(built("equal weights"))[:-1]:
        torch.testing.assert_close(gradient, gradient[:1].expand_as(gradient))
    gradient = gradients(built("equal weights", TREATED))[0]
    assert (gradient - gradient[:1]).abs().max() > 1e-4


@pytest.mark.parametrize("patient", PATIENTS, ids=lambda patient: patient.name)
def test_only_attention_along_the_batch_lets_one_image_change_anothers_numbers(
    patient: Patient,
) -> None:
    for state in STATES:
        network = clinic._built(patient, state, SHAPE, CLASSES, seed=1).eval()
        seen: list[Tensor] = []
        place = getattr(network, "blocks", network)
        place.register_forward_hook(lambda *given, seen=seen: seen.append(given[2].detach()))
        given = images()
        network(given)
        given[3] = 1 - given[3]
        network(given)
        others = torch.arange(20) != 3
        changed = float((seen[1] - seen[0])[others].abs().max()) > 1e-4
        assert changed == (patient.name == "attention without batch_first" and state == ILL)


@pytest.mark.parametrize("name", ["attention without batch_first", "dead layer"])
def test_one_answer_for_all_images_is_one_to_rounding_until_it_is_treated(name: str) -> None:
    with torch.no_grad():
        ill, treated = (built(name, state).eval()(images()).std(0).max() for state in STATES)
    assert ill < 1e-5
    assert treated > 1e-3


def test_what_the_narrow_lstm_says_does_not_depend_on_the_image() -> None:
    for state, least in ((ILL, 0.0), (TREATED, 1e-3)):
        with torch.no_grad():
            answers = built("narrow deep LSTM", state)(images())
        spread = float(answers.std(0).max())
        assert spread < 1e-5 if state == ILL else spread > least


def test_labels_are_shuffled_pixels_scaled_and_a_treated_patient_gets_them_as_they_are() -> None:
    examples = load_dataset("digits").examples("train", 100)
    for name in ("labels of other images", "pixels to 255"):
        assert clinic._given(NAMED[name], TREATED, examples, 0) == examples
    given, labels = clinic._given(NAMED["labels of other images"], ILL, examples, 0)
    assert torch.equal(given, examples[0])
    assert torch.equal(labels.sort().values, examples[1].sort().values)
    assert (labels == examples[1]).float().mean() < 0.3
    given, labels = clinic._given(NAMED["pixels to 255"], ILL, examples, 0)
    torch.testing.assert_close(given, 255 * examples[0])
    assert torch.equal(labels, examples[1])


def test_a_training_that_blows_up_keeps_its_last_accuracy_and_is_told() -> None:
    examples = load_dataset("digits").examples("train", 100)
    patient = NAMED["pixels to 255"]._replace(rate=1e30)
    network = clinic._built(patient, ILL, SHAPE, CLASSES, 0)
    steps = np.array([0, 5, 10])
    found = clinic._trained(network, patient, ILL, examples, examples, steps, SMALL, 0)
    assert len(found) == 3
    assert found[1] == found[2]
    said, kind, ill = clinic._after(network, examples[0], 0)
    assert (kind, ill) == ("overflow", True)
    assert "NaN" in said


def test_small_images_are_refused_before_anything_is_built() -> None:
    data = load_dataset("digits")
    tiny = replace(data, train_images=data.train_images[..., :8, :8])
    with pytest.raises(ValueError, match=r"at least 16×16, got \(1, 8, 8\)"):
        clinic.measure(SMALL, tiny)


@pytest.fixture(scope="module")
def measured() -> Iterator[xr.Dataset]:
    """All but the post-norm transformer, which takes as long as the others together; that a probe
    names its fault is among the tests of diagnoses."""
    with pytest.MonkeyPatch.context() as patch:
        others = tuple(patient for patient in PATIENTS if not patient.name.startswith("post-norm"))
        patch.setattr(clinic, "PATIENTS", others)
        yield clinic.measure(SMALL, load_dataset("digits"))


@pytest.mark.slow
def test_every_fault_is_named_first_and_nobody_is_ill_after_the_treatment(
    measured: xr.Dataset,
) -> None:
    assert clinic.named(measured).all()
    assert not measured["ill"].sel(state=TREATED).isel(moment=0).any()
    assert measured.sel(state=ILL).isel(moment=0)["kind"].values[-1] == "healthy"


def by_hand(**changed: Any) -> xr.Dataset:
    """Two patients, one of whom has nothing; the first is helped."""
    values: dict[str, Any] = {
        "accuracy": (("patient", "state", "network", "step"),
                     np.array([[[[0.1, 0.2]], [[0.1, 0.9]]], [[[0.1, 0.5]], [[0.1, 0.5]]]])),
        "probability": (("patient", "state"), np.array([[0.1, 0.9], [0.8, 0.8]])),
        "first_line": (("patient", "state", "moment"), np.full((2, 2, 2), "words")),
        "kind": (("patient", "state", "moment"),
                 np.array([[["copies"] * 2] * 2, [["healthy"] * 2] * 2])),
        "ill": (("patient", "state", "moment"), np.array([[[True] * 2, [False] * 2],
                                                          [[False] * 2] * 2])),
    }  # fmt: skip
    coordinates: dict[str, Any] = {
        "patient": ["first", clinic.DIES_IN_TRAINING], "state": list(STATES), "network": [0],
        "step": [0, 3], "moment": ["before training", "after training"],
        "cause": ("patient", ["copies", ""]),
    }  # fmt: skip
    about = '{"data": {"name": "digits"}, "config": {}}'
    return xr.Dataset(values | changed, coordinates, {"provenance": about})


def test_a_run_says_who_was_named_helped_harmed_and_left_ill() -> None:
    said = clinic.findings(by_hand())
    assert "fault of 1 of 1 patients, and says of 1 of 1" in said
    assert "from 20% to 90%." in said
    assert not any(word in said for word in ("Wrong", "Worse", "Still"))
    flags = np.zeros((2, 2, 2), bool)
    flags[0], flags[1, 0] = True, True
    accuracy = by_hand()["accuracy"].copy()
    accuracy[0, 1, 0, 1] = 0.1
    wrong = by_hand(ill=(("patient", "state", "moment"), flags), accuracy=accuracy)
    said = clinic.findings(wrong)
    assert "Wrong: rate too large. " in said.replace("\n\n", " ")
    assert "Worse than before: first." in said
    assert "Still called ill: first." in said
