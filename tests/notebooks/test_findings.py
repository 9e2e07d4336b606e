"""What notebooks say of their run: the run's own numbers, and the paper's only where they compare.

The results are made up, so that every expected number is known; a few are computed and tiny.
"""

import doctest
import json
import re
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import nbformat
import numpy as np
import pandas as pd
import pytest
import xarray as xr
from checkout import ROOT
from test_plots import GRID, result
from test_plots_channels import POINT
from test_plots_study import result as study
from test_plots_trainability import trained
from test_report import report

from paperlib.instruments.channels.channels import run_channels
from paperlib.instruments.prediction import scoring
from paperlib.instruments.prediction.zoo_scores import zoo_scoreboard
from paperlib.instruments.reconstruction.points import CascadePoint
from paperlib.notebooks.findings import (
    channels as findings_channels,
)
from paperlib.notebooks.findings import (
    digits as findings_digits,
)
from paperlib.notebooks.findings import (
    prediction as findings_prediction,
)
from paperlib.notebooks.findings import (
    probe as findings_probe,
)
from paperlib.notebooks.findings import (
    reconstruction,
    wording,
    zoo,
)
from paperlib.notebooks.findings import (
    trainability as findings_trainability,
)
from paperlib.notebooks.findings.published import (
    AGREES,
    DIFFERS,
    TOO_SHALLOW,
    departures,
    depth_verdict,
)
from paperlib.results import provenance
from paperlib.sweep import along

PUBLISHED_GRID = [0.6, 1.1, 1.4, 1.5, 3.0]
DIMS = ("sigma_w2", "seed", "depth")
NOTHING = "nothing is compared"
NOTEBOOKS = sorted((ROOT / "notebooks").glob("[0-9][0-9]_*.ipynb"))


def about(made: xr.Dataset, **changes: Any) -> xr.Dataset:
    """The same result with other facts in its provenance: of `data` and of `config`."""
    told = provenance(made)
    for part, values in changes.items():
        told[part] |= values
    return made.assign_attrs(provenance=json.dumps(told))


def falling(made: xr.Dataset, depths: list[int], *, published: bool = True) -> xr.Dataset:
    """The same result, its differential entropy below −13 from these depths on, by variance."""
    deep = made.depth.values >= np.array(depths)[:, None, None]
    values = np.broadcast_to(np.where(deep, -19.3, -6.5), made["r_squared"].shape).copy()
    name = "differential_entropy_published" if published else "differential_entropy"
    return made.assign({name: (DIMS, values)})


def of_the_paper(depths: list[int], *, published: bool = True) -> xr.Dataset:
    """A made-up result of the published network on MNIST."""
    made = result(depth=150, name="mnist", sigma_b2=0.05).assign_coords(sigma_w2=PUBLISHED_GRID)
    return falling(made, depths, published=published)


# -- numbers in words


def test_the_examples_of_wording_hold() -> None:
    found = doctest.testmod(wording)
    assert (found.failed, found.attempted) == (0, 8)


# -- cascades


def test_a_phase_diagram_says_its_data_settings_and_own_numbers() -> None:
    made = result(name="digits")
    made["r_squared"][2, :, -1] = [0.7, 0.9]
    said = reconstruction.phase_diagram(made)
    for expected in ("digits", "ridge, λ = 0.001", "5 variances σ_w² from 0.5 to 3", "depth 12"):
        assert expected in said
    assert "most is left at σ_w² = 1.7 (R² = 0.80)" in said
    assert "| 12 | 1.7 | 0.80 ± 0.14 | 0.00 | 0.50 |" in said
    assert "| 0.5 | 4 ± 0 |" in said, "the depth at which the image is lost"
    assert "| 3 | > 12 |" in said


def test_another_result_changes_what_is_said() -> None:
    first, second = result(), result()
    second["r_squared"][0, :, 2] = 0.0
    assert "| 0.5 | 3 ± 0 |" in reconstruction.phase_diagram(second)
    assert reconstruction.phase_diagram(first) != reconstruction.phase_diagram(second)


