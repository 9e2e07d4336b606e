"""What the shipped results must show: the paper's figures, and what this package claims beyond."""

import hashlib
import json

import numpy as np
import pandas as pd
import pytest
import xarray as xr
from scipy.stats import spearmanr

from paperlib import collapse_depth, critical_sigma_w2, notebooks
from paperlib.core import paths
from paperlib.core.provenance import provenance
from paperlib.instruments.channels.parameters import Vgg16Channels
from paperlib.instruments.prediction.names import BASELINES
from paperlib.instruments.prediction.scoring import roc_auc, scoreboard
from paperlib.instruments.reconstruction.parameters import CnnPhaseDiagram, ResnetDepth
from paperlib.instruments.reconstruction.points import CascadePoint, CascadeSweep
from paperlib.instruments.reconstruction.tables import walls
from paperlib.instruments.trainability.parameters import Trainability
from paperlib.instruments.trainability.trainings import labels
from paperlib.plots import PUBLISHED_DEPTHS
from paperlib.sweep.plan import _points_of, make_plan
from paperlib.sweep.store import load_result
from paperlib.training.outcome import accuracy_of, threshold_of, trainable_depth


def test_every_shipped_result_has_its_digest_and_every_digest_its_result() -> None:
    folder = paths.reference_file(paths.CHECKSUMS).parent
    lines = (folder / paths.CHECKSUMS).read_text().splitlines()
    digests = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.glob("*.nc")
    }
    assert {name: digest for digest, name in map(str.split, lines)} == digests


def shipped(name: str) -> xr.Dataset:
    if not paths.reference_file(name).exists():
        pytest.skip(f"{name} has not been computed yet")
    return load_result(name)


@pytest.fixture(scope="module")
def ridge() -> xr.Dataset:
    return shipped("mnist_mlp.nc")


@pytest.fixture(scope="module")
def adam() -> xr.Dataset:
    return shipped("mnist_mlp_adam.nc")


def shared(ridge: xr.Dataset, adam: xr.Dataset) -> tuple[xr.Dataset, xr.Dataset]:
    """Both at the variances and depths that both have, means over seeds."""
    means = (result.mean("seed") for result in (ridge, adam))
    return xr.align(*means, join="inner", exclude=("shown_depth",))


def test_adams_deepest_stage_keeps_most_between_one_and_a_half_and_two(adam: xr.Dataset) -> None:
    assert adam.sizes["sigma_w2"] >= 20
    assert adam.sizes["depth"] >= 60
    last = adam.isel(depth=-1).mean("seed")
    for measure in ("r_squared", "gram_entropy"):
        assert 1.5 <= float(last.sigma_w2[int(last[measure].argmax("sigma_w2"))]) <= 2.0


@pytest.mark.parametrize("sigma_w2", [0.6, 1.1])
def test_adams_entropy_falls_where_the_published_one_does(
    adam: xr.Dataset, sigma_w2: float
) -> None:
    curve = adam["differential_entropy"].sel(sigma_w2=sigma_w2).mean("seed")
    depth = collapse_depth(curve.values, threshold=-13)
    assert depth == pytest.approx(PUBLISHED_DEPTHS[sigma_w2], rel=0.25)


def test_the_whole_published_range_was_computed(ridge: xr.Dataset) -> None:
    assert (ridge.sizes["depth"], ridge.sizes["seed"]) == (200, 3)
    assert bool((ridge["finished"] == 1).all())
    grid = ridge.sigma_w2.values
    assert (grid[0], grid[-1]) == (0.1, 6.0)
    assert np.diff(grid).max() <= 0.05 + 1e-9
    assert provenance(ridge)["data"]["name"] == "mnist"


@pytest.mark.parametrize("sigma_w2", PUBLISHED_DEPTHS)
def test_the_closed_form_collapses_where_the_published_entropy_does(
    ridge: xr.Dataset, sigma_w2: float
) -> None:
    curve = ridge["r_squared"].sel(sigma_w2=sigma_w2).mean("seed")
    assert collapse_depth(curve.values) == pytest.approx(PUBLISHED_DEPTHS[sigma_w2], rel=0.25)


