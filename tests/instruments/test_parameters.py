import pytest

from paperlib.instruments.digits.parameters import DigitReconstructions
from paperlib.instruments.prediction.parameters import Scoreboard
from paperlib.instruments.prediction.points import PredictorSweep
from paperlib.instruments.reconstruction.parameters import (
    CnnPhaseDiagram,
    HowItWorks,
    PhaseDiagram,
    ResnetDepth,
)
from paperlib.instruments.trainability.parameters import Trainability
from paperlib.instruments.trainability.points import TrainingSweep
from paperlib.sweep import column_of


def test_the_grid_holds_both_ends_in_round_decimals() -> None:
    grid = PhaseDiagram(sigma_w2_min=0.1, sigma_w2_max=6.0, sigma_w2_step=0.01).variances()
    assert (len(grid), grid[0], grid[-1], grid[2]) == (591, 0.1, 6.0, 0.12)
    assert PhaseDiagram(sigma_w2_min=2.0, sigma_w2_max=2.0).variances() == (2.0,)


def test_a_phase_diagram_stands_for_a_sweep_a_comparison_and_a_calibration() -> None:
    config = PhaseDiagram(depth=9, seeds=2, steps=5)
    sweep, comparison, resolutions = config.sweep(), config.comparison(), config.resolutions()
    assert (sweep.solver, sweep.depth, sweep.seeds) == ("ridge", 9, (0, 1))
    assert (comparison.solver, comparison.train_images) == ("adam", 320)
    assert set(comparison.sigma_w2) < set(sweep.sigma_w2)
    assert [r.resolution for r in resolutions] == pytest.approx([1e-4, 1e-3, 1e-2])
    trained = PhaseDiagram(solver="adam", steps=0)
    assert (trained.sweep().train_images, trained.comparison().solver) == (60_000, "ridge")


@pytest.mark.parametrize(("kind", "name"), [(CnnPhaseDiagram, "cnn"), (ResnetDepth, "resnet")])
def test_convolutional_phase_diagrams_have_their_own_scales(kind: type, name: str) -> None:
    config = kind(channels=8, steps=3, train_images=400)
    sweep, comparison = config.sweep(), config.comparison()
    for grid in (sweep, comparison):
        assert (grid.architecture, grid.channels, grid.sigma_b2) == (name, 8, 2e-5)
    assert (sweep.resolution, sweep.rtol, sweep.train_images) == (3e-6, 0.01, 400)
    assert (comparison.solver, comparison.batch_size) == ("adam", 100)
    assert (comparison.train_images, len(comparison.sigma_w2)) == (300, 2)


def test_the_networks_that_are_trained_are_the_ones_that_are_predicted() -> None:
    config = Trainability(trained_width=50, trained_depths=[3, 9], sigma_b2=0.1, stop_at=0.9)
    training, prediction, maps = config.training(), config.prediction(), config.sweep()
    for name in ("dataset", "shape", "width", "activation", "sigma_b2"):
        assert getattr(training, name) == getattr(prediction, name)
    assert (prediction.depth, prediction.width, maps.width) == (9, 50, 0)
    assert (training.threshold, training.seeds, prediction.seeds) == (0.9, (0, 1), (0, 1, 2))
    shrinking = Trainability(trained_shape="shrinking")
    assert (shrinking.training().width, shrinking.prediction().width) == (0, 0)


def test_a_search_needs_the_accuracy_that_it_seeks() -> None:
    with pytest.raises(ValueError, match="needs stop_at < 1"):
        Trainability(search_from=1.7)
    assert Trainability(search_from=1.7, stop_at=0.4).search_from == 1.7


def test_a_column_is_one_variance_with_the_first_seed() -> None:
    grid = TrainingSweep(depths=(5, 10, 20), seeds=(3, 4), steps=7)
    column = column_of(grid, 1.2, depth=12, fallback=True)
    assert (column.sigma_w2, column.seeds, column.depths) == ((1.2,), (3,), (5, 10))
    assert (column.steps, column.fallback) == (7, True)
    assert column_of(grid, 1.2, depth=1).depths == (5,)
    judged = column_of(PredictorSweep(depth=9), 1.2, predictors=("random",))
    assert (judged.depth, judged.sigma_w2, judged.predictors) == (9, (1.2,), ("random",))


def test_results_of_trainings_and_predictions_come_in_pairs() -> None:
    with pytest.raises(ValueError, match="got 2 and 1"):
        Scoreboard(predicted=["predictors_mnist.nc"])


def test_the_method_is_explained_on_the_network_that_is_then_trained() -> None:
    config = HowItWorks(width=30, sigma_w2=1.2, dataset="digits", fallback=True, steps=7, seed=3)
    drawn, trained = config.point(depth=2), config.training(11)
    assert (drawn.depth, trained.depth) == (2, 11)
    for name in ("dataset", "fallback", "width", "sigma_w2", "sigma_b2", "activation", "seed"):
        assert getattr(drawn, name) == getattr(trained, name) == getattr(config, name)
    assert (drawn.steps, trained.steps, drawn.train_images) == (0, 7, 2000)


def test_digits_are_those_of_a_shrinking_network() -> None:
    config = DigitReconstructions(depth=4, off=-0.5, solver="adam", shown_class=2, seed=1)
    point = config.point()
    assert (point.shape, point.width) == ("shrinking", 0)
    for name in set(config.names()) - {"profile"}:
        assert getattr(point, name) == getattr(config, name), name