def test_a_phase_diagram_says_whether_another_rate_would_train_what_is_lost() -> None:
    dims = ("sigma_w2", "map_depth", "map_network")
    kept = np.array([[[0.9], [0.0]], [[0.5], [0.01]]])
    largest = np.array([[[[0.1], [np.nan]], [[0.1], [0.3]]]])
    rates = xr.Dataset(
        {
            "kept": (dims, kept),
            "largest_rate": (("optimiser", *dims), largest),
            "tried": (("optimiser", "place"), [[0.1, 0.3]]),
        },
        {"optimiser": ["sgd"]},
        {"map_width": 50, "map_steps": 60, **result().attrs},
    )
    said = reconstruction.phase_diagram(result(), rates=rates)
    assert "Notebook 14 asks this of MLPs of width 50" in said
    assert "Of 2 networks that have lost the image" in said
    assert "at one of 2 rates of SGD 1 (50%" in said
    assert "another rate" not in reconstruction.phase_diagram(result())


def test_points_that_are_not_finished_are_counted() -> None:
    made = result()
    made["finished"][1] = 0
    made["r_squared"][1] = np.nan
    assert "Only 8 of 10 points are finished" in reconstruction.phase_diagram(made)
    for name in ("r_squared", "differential_entropy"):
        made[name][:] = np.nan
    assert "nothing can be said" in reconstruction.phase_diagram(made)


def test_a_best_variance_at_an_end_of_the_grid_is_no_peak() -> None:
    made = result()
    made["r_squared"][4, :, -1] = 0.9
    assert "an end of the grid" in reconstruction.phase_diagram(made)
    made["r_squared"][:, :, -1] = 0.001
    assert "the image is lost at every variance" in reconstruction.phase_diagram(made)


# -- the paper


@pytest.mark.parametrize(
    ("published", "here", "last", "verdict"),
    [
        (100, 100, 200, AGREES),
        (100, 115, 200, AGREES),
        (100, 116, 200, DIFFERS),
        (100, 84, 200, DIFFERS),
        (100, 201, 200, DIFFERS),
        (100, 111, 110, TOO_SHALLOW),  # it may still cross within the tolerance
        (100, 20, 24, DIFFERS),
        (100, 25, 24, TOO_SHALLOW),
    ],
)
def test_a_depth_agrees_within_fifteen_percent(
    published: int, here: int, last: int, verdict: str
) -> None:
    assert depth_verdict(published, here, last) == verdict


def test_the_ordered_wall_is_judged_at_every_published_variance() -> None:
    said = reconstruction.phase_diagram(of_the_paper([16, 40, 20, 151, 151]))
    assert "agrees at σ_w² = 0.6 and 1.1; does not agree at σ_w² = 1.4 and 1.5" in said
    assert "| 1.4 | 87 | 20 | does not agree |" in said
    assert "the published one, of pictures that are shifted first" in said
    assert "by another measure" not in said


def test_the_other_entropy_is_said_to_be_another_measure() -> None:
    said = reconstruction.phase_diagram(of_the_paper([16, 38, 87, 120, 151], published=False))
    assert "**Against the paper, closed form, by another measure: the ordered wall agrees" in said
    assert "published numbers are of another measure" in said


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"data": {"name": "digits"}}, "data set mnist (here digits)"),
        ({"config": {"sigma_b2": 0.1}}, "σ_b² 0.05 (here 0.1)"),
        ({"config": {"width": 300}}, "width one neuron per pixel (here 300)"),
        ({"config": {"activation": "erf"}}, "activation tanh (here erf)"),
    ],
)
def test_another_network_or_data_set_is_not_compared_with_the_paper(
    change: dict[str, Any], named: str
) -> None:
    said = reconstruction.phase_diagram(about(of_the_paper([16, 38, 87, 120, 151]), **change))
    assert NOTHING in said
    assert named in said
    assert "published depth" not in said
    assert not re.search(r"\b(87|120)\b", said), "a published number without the published network"


def test_an_entropy_that_is_not_defined_gets_no_verdict() -> None:
    made = of_the_paper([16, 38, 87, 120, 151])
    made["differential_entropy_published"][1, :, 3:] = np.nan
    said = reconstruction.phase_diagram(made)
    assert "is not defined at σ_w² = 1.1" in said
    assert "agrees at σ_w² = 0.6, 1.4 and 1.5" in said


