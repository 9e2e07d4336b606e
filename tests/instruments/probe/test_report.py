"""What a report says, against Datasets written by hand; suggestions against mean field."""

import copy
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from paperlib import critical_sigma_w2, initialise, load_dataset, probe
from paperlib.activations.tuning import weights_of
from paperlib.instruments.probe.report import Report, report_of
from paperlib.instruments.probe.suggestion import READ

ABOUT: dict[str, Any] = {
    "config": {
        "model": "Mine",
        "parameters": 7,
        "resolution": 1e-3,
        "target": [1, 4, 4],
        "target_is_whole": True,
    },
    "data": {"shape": [1, 4, 4], "train_images": 80, "test_images": 20, "checksum": "0" * 64},
    "computed": [{"commit": "abc", "versions": {"torch": "2"}}],
    "finished_at": "2026-01-01T00:00:00+00:00",
}


@pytest.fixture
def images() -> Tensor:
    return torch.rand(100, 16, generator=torch.Generator().manual_seed(0))


def report(kept: list[float], *, pictures: Tensor | None = None, **columns: Any) -> Report:
    count = len(kept)
    table = {
        "layer": [f"layer{number}" for number in range(count)],
        "shape": ["5"] * count,
        "read": ["cascade"] * count,
        "numbers": [5] * count,
        "correlation": [0.5] * count,
        "separation": [1.0] * count,
    }
    found = report_of({**table, "r_squared": kept, **columns}, pictures, ABOUT)
    return Report(found, lambda model: report(kept), nn.Identity())


@pytest.mark.parametrize(
    ("kept", "layer", "stage"),
    [
        ([0.9, 0.5, 0.3], None, None),
        ([0.9, 0.01, 0.3], None, None),
        ([0.9, 0.5, 0.01], "layer2", 3),
        ([0.9, 0.019, -0.2], "layer1", 2),
        ([0.0, 0.0, 0.0], "layer0", 1),
        ([0.9, 0.5, -8.0], None, None),  # the reading failed: that says nothing
        ([0.9, -8.0, 0.01], "layer2", 3),
        ([-8.0, -0.7], None, None),
    ],
)
def test_the_cutoff_is_the_layer_from_which_r_squared_stays_below_a_fiftieth(
    kept: list[float], layer: str | None, stage: int | None
) -> None:
    assert (report(kept).cutoff, report(kept).cutoff_stage) == (layer, stage)


@pytest.mark.parametrize(
    ("kept", "correlation", "separation", "phase"),
    [
        (0.0, 0.999, 0.0, "ordered"),
        (0.05, 0.985, 1.0, "ordered"),
        (0.5, 0.985, 1.0, "critical"),
        (0.0, 0.2, 50.0, "chaotic"),
        (0.5, 0.9, 1.0, "critical"),
        (0.05, 0.9, 1.0, "undecided"),
    ],
)
def test_the_phase_follows_from_the_numbers_at_the_end(
    kept: float, correlation: float, separation: float, phase: str
) -> None:
    found = report([0.9, kept], correlation=[0.5, correlation], separation=[1, separation])
    assert found.phase == phase
    assert found.phase_numbers == {
        "correlation": correlation,
        "separation": separation,
        "r_squared": kept,
    }


def test_a_narrower_head_is_not_the_end() -> None:
    assert report([0.9, 0.5, 0.2], numbers=[50, 50, 10]).end == 2
    assert report([0.9, 0.5, 0.2], numbers=[50, 50, 50]).end == 3
    assert report([0.9], numbers=[50]).end == 1


@pytest.mark.slow
def test_text_table_page_and_figure_hold_every_stage() -> None:
    pictures = torch.rand(4, 1, 4, 4)
    found = report([0.9, 0.5, 0.01], pictures=pictures)
    assert str(found).startswith("Mine, 7 parameters; inputs of 1×4×4; 80 fitted, 20 held out")
    assert "lost from layer 'layer2' on (stage 3 of 3)" in str(found)
    table = found.to_dataframe()
    assert table["r_squared"].tolist() == [0.9, 0.5, 0.01]
    assert all(name in str(found) and name in found._repr_html_() for name in table["layer"])
    figure = found.plot()
    drawn = figure.axes[0].lines[0].get_ydata()
    np.testing.assert_allclose(drawn, [0.9, 0.5, 0.01])
    assert sum(bool(axis.images) for axis in figure.axes) == 4


def test_small_numbers_are_printed_as_nothing_and_nothing_without_a_sign() -> None:
    found = report([0.9, -1e-9, 8.78e-09], separation=[1.0, 2e-5, -0.0])
    assert "R² is 0.00" in report([0.9, -1e-9]).summary()
    for text in (str(found), found.to_html()):
        assert "-0.00" not in text
        assert "e-0" not in text
    assert str(found).count("0.000") == 4


def test_what_is_read_before_a_head_is_called_so() -> None:
    before, end = report([0.9, 0.5, 0.2], numbers=[50, 50, 10]), report([0.9, 0.5])
    assert "at layer 'layer1', before the head, the mean cosine" in before.summary()
    assert "at layer 'layer1', the mean cosine" in end.summary()


@pytest.mark.parametrize("word", ["ordered", "chaotic", "critical", "undecided", "none"])
def test_a_report_says_what_its_words_mean(word: str) -> None:
    for text in (str(report([0.9])), report([0.9]).to_html()):
        assert f"{word}: " in text.replace(report([0.9]).summary(), "")


