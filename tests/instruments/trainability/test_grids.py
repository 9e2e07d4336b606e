"""Networks of a grid that are trained several ways: the sweep, its labels, and its accuracies."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from paperlib.core import paths
from paperlib.instruments.prediction.forecasts import GridForecasts
from paperlib.instruments.prediction.zoo_scores import judged_grid, predictors_of
from paperlib.instruments.probe.verdict import FITTED
from paperlib.instruments.trainability.grids import GridTraining, GridTrainings
from paperlib.instruments.trainability.trainings import labels
from paperlib.meanfield import correlation_depth
from paperlib.plots.labels import describe_training
from paperlib.sweep import collect_sweep, run_sweep
from paperlib.sweep.grid import numbered
from paperlib.training.outcome import accuracy_of

NETWORKS = {"dataset": "digits", "sigma_w2": (0.5, 1.7), "seeds": (3,), "depths": (2, 4)}
SIZE = {"width": 20, "train_images": 100}
SMALL = GridTrainings(**NETWORKS, **SIZE, budget=40, test_images=50)  # type: ignore[arg-type]


@pytest.fixture(scope="module", autouse=True)
def own_home(tmp_path_factory: pytest.TempPathFactory) -> object:
    home = tmp_path_factory.mktemp("home")
    (home / paths.NOTEBOOKS).mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(paths.HOME_VARIABLE, str(home))
        patch.delenv(paths.DATA_VARIABLE, raising=False)
        yield home


@pytest.fixture(scope="module")
def trained(own_home: Path) -> xr.Dataset:
    return run_sweep(SMALL, jobs=1, device="cpu")


@pytest.fixture(scope="module")
def foretold(own_home: Path) -> xr.Dataset:
    return run_sweep(GridForecasts(**NETWORKS, **SIZE), jobs=1, device="cpu")  # type: ignore[arg-type]


def test_networks_are_counted_with_the_depth_running_fastest(trained: xr.Dataset) -> None:
    flat = numbered(trained)
    assert flat["finished"].dims == ("number",)
    assert flat["depth"].values.tolist() == [2, 4, 2, 4]
    assert flat["sigma_w2"].values.tolist() == [0.5, 0.5, 1.7, 1.7]
    one = trained["accuracy"].sel(sigma_w2=1.7, seed=3, depth=2)
    np.testing.assert_array_equal(flat["accuracy"].sel(number=2).values, one.values)
    assert numbered(flat) is flat


def test_labels_are_of_the_best_of_the_trainings(trained: xr.Dataset) -> None:
    best = trained["accuracy"].max(("training", "moment")).values.ravel()
    found = labels(trained, at_all=0.3)
    np.testing.assert_array_equal(found["best_accuracy"], best)
    np.testing.assert_array_equal(found["learns_at_all"], best >= 0.3)
    np.testing.assert_array_equal(accuracy_of(trained).values.ravel(), best)


def test_networks_that_are_not_finished_have_neither_label_nor_accuracy(
    trained: xr.Dataset,
) -> None:
    part = collect_sweep(replace(SMALL, depths=(2, 9)))
    assert accuracy_of(part).isnull().sel(depth=9).all()
    assert labels(part)["number"].values.tolist() == [0, 2]


def test_a_title_names_all_trainings(trained: xr.Dataset) -> None:
    words = describe_training(trained).split("  ·  ")
    assert (
        words[-2]
        == "best of Adam 0.001, Adam 0.0003, Adam 0.003, up to 40 steps of 32, ended once decided"
    )


def test_what_trains_a_network_is_part_of_its_identity_and_the_default_always_does() -> None:
    def identity(**changes: object) -> str:
        return GridTraining(**changes).identity(code_version=1, checksum="c")  # type: ignore[arg-type]

    fewer = ("adam 0.001", "sgd 0.1")
    assert len({identity(), identity(trained_by=fewer), identity(depth=3), identity(seed=9)}) == 4
    assert [t.name for t in GridTraining(trained_by=fewer[::-1]).trainings()] == list(fewer)
    with pytest.raises(ValueError, match=r"trained_by must hold 'adam 0\.001', the default"):
        GridTraining(trained_by=("sgd 0.1",))


def test_a_grid_is_judged_by_the_verdict_of_the_zoo_and_by_mean_field(
    trained: xr.Dataset, foretold: xr.Dataset
) -> None:
    said = labels(trained)[["learns_at_all"]].to_dataframe()
    extra = foretold["rivals"].isel(rival=0, drop=True).rename("extra").to_dataframe()
    table = judged_grid(foretold, trained, labels(trained), [extra])
    assert table.index.tolist() == said.index.tolist()
    assert table["learns_at_all"].tolist() == said["learns_at_all"].tolist()
    assert {*predictors_of(foretold), "extra"} <= {*table.columns}
    row = table.iloc[3]
    assert (row["sigma_w2"], row["depth"], row["extra"]) == (1.7, 4, row[extra_name(foretold)])
    assert row["mean_field"] == pytest.approx(6 * correlation_depth(1.7, 0.05) / 4)
    numbers = {str(name): float(row[name]) for name in foretold["signal"].values}
    assert row["verdict"] == FITTED["best"].probability(numbers)


def extra_name(foretold: xr.Dataset) -> str:
    return str(foretold["rival"].values[0])


def test_another_grid_is_refused(trained: xr.Dataset, foretold: xr.Dataset) -> None:
    other = collect_sweep(replace(SMALL, depths=(2, 9)))
    with pytest.raises(ValueError, match=r"of one grid; they differ in depths"):
        judged_grid(foretold, other, labels(trained))