def test_published_depths_are_compared_only_where_the_grid_has_them() -> None:
    made = result(name="mnist", sigma_b2=0.05)
    assert "of which this run has none" in reconstruction.phase_diagram(made)


def test_the_chaotic_side_is_compared_at_the_published_depth_alone() -> None:
    made = result(depth=200, name="mnist").assign_coords(sigma_w2=PUBLISHED_GRID)
    made["differential_entropy"][:] = -10.0
    said = reconstruction.phase_diagram(made)
    assert "The chaotic side, closed form, by another measure: it agrees.** At depth 200" in said
    made["differential_entropy"][-1] = -16.0
    assert "does not agree.** At depth 200" in reconstruction.phase_diagram(made)
    assert "chaotic side" not in reconstruction.phase_diagram(of_the_paper([16] * 5))


def test_the_form_of_a_network_is_named_and_decides_what_is_compared() -> None:
    settings: dict[str, Any] = {"architecture": "cnn", "sigma_b2": 2e-5, "depth": 60}
    ours = result(name="mnist", channels=128, padding="circular", **settings)
    said = reconstruction.cnn(ours)
    assert "form: pad, then convolve" in said
    assert "padding convolve, then pad (here pad, then convolve)" in said
    assert NOTHING in said
    theirs = result(name="mnist", channels=128, padding="published", **settings)
    assert not departures(theirs)
    theirs["differential_entropy"][:] = -6.5
    theirs["differential_entropy"][:2] = -19.3
    said = reconstruction.cnn(theirs)
    assert "form: convolve, then pad" in said
    assert NOTHING not in said
    assert "does not agree at depth 30" in said
    narrow = result(name="mnist", channels=64, padding="published", **settings)
    said = reconstruction.cnn(narrow)
    assert NOTHING not in said
    assert "Of the network, channels 128 (here 64)." in said
    narrower = reconstruction.cnn(result(channels=32, padding="published", **settings))
    assert NOTHING in narrower
    assert "channels 128 (here 32)" in narrower


def test_a_result_from_before_there_were_forms_is_of_the_older_one() -> None:
    made = result(architecture="resnet", sigma_b2=2e-5, channels=32, name="fashion_mnist")
    told = provenance(made)
    del told["config"]["block"]
    said = reconstruction.resnet(made.assign_attrs(provenance=json.dumps(told)))
    assert "form: x + f(x);" in said
    assert "block tanh(x + f(x)) (here x + f(x))" in said


def test_a_residual_network_has_a_table_of_the_loss_and_no_critical_variance() -> None:
    made = result(architecture="resnet", sigma_b2=2e-5, block="published", channels=32)
    made["r_squared"][3] = 0.42
    said = reconstruction.resnet(made)
    assert "| 2.4 | 0.42 |" in said
    assert "mean field" not in said
    assert "6 ξ_c" not in said


def test_a_wall_is_given_at_depths_of_the_run_beside_mean_field() -> None:
    said = reconstruction.cnn(result(architecture="cnn", sigma_b2=2e-5, depth=60))
    # 0 at σ_w² = 0.5 and 0.5 at 1.0, from depth 4 on
    assert re.search(r"\| 60 \| 0\.52 \| 0\.\d+ \|", said)
    by_adam = reconstruction.cnn(result("adam", architecture="cnn", sigma_b2=2e-5, depth=60))
    assert "| 60 | 0.52 |\n" in by_adam + "\n"
    assert "signal" not in by_adam


# -- solvers and resolutions


def test_two_solvers_are_compared_on_the_networks_that_both_have() -> None:
    closed, adam = result(), result("adam", depth=8, seeds=1)
    adam["r_squared"][:] = 0.3
    adam["r_squared"][0] = -2.0
    said = reconstruction.phase_diagram(closed, comparison=adam)
    assert "5 variances, 1 seed, to depth 8" in said
    assert "R² is 0.00 to 0.50 in closed form and −2.00 to 0.30 by Adam" in said
    assert "Of 32 points at which Adam returns 5% of the image or more" in said
    assert "returns more at 32" in said
    assert reconstruction.phase_diagram(adam, comparison=closed).count("returns more at 32") == 1