@pytest.mark.parametrize("sigma_w2", [1.0, 1.4, 1.7, 2.0, 3.0])
def test_the_closed_form_returns_more_of_the_image_than_adam(
    ridge: xr.Dataset, adam: xr.Dataset, sigma_w2: float
) -> None:
    closed, trained = (r["r_squared"].sel(sigma_w2=sigma_w2) for r in shared(ridge, adam))
    alive = (trained > 0.05).values
    assert alive.any()
    assert bool((closed.values >= trained.values)[alive].all())


def test_both_solvers_rank_the_variances_alike(ridge: xr.Dataset, adam: xr.Dataset) -> None:
    closed, trained = (r["r_squared"].clip(min=0).sum("depth") for r in shared(ridge, adam))
    assert len(closed) >= 12
    assert spearmanr(closed, trained).statistic >= 0.95


def test_the_closed_form_separates_three_phases_at_depth_60(ridge: xr.Dataset) -> None:
    at = ridge["r_squared"].sel(depth=60).mean("seed")
    best = float(at.sigma_w2[int(at.argmax("sigma_w2"))])
    assert 1.5 <= best <= 1.9
    for outside in (1.0, 3.0):
        assert float(at.max()) >= 3 * float(at.sel(sigma_w2=outside))


@pytest.mark.parametrize(
    "name",
    ["mnist_mlp.nc", "mnist_mlp_adam.nc", "cifar10_mlp.nc", "mnist_cnn.nc", "resnet_adam.nc"],
)
def test_a_shipped_result_gives_all_its_points_though_measures_were_added_since(name: str) -> None:
    result = shipped(name)
    config = CascadeSweep.from_dict(provenance(result)["config"])
    taken = _points_of(result, config)
    assert len(taken) == int((result["finished"] == 1).sum()) > 0
    last = list(taken)[-1]
    at = result.sel(sigma_w2=last.sigma_w2, seed=last.seed)
    np.testing.assert_array_equal(taken[last]["gram_entropy"], at["gram_entropy"])
    assert CascadePoint.fields_in(taken[last]) == CascadePoint.fields_in(result)


# --- the published procedure ---


@pytest.mark.slow
def test_adam_to_full_depth_gives_the_published_walls_cone_and_chaotic_sides() -> None:
    mlp = shipped("mnist_mlp_adam_200.nc")["differential_entropy_published"].isel(seed=0)
    for depth in (10, 100):
        assert float(mlp.sel(sigma_w2=1.7, depth=depth)) == pytest.approx(-6.6, abs=0.1)
    for sigma_w2 in (3.5, 4.0, 5.0, 6.0):
        assert -12 <= float(mlp.sel(sigma_w2=sigma_w2, depth=200)) <= -9
    cnn = shipped("cnn_published_adam.nc")
    table = walls(cnn)
    here = table["here: −10 nats, as published"].astype(float)
    assert (here - table["published"].astype(float)).abs().max() <= 0.05
    deepest = cnn["differential_entropy_published"].isel(seed=0, depth=-1)
    assert ((deepest >= -8) & (deepest <= -6)).sel(sigma_w2=slice(1.0, 6.0)).all()


def test_what_adam_returns_deep_down_is_wrong_where_its_entropy_says_all_is_well() -> None:
    """The entropy counts differences between pictures; R² asks whether they are right."""
    for name in ("mnist_mlp_adam_200.nc", "cnn_published_adam.nc"):
        deepest = shipped(name).isel(seed=0, depth=-1)
        alive = deepest["differential_entropy_published"] > -12
        assert int(alive.sum()) >= 8
        assert float(deepest["r_squared"].where(alive).max()) < 0


