"""The verdict: a fit whose answer is known, what it may not depend on, and when it is computed."""

import json
import math
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from test_signals import mixed, relu_net, rows
from torch import nn

from paperlib import initialise, mlp, probe
from paperlib.instruments.probe import probe as module
from paperlib.instruments.probe.plots_probe import describe
from paperlib.instruments.probe.report import Report, report_of
from paperlib.instruments.probe.verdict import (
    FITTED,
    PARTS,
    WITH_TRIAL,
    WITHOUT_LABELS,
    WITHOUT_TRIAL,
    Coefficients,
    Verdict,
    fingerprint,
    fit_verdict,
)

NUMBERS = {"r_squared_smallest": 0.5, "sensitivity_decades": 0.0}


def table(count: int = 4000, seed: int = 0) -> pd.DataFrame:
    """Networks with parts that do not depend on each other."""
    draw = np.random.default_rng(seed)
    return pd.DataFrame({
        "r_squared_smallest": np.exp(draw.uniform(np.log(1e-3), 0, count)),
        "sensitivity_decades": draw.uniform(0, 3, count),
        "step_r_squared": draw.uniform(-0.1, 0.9, count),
        "adam_share": draw.uniform(0, 1, count),
        "step_accuracy": draw.uniform(0.1, 0.9, count),
        "chance": 0.1,
        "loss": np.exp(draw.uniform(0, 3, count)),
        "trial_accuracy": draw.uniform(0.1, 0.9, count),
        "trial_loss": draw.uniform(0, 3, count),
        "step_gain": draw.uniform(-0.1, 0.1, count),
    })  # fmt: skip


def drawn(true: Coefficients, numbers: pd.DataFrame, seed: int = 1) -> np.ndarray:
    chances = [true.probability(row) for row in numbers.to_dict("records")]  # type: ignore[arg-type]
    return np.random.default_rng(seed).random(len(numbers)) < np.array(chances)


# --- the fit ---


def test_the_fit_finds_the_coefficients_that_drew_the_labels() -> None:
    true = Coefficients(6.0, {"image": 1.2, "lesson": 0.7}, "")
    numbers = table()
    found = fit_verdict(numbers, drawn(true, numbers), source="drawn", parts=("image", "lesson"))
    assert found.intercept == pytest.approx(6.0, rel=0.1)
    assert found.weights == pytest.approx(true.weights, rel=0.1)
    assert found.source == "drawn"


def test_a_fit_is_calibrated_on_networks_that_it_has_not_seen() -> None:
    true = Coefficients(6.0, {"image": 1.2, "lesson": 0.7}, "")
    found = fit_verdict(table(), drawn(true, table()), source="")
    other = table(seed=5)
    said = np.array([found.probability(row) for row in other.to_dict("records")])  # type: ignore[arg-type]
    learnt = drawn(true, other, seed=6)
    for low in np.arange(0, 1, 0.25):
        some = (said >= low) & (said < low + 0.25)
        assert learnt[some].mean() == pytest.approx(said[some].mean(), abs=0.05)


def test_a_part_that_would_do_harm_is_left_out() -> None:
    numbers = table()
    learns = drawn(Coefficients(6.0, {"image": 1.2}, ""), numbers)
    learns &= np.array(numbers["loss"] > 5)  # calm would have a weight below 0
    found = fit_verdict(numbers, learns, source="", parts=("image", "calm"))
    assert set(found.weights) == {"image"}


def test_where_no_part_helps_the_probability_is_the_share_that_learns() -> None:
    numbers = table(100).assign(r_squared_smallest=0.5)
    learns = np.arange(100) < 30
    found = fit_verdict(numbers, learns, source="", parts=("image",))
    assert found.probability(NUMBERS) == pytest.approx(0.3)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"learns": np.ones(100, bool)}, "true of some networks and false of others"),
        ({"learns": np.ones(3, bool)}, r"each of 100 networks, got \(3,\)"),
        ({"parts": ("luck",)}, "parts must be among image, lesson.*got 'luck'"),
    ],
)
def test_what_the_fit_cannot_take_is_named(options: dict[str, Any], message: str) -> None:
    given = {"learns": np.arange(100) < 30, "source": "", **options}
    with pytest.raises(ValueError, match=message):
        fit_verdict(table(100), **given)