def test_a_solver_that_returns_nothing_and_entropies_that_are_not_defined_are_said() -> None:
    adam = result("adam", depth=8, seeds=1)
    adam["r_squared"][:] = -1.0
    adam["differential_entropy"][2, :, -1] = np.nan
    said = reconstruction.phase_diagram(result(), comparison=adam)
    assert "Adam returns 5% of the image at none of the points" in said
    assert "not defined at σ_w² = 1.7" in said
    assert "not that they are wrong" in said


def test_the_resolution_has_a_row_for_every_lambda() -> None:
    made = xr.concat(
        [result(), result()], xr.DataArray([1e-4, 1e-2], dims="resolution", name="resolution")
    )
    made["r_squared"][1, 1, :, 5:] = 0.0
    said = reconstruction.phase_diagram(result(), by_resolution=made)
    assert "| 0.0001 | 4 ± 0 | > 12 |" in said
    assert "| 0.01 | 4 ± 0 | 6 ± 0 |" in said


def test_the_steps_have_a_row_each_and_a_dash_where_nothing_was_measured() -> None:
    lost = result()
    lost["differential_entropy"][:, :, 3:] = -12.0
    made = along([lost.isel(sigma_w2=slice(1)), result(), result()], "steps", [10, 80, 1200])
    there = {"architecture": "resnet", "sigma_b2": 2e-5}
    said = reconstruction.resnet(result(**there), by_steps=made)
    (few,) = (line for line in said.splitlines() if line.startswith("| 10 |"))
    (many,) = (line for line in said.splitlines() if line.startswith("| 1,200 |"))
    assert few.startswith("| 10 | 4 (0.00) |")
    assert few.count("| –") == len(GRID) - 1
    assert many.count("> 12 (") == len(GRID)
    decayed = result("adam", weight_decay=0.01).isel(sigma_w2=slice(1, None))
    said = reconstruction.resnet(result(**there), by_steps=made, decayed=decayed)
    (row,) = (line for line in said.splitlines() if "weight decay 0.01 |" in line)
    assert (row.count("| –"), row.count("> 12 (")) == (1, len(GRID) - 1)


# -- trainings


def test_trainings_of_other_data_say_nothing_of_a_run() -> None:
    made = about(result(name="digits"), data={"checksum": "1" * 64})
    said = reconstruction.phase_diagram(made, trained=trained(), predicted=result())
    assert "nothing is said of this run" in said
    assert "on made-up; this run is on digits" in said
    assert "deepest that trains" not in said
    networks = {"architecture": "cnn", "sigma_b2": 2e-5}
    there = trained(**networks)
    other = about(result(**networks), data={"checksum": "1" * 64})
    assert "nothing is said of this run" in reconstruction.cnn(other, trained=there)


def test_the_depths_that_train_stand_beside_the_predicted_ones() -> None:
    said = reconstruction.phase_diagram(result(), trained=trained(), predicted=result())
    assert "Of 40 networks that were trained" in said
    assert "the best reaches 90% accuracy" in said
    assert "reach 50%, halfway from chance" in said
    assert "| 0.5 | none | 4 |" in said
    assert "| 1 | 4 ± 0 | ≥ 12 |" in said
    assert "| 3 | ≥ 12 ± 0 | ≥ 12 |" in said
    assert "not the networks of the maps" not in said
    wide = reconstruction.phase_diagram(result(width=9), trained=trained(), predicted=result())
    assert "have width 64 (here 9)" in wide


def test_networks_that_learn_nothing_are_said_to_learn_nothing() -> None:
    nothing = trained()
    nothing["accuracy"][:] = 0.1
    said = reconstruction.phase_diagram(result(), trained=nothing, predicted=result())
    assert "no network has learnt anything" in said