def test_a_second_seed_of_the_published_procedure_finds_the_same_phases() -> None:
    """Where one seed returns pictures, so does the other, and as many nats of them."""
    for name, depth, ends in (
        ("mnist_mlp_adam_200.nc", 200, {0.8: False, 1.2: False, 1.7: True, 6.0: True}),
        ("resnet_published_adam.nc", 50, {0.05: True, 0.6: True, 1.5: True, 6.0: True}),
    ):
        result = shipped(name)
        both = result.isel(sigma_w2=(result["finished"] == 1).all("seed").values)
        assert both.sizes["sigma_w2"] == 8
        entropy = both["differential_entropy_published"].sel(depth=depth)
        assert {w: bool((entropy.sel(sigma_w2=w) > -12).all()) for w in ends} == ends
        early = both["differential_entropy_published"].sel(depth=5)
        assert float(abs(early.diff("seed")).max()) < 0.3


def test_the_published_cnn_of_128_channels_has_its_wall_at_0_97_400_deep() -> None:
    result = shipped("cnn_published_adam_400.nc").isel(seed=0)
    entropy = result["differential_entropy_published"].sel(depth=400)
    assert float(entropy.sel(sigma_w2=0.95)) < -16
    assert float(entropy.sel(sigma_w2=1.0)) > -6.5
    assert float(result["r_squared"].sel(depth=400).max()) < -2  # of wrong pictures


# --- trainability ---


@pytest.fixture(scope="module", params=["mnist", "cifar10"])
def trained(request: pytest.FixtureRequest) -> xr.Dataset:
    return shipped(f"trainability_{request.param}.nc")


@pytest.fixture(scope="module", params=["mnist", "cifar10"])
def table(request: pytest.FixtureRequest) -> pd.DataFrame:
    predictions = shipped(f"predictors_{request.param}.nc")
    return scoreboard(predictions, shipped(f"trainability_{request.param}.nc"))


def test_the_grid_of_trainings_is_whole_and_states_its_budget(trained: xr.Dataset) -> None:
    assert bool((trained["finished"] == 1).all())
    assert trained.sizes["sigma_w2"] >= 12
    assert trained.sizes["depth"] >= 8
    assert trained.sizes["seed"] >= 2
    assert (trained.depth[0], trained.depth[-1] >= 100) == (5, True)
    config = provenance(trained)["config"]
    assert config["width"] >= 300
    assert config["steps"] <= 2000


def test_critical_networks_train_deepest_and_not_every_deep_network_trains(
    trained: xr.Dataset,
) -> None:
    threshold = threshold_of(trained)
    depths = trainable_depth(trained["accuracy"], trained.depth, threshold).mean(1)
    critical = int(np.abs(trained.sigma_w2.values - critical_sigma_w2(0.05)).argmin())
    assert depths[critical] > depths[[critical - 1, critical + 1]].max()
    assert not (trained["accuracy"].isel(depth=-1) >= threshold).all()


def test_the_image_that_is_left_tells_what_trains(table: pd.DataFrame) -> None:
    ours = table.loc[[name for name in table.index if name not in BASELINES]]
    assert ours["auc"].max() >= 0.95


def test_predicting_the_grid_costs_at_most_a_hundredth_of_training_it(table: pd.DataFrame) -> None:
    assert table.loc["r_squared_ridge", "saving"] >= 100


@pytest.fixture(scope="module")
def cnn() -> xr.Dataset:
    return shipped("mnist_cnn.nc")


@pytest.fixture(scope="module")
def resnet() -> xr.Dataset:
    return shipped("resnet.nc")


@pytest.mark.parametrize(("name", "depth", "channels"), [
    ("mnist_cnn.nc", 100, 64), ("resnet.nc", 50, 32),
])  # fmt: skip
def test_the_convolutional_results_have_the_size_that_is_promised(name, depth, channels) -> None:
    result = shipped(name)
    assert result.sizes["depth"] >= depth
    assert result.sizes["sigma_w2"] >= 60
    assert result.sizes["seed"] >= 2
    assert provenance(result)["config"]["channels"] >= channels
    assert result["finished"].all()