# --- parts and coefficients ---


def test_every_part_is_finite_for_the_worst_network_and_zero_for_the_best() -> None:
    worst = {"r_squared_smallest": -5.0, "sensitivity_decades": 40.0, "adam_share": 0.0}
    worst |= {
        "step_r_squared": -5.0,
        "step_accuracy": 0.0,
        "chance": 1.0,
        "loss": math.inf,
        "step_gain": -1.0,
        "trial_accuracy": 0.0,
    }
    assert all(math.isfinite(part(worst)) for part in PARTS.values())
    best = {"r_squared_smallest": 1.0, "sensitivity_decades": 0.0, "step_r_squared": 1.0}
    best |= {"step_accuracy": 1.0, "chance": 0.1, "loss": 2.3, "adam_share": 1.0, "step_gain": 0.05}
    best |= {"trial_accuracy": 1.0, "trial_loss": 0.0}
    for name, part in PARTS.items():
        assert part(best) == 0, name


def test_a_lesson_that_shrinks_a_hundredfold_counts_by_its_logarithm_down_to_a_thousandth() -> None:
    assert PARTS["lesson"]({"sensitivity_decades": 2.0}) == pytest.approx(-math.log(100))
    faintest = PARTS["lesson"]({"sensitivity_decades": 3.0})
    assert (
        faintest == PARTS["lesson"]({"sensitivity_decades": 40.0}) == pytest.approx(math.log(1e-3))
    )


@pytest.mark.parametrize("kind", FITTED)
def test_shipped_coefficients_only_help_and_say_where_they_are_from(kind: str) -> None:
    fitted = FITTED[kind]
    known = {"labels": WITHOUT_LABELS, "trial": WITHOUT_TRIAL}.get(kind.split()[-1], WITH_TRIAL)
    assert fitted.weights.keys() <= {*known}
    assert fitted.weights
    assert all(weight >= 0 for weight in fitted.weights.values())
    assert fitted.source


# --- the report's ---


def network(sigma_w2: float, depth: int = 30) -> nn.Module:
    made = mlp((1, 4, 4), depth=depth, width=100, classes=3)
    initialise(made, sigma_w2=sigma_w2, sigma_b2=0.05, seed=0)
    return made