def test_the_variances_that_train_stand_beside_what_arrives_there() -> None:
    networks = {"architecture": "cnn", "sigma_b2": 2e-5}
    made = result(**networks)
    made["r_squared"][0], made["r_squared"][1] = 0.2, 0.4
    said = reconstruction.cnn(made, trained=trained(**networks))
    # trains from halfway between 0.5 and 1.0 at depth 2
    assert "| 2 | 0.75 | 0.30 | none | – | 90.0% |" in said
    assert "tells apart the" in said
    assert "with an AUC of 0." in said
    nearly = trained(**networks)
    nearly["accuracy"][:] = 0.9
    assert "within this run's grid all train." in reconstruction.cnn(made, trained=nearly)


def test_of_grids_it_says_how_the_zoos_verdict_does_and_what_is_not_behind_it() -> None:
    learns = np.arange(40) < 20
    table = pd.DataFrame(
        {"learns_at_all": learns, "verdict": np.linspace(1, 0, 40), "snip": np.arange(40) % 7}
    )
    board = zoo_scoreboard(table, "learns_at_all", ["verdict", "snip"])
    said = zoo.grids_said({"grid of CNNs": table}, {"grid of CNNs": board})
    assert "Of 40 networks of the grid of CNNs, 20 learn at all." in said
    assert "has an AUC of 1.000 (1.000 to 1.000), so the aim of 0.95 is reached" in said
    assert "None has a higher AUC." in said
    assert "| SNIP | " in said
    assert "trained in one way only" in said
    assert "also trained" not in said
    assert zoo.grids_said({}, {}) == ""
    some = table.iloc[15:25].assign(learns_longer=[True] * 8 + [False] * 2)
    some.attrs |= {"budget": 2400, "trained_by": ["adam 0.001", "adam 0.0001"]}
    said = zoo.grids_said({"A": table}, {"A": board}, {"A": some})
    assert (
        "Of 10 networks that were also trained for up to 2,400 steps (adam 0.001, adam 0.0001), "
        "the label changes in 3: 30%; the verdict's calibration error on these is 0.38 then, "
        "0.44 before. It foretells the labels of then with an AUC of 1.000 (1.000 to 1.000). "
        "None has a higher AUC."
    ) in said
    all_learn = some.assign(learns_longer=True)
    said = zoo.grids_said({"A": table}, {"A": board}, {"A": all_learn})
    assert "0.44 before." in said
    assert "of then" not in said, "there is nothing to foretell"
    several = {"A": table.assign(steps_paid=9.0), "B": table}
    said = zoo.grids_said(several, {"A": board.drop("snip"), "B": board})
    assert said.count("trained in one way only") == 1
    assert "| SNIP | – | " in said


def test_trainability_compares_nothing_unless_it_is_the_published_search() -> None:
    made, there = result(), trained()
    said = findings_trainability.trainability(made, made, there)
    assert NOTHING in said
    assert "data set cifar10, in grey (here made-up)" in said
    assert "shape shrinking (here wide)" in said
    assert "At chance (10%) or hardly above it stay 14 of 40 networks" in said
    search = {**findings_trainability.SEARCH, "shape": "shrinking", "width": 0}
    same = about(there, config=search, data={"name": "cifar10"})
    assert NOTHING not in findings_trainability.trainability(made, made, same)


def test_trainability_says_where_pictures_are_worse_than_the_mean_and_what_was_trained_anew() -> (
    None
):
    made, there = result(), trained()
    made["r_squared"][3:, :, -1] = -0.3
    anew = there.isel(sigma_w2=[2], seed=[0])
    anew["accuracy"] = anew["accuracy"] - 0.25
    said = findings_trainability.trainability(made, made, there, anew=anew)
    assert "From σ_w² = 2.4 to 3 R² falls below 0 at the last depth, to −0.30" in said
    assert "Of 4 networks trained anew, 4 stand above as well" in said
    assert "differs by at most 0.2500" in said
    other = about(anew, data={"checksum": "1" * 64})
    said = findings_trainability.trainability(made, made, there, anew=other)
    assert "None of the 4 networks trained anew has its like above" in said


# -- the method on one network

CLASSES = SimpleNamespace(name="digits", classes=("0", "1"), image_shape=(1, 8, 8))
ONE = CascadePoint(width=24, sigma_w2=0.6, train_images=200)