@pytest.mark.slow
def test_the_walls_of_the_cnn_stand_where_they_were_published(cnn: xr.Dataset) -> None:
    table = walls(cnn)
    assert table.index.tolist() == [30, 50, 100]
    for column in ("here: R² = 0.02", "mean field: signal = λ"):
        assert (table[column] - table["published"]).abs().max() < 0.1


def test_a_deep_cnn_keeps_most_at_the_critical_variance(cnn: xr.Dataset) -> None:
    last = cnn["r_squared"].isel(depth=-1).mean("seed")
    best = float(last.idxmax("sigma_w2"))
    assert 0.95 <= best <= 1.15
    assert float(last.max()) > 0.5
    for side in (best - 0.4, best + 1.5):
        assert float(last.sel(sigma_w2=side, method="nearest")) < 0.5 * float(last.max())


def test_residual_networks_reach_deeper_and_lose_the_image_slowly(
    cnn: xr.Dataset, resnet: xr.Dataset
) -> None:
    wall_at_30 = float(walls(cnn).loc[30, "here: R² = 0.02"])
    below = [s for s in resnet.sigma_w2.values if s < wall_at_30 and s in cnn.sigma_w2.values]
    assert len(below) >= 3
    plain, residual = (
        r["r_squared"].mean("seed").sel(depth=30, sigma_w2=below) for r in (cnn, resnet)
    )
    assert (plain < 0.02).all()
    assert (residual > 0.5).all()
    deep = resnet["r_squared"].mean("seed").isel(depth=-1)
    falling = deep.sel(sigma_w2=slice(0.5, None)).values
    assert (np.diff(falling) < 0.005).all()
    assert 0.2 < falling[-1] < 0.5 * falling[0]


@pytest.mark.parametrize("name", ["trainability_cnn.nc", "trainability_resnet.nc"])
def test_convolutional_networks_were_trained_too(name: str) -> None:
    result = shipped(name)
    assert result["finished"].all()
    accuracy = accuracy_of(result).mean("seed")
    assert float(accuracy.max()) > 0.5
    assert float(accuracy.min()) < 0.2


def test_which_mlps_learn_depends_on_the_rates_that_are_tried() -> None:
    """Three rates of Adam are too large for deep networks at the critical line, which SGD trains at
    a rate that falls with depth; where either counts, theory and R² know again what trains."""
    adam, sgd = (shipped(f"trainability_{name}.nc") for name in ("mlp", "mnist"))
    scores = shipped("predictors_mnist.nc")["scores"]
    by_adam = accuracy_of(adam)
    best = np.fmax(by_adam, accuracy_of(sgd)).where(by_adam.notnull())
    known = by_adam.notnull().values
    assert known.sum() == 168

    def auc(predictor: str, accuracy: xr.DataArray) -> float:
        said = scores.sel(predictor=predictor, depth=accuracy.depth).transpose(*accuracy.dims)
        return roc_auc(said.values[known], accuracy.values[known] >= 0.5)

    assert auc("collapse_depth_ridge", by_adam) < 0.85
    assert auc("correlation_depth", by_adam) < 0.85
    assert auc("differential_entropy_adam", by_adam) > 0.92
    for predictor in ("collapse_depth_ridge", "cutoff_adam", "correlation_depth"):
        assert auc(predictor, best) > 0.98


def test_deep_published_resnets_learn_hardly_within_600_steps_at_these_rates() -> None:
    """What fails at every rate may only need a smaller one."""
    result = shipped("trainability_resnet_published.nc")
    found = labels(result)
    learns = found["learns_at_all"].values
    assert len(learns) == int(result["finished"].sum()) == 72
    assert learns.sum() == 22
    best = found["best_accuracy"].groupby("depth").max()
    assert (best.sel(depth=[10, 30]) > 0.7).all()
    assert float(best.sel(depth=50)) < 0.3
    assert float(result["accuracy"].sel(training="adam 0.003").max()) < 0.3