@pytest.mark.slow
def test_a_critical_network_is_likelier_to_train_than_an_ordered_or_a_chaotic_one() -> None:
    images = torch.rand(150, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    ordered, critical, chaotic = (
        probe(network(sigma_w2), images).verdict.probability for sigma_w2 in (0.3, 1.6, 8.0)
    )
    assert critical > 0.9
    # of all networks of the zoo five in six learn within 2,400 steps, and some such as these
    odds = [chance / (1 - chance) for chance in (ordered, critical, chaotic)]
    assert odds[1] > 60 * odds[0]
    assert odds[1] > 20 * odds[2]


def test_the_verdict_has_probabilities_reasons_and_signals() -> None:
    images, labels = mixed()
    report = probe(relu_net(6, 8, 8, 3), images, labels)
    verdict = report.verdict
    assert isinstance(verdict, Verdict)
    assert 0 <= verdict.probability <= 1
    assert verdict.default_probability is None or 0 <= verdict.default_probability <= 1
    assert verdict.reasons
    assert verdict.signals["r_squared_end"] == report.result["r_squared"].values[report.end - 1]
    assert "tangent_alignment" in verdict.signals
    text = str(verdict)
    assert text.startswith(f"trains with a probability of {verdict.probability:.0%}")
    assert all(reason in text for reason in verdict.reasons)
    assert verdict.source in text
    assert "tangent_alignment" not in probe(relu_net(6, 8, 8, 3), images).verdict.signals


def test_it_is_computed_once_when_it_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []
    real = module.judge  # type: ignore[attr-defined]

    def counted(*arguments: Any, **options: Any) -> Verdict:
        calls.append(1)
        return real(*arguments, **options)

    monkeypatch.setattr(module, "judge", counted)
    report = probe(relu_net(6, 8, 3), mixed()[0])
    str(report)
    assert calls == []
    assert report.verdict is report.verdict
    assert calls == [1]


def test_rescaling_a_relu_layer_and_its_successor_changes_no_verdict() -> None:
    images, labels = mixed()
    model = relu_net(6, 8, 7, 3)
    expected = probe(model, images, labels).verdict
    with torch.no_grad():
        for parameter in model[2].parameters():
            parameter.mul_(50.0)
        model[4].weight.div_(50.0)
    found = probe(model, images, labels).verdict
    assert found.probability == pytest.approx(expected.probability, rel=1e-6)
    assert found.reasons == expected.reasons


def test_a_model_that_is_too_dear_to_be_tried_is_judged_without(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    images, labels = mixed()
    model = relu_net(6, 8, 3)
    tried = probe(model, images, labels).verdict
    monkeypatch.setattr("paperlib.instruments.probe.trial.DEAREST", 1.0)
    found = probe(model, images, labels).verdict
    assert tried.signals.keys() - found.signals.keys() == {"trial_accuracy", "trial_loss"}
    expected = FITTED["best without a trial"].probability(found.signals)
    assert found.probability == pytest.approx(expected, rel=1e-6)
    assert tried.probability == FITTED["best"].probability(tried.signals)


def test_a_model_that_was_trained_meanwhile_is_not_judged() -> None:
    images, _ = mixed()
    model = relu_net(6, 8, 3)
    report, again = probe(model, images), probe(model, images)
    assert again.verdict.probability == report.verdict.probability
    late = probe(model, images)
    with torch.no_grad():
        model[0].weight[0, 0] += 1.0
    with pytest.raises(ValueError, match="Sequential has changed since it was probed"):
        late.verdict  # noqa: B018
    assert report.verdict.probability  # asked for before


def test_a_fingerprint_sees_every_change_and_not_a_look() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3))
    before = fingerprint(model)
    model(rows(5, 3).float())
    assert fingerprint(model) != before  # statistics were counted
    model.eval()
    before = fingerprint(model)
    model(rows(5, 3).float())
    assert fingerprint(model) == before
    with torch.no_grad():
        model[0].weight.neg_()
    assert fingerprint(model) != before


def test_numbers_of_every_kind_have_a_fingerprint() -> None:
    model, complex_ones = nn.Module(), rows(2, 2).to(torch.complex64)
    kinds = [rows(3, 3).bfloat16(), torch.tensor(3), torch.zeros(0), torch.eye(3).t() > 0]
    for number, values in enumerate([*kinds, torch.eye(4).to_sparse(), complex_ones.conj()]):
        model.register_buffer(f"b{number}", values)
    before = fingerprint(model)
    assert fingerprint(model) == before
    model.b3[0, 1] = True
    assert fingerprint(model) != before


def test_a_report_without_its_model_says_so() -> None:
    columns: dict[str, Any] = {"layer": ["a"], "r_squared": [0.5], "numbers": [3]}
    alone = Report(report_of(columns, None, {}), lambda _: alone, nn.Identity())
    with pytest.raises(ValueError, match="no model to judge; probe the model"):
        alone.verdict  # noqa: B018


def test_labels_that_do_not_fit_are_refused_by_the_probe() -> None:
    images, labels = mixed()
    with pytest.raises(ValueError, match=r"labels must be a tensor of 120 .* got \(5,\)"):
        probe(relu_net(6, 8, 3), images, labels[:5])
    with pytest.raises(ValueError, match="got list"):
        probe(relu_net(6, 8, 3), images, labels.tolist())


def test_once_it_was_asked_for_summary_page_and_figure_tell_it() -> None:
    images, labels = mixed()
    report = probe(relu_net(6, 8, 3), images, labels)
    assert "trains with a probability" not in report.summary()
    verdict = report.verdict
    said = f"trains with a probability of {verdict.probability:.0%}"
    assert f"\n{verdict}\n" in report.summary()
    assert report.summary().startswith(f"{report.diagnoses[0]}\n")  # first what ails it
    assert said in report.to_html()
    assert said in describe(report.result)
    kept = json.loads(report.result.attrs["verdict"])
    assert kept["signals"] == verdict.signals
    assert tuple(kept["reasons"]) == verdict.reasons