def one(left: list[float], accuracies: dict[int, float], **changes: Any) -> str:
    point = replace(ONE, **changes)
    return reconstruction.how_it_works(point, CLASSES, left, accuracies, steps=7)  # type: ignore[arg-type]


def test_one_network_says_where_its_image_is_lost_and_whether_that_held() -> None:
    said = one([0.8, 0.4, 0.01], {1: 0.95, 6: 0.5})
    for expected in ("digits", "3 stages of width 24", "R² is 0.80, 0.40 and 0.01",
                     "lost from depth 3", "7 steps", "95.0% at depth 1 and 50.0% at depth 6",
                     "guessing gives 50.0%", "They do what was predicted",
                     "ordered phase"):  # fmt: skip
        assert expected in said
    assert "They do not do what was predicted" in one([0.8, 0.4, 0.01], {1: 0.95, 6: 0.9})
    assert "test nothing" in one([0.8, 0.4, 0.01], {1: 0.5, 6: 0.5})
    assert "chaotic phase" in one([0.8], {1: 0.9}, sigma_w2=3.0)


def test_one_network_that_loses_nothing_predicts_nothing() -> None:
    said = one([0.8, 0.4, 0.3], {2: 0.95, 8: 0.5})
    assert "not lost within these 3 stages: R² is 0.30" in said
    assert "nothing is predicted" in said


def test_one_network_is_compared_with_the_paper_only_as_wide_as_mnist() -> None:
    assert NOTHING in one([0.8, 0.01], {1: 0.9})
    mnist = SimpleNamespace(name="mnist", classes=range(10), image_shape=(1, 28, 28))
    published = replace(ONE, width=784)
    said = reconstruction.how_it_works(published, mnist, [0.8, 0.01], {1: 0.9}, steps=7)  # type: ignore[arg-type]
    assert "It gives depth 16 for this network" in said


# -- digits


def test_a_study_says_what_both_judges_see_and_what_it_was_made_with() -> None:
    made = study()
    said = findings_digits.digits(made)
    for expected in ("made-up (grey 5×5)", "4 stages", "1,234 steps", "98.8%", "#71, class class 1",
                     "the network: class 1, class 2 from stage 3"):  # fmt: skip
        assert expected in said
    # of three classes; one verdict of the class means is wrong
    assert "by the network 3 and the class means 2; from" in said
    last = float(made.test_r_squared.sel(state="trained", level=4))
    assert f"and {last:.2f} after" in said
    assert NOTHING in said


def test_a_study_agrees_with_the_paper_where_its_ambiguous_five_becomes_a_six() -> None:
    made = about(study(depth=9, classes=10), data={"name": "mnist"})
    made["label"] = 5
    made["verdict"][:] = 5
    assert "it does not agree" in findings_digits.digits(made)
    made["verdict"][:, :, -1, 1] = 6
    assert "**Against the paper: it agrees.**" in findings_digits.digits(made)
    assert NOTHING in findings_digits.digits(about(made, data={"name": "digits"}))
    assert NOTHING in findings_digits.digits(about(made, config={"off": 0.0}))
    assert "no ambiguous image" in findings_digits.digits(made.sel(shown=["typical"]))


# -- channels


@pytest.fixture(scope="module")
def vgg() -> xr.Dataset:
    return run_channels(POINT)


@pytest.mark.slow
def test_channels_say_what_the_weights_are_and_how_the_shown_ones_rank(vgg: xr.Dataset) -> None:
    said = findings_channels.channels(vgg)
    assert "VGG11, random weights" in said
    assert "scikit-image's photographs" in said
    order = np.argsort(-vgg.gained.values, kind="stable").tolist()
    assert f"2:26 is number {order.index(26) + 1} of 64" in said
    assert f"{float(vgg.r_squared[0, 1]):.2f}".replace("-", "−") in said
    assert NOTHING in said
    assert "ImageNet's weights (here random ones)" in said
    changed = vgg.copy(deep=True)
    changed["gained"][26] = 9.0
    assert "2:26 is number 1 of 64" in findings_channels.channels(changed)