def test_at_a_smaller_rate_deep_published_resnets_begin_to_learn() -> None:
    before, slower = (shipped(f"trainability_resnet_{name}.nc") for name in ("published", "slower"))
    done = slower["finished"] == 1
    before = before.sel({name: slower[name] for name in ("sigma_w2", "seed", "depth")})
    same = {"training": "adam 0.001"}  # on another processor: rounding grows, labels stay
    again, once = (each["accuracy"].sel(same).max("moment") for each in (slower, before))
    np.testing.assert_array_equal(again >= 0.3, once >= 0.3)
    ends = {"moment": "end", "training": "adam 0.0001"}
    best = slower["accuracy"].where(done).sel(ends).max(("sigma_w2", "seed"))
    assert (best > 0.5).all()
    at_three_rates = before["accuracy"].max(("training", "moment")).where(done)
    assert float(at_three_rates.sel(depth=50).max()) < 0.3


def test_a_published_resnet_of_50_blocks_learns_in_2400_small_steps_and_in_600_of_none() -> None:
    before, longer = (shipped(f"trainability_resnet_{n}.nc") for n in ("published", "longer"))
    network = {"sigma_w2": 1.0, "seed": 0, "depth": 50}
    accuracy = longer["accuracy"].sel(network)
    assert float(accuracy.sel(training="adam 0.0001").max()) > 0.8
    assert float(accuracy.sel(training=["adam 0.001", "adam 0.0003"]).max()) < 0.2
    assert float(before["accuracy"].sel(network).max()) < 0.2
    both = {name: longer[name] for name in ("sigma_w2", "seed", "depth")}
    short, done = labels(before.sel(both)), labels(longer)
    learnt = short["learns_at_all"].values[done["number"].values]
    assert (done["learns_at_all"].values >= learnt).all(), "none is forgotten"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["03_cnn_phase_diagram", "04_resnet_depth"])
def test_the_convolutional_notebooks_compute_nothing_that_ships(name: str) -> None:
    settings = notebooks.validated(name, "reference", {})
    kind = {"03_cnn_phase_diagram": CnnPhaseDiagram, "04_resnet_depth": ResnetDepth}[name]
    config = kind.from_dict(settings)
    for file in (config.start_from, config.compare_with, config.trained):
        shipped(file)
    assert not make_plan(config.sweep(), config.start_from).missing


def test_notebook_02_computes_nothing_that_ships() -> None:
    config = Trainability()
    for sweep, name in (
        (config.sweep(), config.start_from),
        (config.prediction(), config.predicted),
        (config.training(), config.trained),
    ):
        shipped(name)
        assert not make_plan(sweep, name).missing


def test_notebook_06_computes_nothing_that_ships() -> None:
    config = Vgg16Channels.from_dict(notebooks.validated("06_vgg16_channels", "reference", {}))
    about = provenance(shipped(config.start_from))
    assert about["config"] == json.loads(json.dumps(config.point().as_dict()))


def test_vggs_image_fades_from_level_to_level_and_training_throws_it_away() -> None:
    curves = shipped("vgg16_channels.nc").r_squared
    random, trained = curves.sel(cascade="random weights"), curves.sel(cascade="ridge")
    assert float(random.sel(level=3)) > 0.9
    assert (random.diff("level") <= 0.02).all()
    assert (trained.diff("level") <= 0.02).all()
    assert float(random[-1]) > 0.4 > 0.1 > float(trained[-1])


def test_vggs_closed_form_is_better_at_every_level_than_adam_in_as_much_time() -> None:
    result = shipped("vgg16_channels.nc")
    ours, adam = (result.sel(cascade=name) for name in ("ridge", "adam"))
    assert float(adam.seconds) >= float(ours.seconds)
    assert (ours.r_squared > adam.r_squared).all()


def test_the_weights_of_notebook_06_were_really_trained() -> None:
    weights = provenance(shipped("vgg16_channels.nc"))["weights"]
    assert weights["accuracy"] > 0.7
    assert weights["epochs"] == 15