def test_a_suggestion_counts_in_factors_of_the_weights(images: Tensor) -> None:
    model = nn.Sequential(nn.Linear(16, 16), nn.Tanh(), nn.Linear(16, 16))
    suggestion = probe(model, images).suggest(gains=(4.0,))
    table = suggestion.table
    assert table.index.name == "weights ×"
    assert 2.0 in table.index
    ratio = table["σ_w²"] / table.loc[1.0, "σ_w²"]
    np.testing.assert_allclose(ratio, table.index.to_numpy() ** 2)
    assert suggestion.factor**2 == pytest.approx(suggestion.gain)
    assert list(table.columns) == ["σ_w²", READ, "phase"]


def test_before_a_narrower_head_as_much_is_read_as_at_the_end_without_one(images: Tensor) -> None:
    torch.manual_seed(0)
    body = [nn.Linear(16, 16), nn.Tanh()]
    alone, headed = nn.Sequential(*body), nn.Sequential(*body, nn.Linear(16, 4))
    found = [probe(model, images).suggest(gains=(4.0,)) for model in (alone, headed)]
    tables = [suggestion.table[READ].loc[[1.0, 2.0]].to_numpy() for suggestion in found]
    np.testing.assert_allclose(*tables, rtol=1e-4)
    direct = probe(alone, images).phase_numbers["r_squared"]  # one stage: the chain is that reading
    assert tables[0][0] == pytest.approx(direct, rel=1e-4)


def test_only_pictures_are_kept_as_pictures() -> None:
    assert "example" not in report([0.5], pictures=torch.rand(2, 5, 4, 4)).result
    assert "example" not in report([0.5], pictures=torch.rand(2, 1, 1, 9)).result
    assert report([0.5], pictures=torch.rand(2, 3, 4, 4)).result.sizes["shown"] == 1


def dead(width: int = 64, depth: int = 24, sigma_w2: float = 0.5) -> nn.Sequential:
    layers: list[nn.Module] = [nn.Flatten()]
    for _ in range(depth):
        layers += [nn.Linear(width, width), nn.Tanh()]
    model = nn.Sequential(*layers, nn.Linear(width, 10))
    initialise(model, sigma_w2=sigma_w2, sigma_b2=0.05, seed=0)
    return model


@pytest.mark.slow
def test_a_dead_network_is_sent_to_where_mean_field_says_that_it_lives() -> None:
    images = load_dataset("digits").floats("train")[:300]
    images = nn.functional.adaptive_avg_pool2d(images, 8)
    model = dead()
    before = copy.deepcopy(model.state_dict())
    found = probe(model, images)
    assert found.cutoff is not None
    suggestion = found.suggest()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    critical = critical_sigma_w2(0.05)
    assert critical / 2 < suggestion.sigma_w2 < 1.5 * critical
    assert suggestion.report.cutoff is None
    chained = suggestion.report.phase_numbers["r_squared"]
    assert chained < suggestion.table.loc[suggestion.factor, READ] < chained + 0.2
    suggestion.apply(model)
    ratio = (model[1].weight.detach() / before["1.weight"]).square().mean()
    assert float(ratio) == pytest.approx(suggestion.gain, rel=1e-4)
    assert torch.equal(model[1].bias, before["1.bias"])
    again = probe(model, images)
    np.testing.assert_allclose(
        again.result["r_squared"], suggestion.report.result["r_squared"], atol=1e-6
    )


def test_a_model_that_no_factor_changes_is_left_alone(images: Tensor) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(16, 16, bias=False), nn.ReLU(), nn.Linear(16, 16, bias=False))
    suggestion = probe(model, images).suggest(gains=(0.5, 2.0))
    assert suggestion.gain == 1
    assert str(suggestion).startswith("no other variance of the weights is better")


def test_a_suggestion_computes_with_one_thread_and_gives_the_others_back() -> None:
    """Threads that wait for each other on a busy machine took minutes instead of seconds."""
    seen = []

    def probed(model: nn.Module) -> Report:
        seen.append(torch.get_num_threads())
        return report([0.5])

    torch.set_num_threads(2)
    try:
        Report(report([0.5]).result, probed, nn.Linear(4, 4)).suggest(gains=(2.0,))
        after = torch.get_num_threads()
    finally:
        torch.set_num_threads(1)  # as every test has it
    assert set(seen) == {1}
    assert after == 2


@pytest.mark.parametrize("gains", [(), (0.0,), (-1.0,), (float("inf"),)])
def test_factors_out_of_range_are_refused(gains: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="finite factors > 0"):
        report([0.5]).suggest(gains=gains)


def test_a_model_without_weights_cannot_be_rescaled() -> None:
    with pytest.raises(ValueError, match="Identity has no weight"):
        report([0.5]).suggest()


def test_weights_are_those_with_two_axes_each_once_and_no_embeddings() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words, self.norm = nn.Embedding(5, 4), nn.LayerNorm(4)
            self.first, self.second = nn.Linear(4, 4), nn.Linear(4, 4)
            self.second.weight = self.first.weight
            self.cell, self.token = nn.GRU(4, 4), nn.Parameter(torch.zeros(1, 1, 4))

    assert len(weights_of(Tied())) == 3