@pytest.mark.slow
def test_channels_of_imagenets_vgg16_may_be_compared_and_silence_is_said(vgg: xr.Dataset) -> None:
    same = about(vgg, config={"layers": 16}, weights={"name": "imagenet", "epochs": None})
    assert NOTHING not in findings_channels.channels(same)
    assert "answers to faces" in findings_channels.channels(same)
    silent = vgg.copy(deep=True)
    silent["answer_energy"][:] = 0
    assert "adds nothing" in findings_channels.channels(silent)
    unranked = about(vgg, config={"shown": ["1:3"]})
    assert "1:3, whose level was not ranked" in findings_channels.channels(unranked)


# -- predictors


def judged(seeds: int = 2) -> xr.Dataset:
    """Scores that know everything, and ones that know nothing."""
    accuracy = trained(seeds).accuracy
    scores = xr.concat(
        [accuracy, 0 * accuracy],
        xr.DataArray(["gradient_ratio", "random"], dims="predictor", name="predictor"),
    )
    seconds = xr.ones_like(scores.isel(depth=0, drop=True))
    made = xr.Dataset({"scores": scores, "seconds": seconds})
    return about(made.assign_attrs(provenance=trained(seeds).attrs["provenance"]))


def scored(seeds: int = 2) -> str:
    trainings = trained(seeds)
    trainings["seconds"] = 10 * xr.ones_like(trainings["accuracy"])
    table = scoring.scoreboard(judged(seeds), trainings)
    return findings_prediction.scoreboard({"made-up": table}, [judged(seeds)], [trainings])


def test_the_scoreboard_names_the_best_predictor_the_noise_and_the_cost() -> None:
    said = scored()
    assert "**made-up.** Of 40 networks" in said
    assert "400 CPU seconds" in said
    assert "Highest AUC: gradient ratio (1.000 ± 0.000)" in said
    assert "The random score has 0.500 ± 0.000 instead of 0.5, of 20 networks a seed" in said
    assert "| gradient ratio | 1 | 1.000 ± 0.000 | 0.0 | – | 1 | 40 × |" in said
    assert NOTHING in said


def test_one_seed_has_no_spread() -> None:
    said = scored(1)
    assert "There is one seed, so nothing is known of its spread" in said
    assert "(1.000)" in said


def test_points_computed_anew_stand_beside_the_shipped_ones() -> None:
    shipped = trained()
    fresh = shipped.copy(deep=True)
    fresh["accuracy"][0, 0, 0] -= 0.125
    table = scoring.scoreboard(judged(), shipped.assign(seconds=shipped.accuracy))
    given = ({"made-up": table}, [judged()], [shipped])
    said = findings_prediction.scoreboard(*given, anew=[(fresh, shipped, "accuracy")])
    assert "40 values of `accuracy` differ from those above by at most 0.12" in said
    other = about(fresh, data={"name": "digits", "checksum": "1" * 64})
    said = findings_prediction.scoreboard(*given, anew=[(other, shipped, "accuracy")])
    assert "**Anew on digits.** Nothing of it stands in the result on made-up" in said


# -- the probe


def probed(accuracies: dict[str, float], *, gain: float = 4.0, lost: bool = True) -> str:
    import pandas as pd

    rows = {0.5: [0.1, 0.0, "ordered"], 2.0: [1.6, math_nan(), "overflows"]}
    columns = ["σ_w²", "R² read directly", "phase"]
    suggestion = SimpleNamespace(
        gain=gain, factor=gain**0.5, sigma_w2=1.4, report=report([0.9, 0.6]),
        table=pd.DataFrame.from_dict(rows, orient="index", columns=columns),
    )  # fmt: skip
    found = report([0.9, 0.01, 0.0 if lost else 0.5], correlation=[0.5, 0.9, 0.999])
    return findings_probe.probe(
        found, suggestion, accuracies, {"Mine": report([0.9, 0.8])},
        data="digits", classes=10, steps=30, pictures="patches",
    )  # type: ignore[arg-type] # fmt: skip


def math_nan() -> float:
    return float("nan")


def test_the_probe_says_where_the_input_is_lost_and_what_saved_it() -> None:
    said = probed({"as it was": 0.11, "suggested": 0.92})
    for expected in ("digits  ·  Mine, 7 parameters", "30 steps", "ordered",
                     "from stage 2 of 3 on (layer `layer1`",
                     "weights times 2, that is σ_w² = 1.4: R² before the head is 0.60",
                     "times 0.5 (σ_w² = 0.1) it is ordered and R², read directly, is 0.00",
                     "times 2 (σ_w² = 1.6) it overflows", "as the probe said",
                     "| as it was | 11.0% |", "| Mine | 2 | never | 0.80 |", NOTHING):  # fmt: skip
        assert expected in said


def test_the_probe_claims_no_rescue_where_there_was_none() -> None:
    assert "not needed" in probed({"as it was": 0.9, "suggested": 0.92})
    assert "did not help" in probed({"as it was": 0.9, "suggested": 0.2})
    alive = probed({"as it was": 0.11, "suggested": 0.92}, lost=False)
    assert "as the probe said" not in alive
    assert "saw nothing lost" in alive
    assert "Neither has learnt anything" in probed({"as it was": 0.1, "suggested": 0.11})
    assert "No other variance is better" in probed({"as it was": 0.1, "suggested": 0.1}, gain=1.0)


# -- the notebooks' fixed words

DECIMAL = re.compile(r"(?<![\w.:/])[−-]?\d[\d,]*(?:(?:\.\d+)?%|\.\d+)")
GENERAL = {"0.02", "−19.3", "0.001", "0.5%", "0.5", "1%"}  # definitions and defaults
MEASURED = re.compile(
    r"R²\s*(=|of|is|has)\s*[−-]?\d|AUC\s*(=|of|has)\s*\d|reach(es)? \d|\d% (of|right)"
)


def cells(path: Any) -> list[Any]:
    return nbformat.read(path, as_version=4).cells


def fixed_lines(path: Any) -> list[str]:
    """The lines of the Markdown cells, less those that give published numbers and say so."""
    texts = [cell.source for cell in cells(path) if cell.cell_type == "markdown"]
    sentences = [s for text in texts for s in re.split(r"(?<=[.:;])\s|\n", text)]
    return [s for s in sentences if "published" not in s.lower() and "arxiv" not in s.lower()]


def outputs(path: Any) -> str:
    """What the code cells of the committed notebook have printed and computed."""
    found = [o for cell in cells(path) for o in cell.get("outputs", [])]
    texts = [
        o.get("data", {}).get(kind, "") for o in found for kind in ("text/markdown", "text/plain")
    ]
    return "\n".join([*texts, *(o.get("text", "") for o in found)])


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_what_a_run_says_is_computed_by_the_last_cell(path: Any) -> None:
    heading, last = cells(path)[-2:]
    assert heading.source.startswith("## What this run says\n")
    assert last.cell_type == "code"
    assert last.source.startswith("Markdown(")
    (output,) = last.outputs
    assert "**Against the paper" in output.data["text/markdown"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_fixed_words_hold_no_number_of_a_run(path: Any) -> None:
    measured = set(DECIMAL.findall(outputs(path)))
    assert measured, "the committed notebook has computed nothing"
    for line in fixed_lines(path):
        assert not MEASURED.search(line), line
        held = set(DECIMAL.findall(line)) - GENERAL
        assert not held & measured, line


def test_such_numbers_would_be_found() -> None:
    for line in (
        "R² = 0.29 at depth 60",
        "reaches 97% accuracy",
        "92% of the test images",
        "AUC of 0.99",
    ):
        assert MEASURED.search(line)
    assert DECIMAL.findall("R² = −0.54, 97.75%, 1.000 but not arXiv:2406.12916 or 10:216") == [
        "−0.54", "97.75%", "1.000",
    ]  # fmt: skip


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_first_words_on_parameters_are_these(path: Any) -> None:
    wanted = "**Parameters.** Defaults for a quick run. If papermill added a cell below, its "
    wanted += "values apply."
    assert any(cell.source.startswith(wanted) for cell in cells(path))
