import dataclasses

import numpy as np
import pytest

from paperlib.cascade import fitting
from paperlib.instruments.prediction.points import PredictorPoint, PredictorSweep
from paperlib.instruments.reconstruction.parameters import PhaseDiagram
from paperlib.instruments.reconstruction.points import CascadePoint, CascadeSweep
from paperlib.instruments.trainability.points import TrainingSweep
from paperlib.networks import kinds
from paperlib.notebooks.figures import experiment_of
from paperlib.training import OPTIMISERS, TrainingPoint


def test_a_whole_float_is_an_int_and_an_int_is_a_float() -> None:
    config = PhaseDiagram(depth=100.0, sigma_w2_max=6)  # as papermill's -p depth 1e2 arrives
    assert (config.depth, type(config.depth)) == (100, int)
    assert (config.sigma_w2_max, type(config.sigma_w2_max)) == (6.0, float)


@pytest.mark.parametrize(("settings", "message"), [
    ({"depth": 0}, "depth must be >= 1, got 0"),
    ({"depth": 2.5}, "depth must be a whole number, got 2.5"),
    ({"depth": "30"}, r"depth must be a whole number, got '30' \(str\)"),
    ({"depth": True}, "depth must be a whole number, got True"),
    ({"depth": None}, "depth must be a whole number, got None"),
    ({"depth": float("nan")}, "depth must be a whole number, got nan"),
    ({"sigma_b2": -0.1}, "sigma_b2 must be >= 0.0, got -0.1"),
    ({"sigma_b2": "0.05"}, "sigma_b2 must be a finite number, got '0.05'"),
    ({"sigma_w2_min": 0}, "sigma_w2_min must be > 0.0, got 0.0"),
    ({"sigma_w2_min": -1.0}, "sigma_w2_min must be > 0.0, got -1.0"),
    ({"sigma_w2_max": float("inf")}, "sigma_w2_max must be a finite number, got inf"),
    ({"sigma_w2_step": 1e-9}, "sigma_w2_step must leave at most 100,000 values"),
    ({"sigma_w2_min": 5.0}, "sigma_w2_max must be >= sigma_w2_min, got 3.9 < 5.0"),
    ({"fallback": 1}, "fallback must be True or False, got 1"),
    ({"dataset": 3}, "dataset must be a string, got 3"),
    ({"solver": "rigde"}, r"one of ridge, adam; got 'rigde' \(did you mean 'ridge'\?\)"),
    ({"activation": "sigmoid"}, "activation must be one of tanh, erf, relu, gelu, linear"),
    ({"profile": "fast"}, "profile must be one of smoke, quick, reference, paper; got 'fast'"),
    ({"resolution": 0.0}, "resolution must be > 0.0"),
    ({"test_images": 1}, "test_images must be >= 2, got 1"),
])  # fmt: skip
def test_a_bad_setting_is_named_with_what_was_expected(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        PhaseDiagram.from_dict(settings)


def test_a_misspelt_name_is_an_error_that_guesses_the_right_one() -> None:
    with pytest.raises(
        ValueError, match=r"unknown parameter 'detph' = 30 \(did you mean 'depth'\?\)"
    ):
        PhaseDiagram.from_dict({"detph": 30})


def test_a_notebooks_variables_become_settings_and_its_other_names_do_not() -> None:
    namespace = {
        "depth": 7,
        "dataset": "digits",
        "_private": 3,
        "In": ["x"],
        "Out": {},
        "math": dataclasses,
    }
    assert PhaseDiagram.from_notebook(namespace) == PhaseDiagram(depth=7, dataset="digits")
    with pytest.raises(ValueError, match="unknown parameter 'sigma'"):
        PhaseDiagram.from_notebook({**namespace, "sigma": 1.0})


def test_a_sweep_is_every_variance_with_every_seed() -> None:
    points = list(CascadeSweep(sigma_w2=(1.0, 2.0), seeds=(3, 4), depth=5).points())
    assert [(p.sigma_w2, p.seed) for p in points] == [(1.0, 3), (1.0, 4), (2.0, 3), (2.0, 4)]
    assert all(p.depth == 5 for p in points)


@pytest.mark.parametrize(("settings", "message"), [
    ({"sigma_w2": ()}, "sigma_w2 must hold at least one value"),
    ({"sigma_w2": (1.0, 1.0)}, "none twice"),
    ({"sigma_w2": (1.0, -1.0)}, "sigma_w2 must be > 0.0, got -1.0"),
    ({"sigma_w2": ("1",)}, "sigma_w2 must be a finite number"),
    ({"seeds": (0.5,)}, "seeds must be a whole number"),
    ({"seeds": (-1,)}, "seeds must be >= 0, got -1"),
    ({"seeds": 3}, "seeds must be a sequence of values, got 3"),
    ({"sigma_w2": "1.7"}, "sigma_w2 must be a sequence of values, got '1.7'"),
    ({"shape": "shrinking", "width": 5}, "width is given by the shape 'shrinking', got 5"),
])  # fmt: skip
def test_a_bad_grid_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        CascadeSweep(**settings)


def test_a_points_identity_depends_on_what_determines_its_numbers_and_on_nothing_else() -> None:
    def identity(**settings) -> str:
        return CascadePoint(**settings).identity(code_version=1, checksum="c")

    base = identity(solver="ridge")
    assert identity(solver="ridge", dataset="elsewhere.npz", fallback=True, steps=9) == base
    for change in (
        {"seed": 1},
        {"sigma_w2": 1.8},
        {"depth": 61},
        {"resolution": 2e-3},
        {"width": 9},
    ):
        assert identity(solver="ridge", **change) != base
    assert identity(solver="adam", resolution=1.0) == identity(solver="adam")
    assert identity(solver="adam", steps=9) != identity(solver="adam")
    point = CascadePoint()
    assert point.identity(code_version=2, checksum="c") != base
    assert point.identity(code_version=1, checksum="d") != base


def test_a_setting_that_came_later_leaves_the_identities_of_points_before_it() -> None:
    # computed before there were `padding`, `block`, `until`, `precision` and `weight_decay`
    before = "deb01ee1a97283d2"
    settings = {"architecture": "cnn", "depth": 3, "channels": 4, "sigma_b2": 2e-5}
    point = CascadePoint(**settings)
    assert point.identity(code_version=1, checksum="c")[:16] == before
    later = {"padding", "block", "until", "precision", "weight_decay"}
    assert set(point.identifying()).isdisjoint(later)
    # no CNN has blocks, and only Adam has a precision and a decay
    of_others = {"block": "published", "precision": "bfloat16", "weight_decay": 0.1}
    same = [{"padding": "circular"}, *({name: value} for name, value in of_others.items())]
    others = [{"padding": "published"}, {"until": "lost"}, {"until": "r_squared"}]
    for changes, equal in [*((c, True) for c in same), *((c, False) for c in others)]:
        other = CascadePoint(**settings, **changes)
        found = other.identity(code_version=1, checksum="c")
        assert (found == point.identity(code_version=1, checksum="c")) == equal


def test_settings_from_before_a_setting_are_still_those_of_their_experiment() -> None:
    settings = CascadeSweep().as_dict()
    later = ("padding", "block", "until", "precision", "weight_decay", "measures")
    earlier = {name: value for name, value in settings.items() if name not in later}
    assert isinstance(experiment_of(earlier), CascadeSweep)
    del earlier["depth"]
    assert experiment_of(earlier) is None


def test_numpys_numbers_are_numbers() -> None:
    sweep = CascadeSweep(sigma_w2=np.array([0.5, 1.5], np.float32), seeds=np.arange(2))
    assert sweep == CascadeSweep(sigma_w2=(0.5, 1.5), seeds=(0, 1))
    assert CascadeSweep(depth=np.int64(4)).depth == 4


def test_settings_survive_a_round_trip() -> None:
    sweep = CascadeSweep(sigma_w2=(0.5, 1.5), seeds=(2,), solver="adam")
    again = CascadeSweep.from_dict({**sweep.as_dict(), "sigma_w2": [0.5, 1.5], "seeds": [2]})
    assert again == sweep
    assert "dataset" not in sweep.identifying()


@pytest.mark.parametrize("given", [[5, 10], (5, 10.0), "[5, 10]", np.array([5, 10])])
def test_a_list_may_come_as_the_text_that_papermill_makes_of_it(given: object) -> None:
    assert TrainingSweep(depths=given).depths == (5, 10)


@pytest.mark.parametrize(("settings", "message"), [
    ({"depths": "[5, ten]"}, r"depths must be a sequence of values, got '\[5, ten\]'"),
    ({"depths": [5, "10"]}, r"depths must be a whole number, got '10' \(str\)"),
    ({"depths": [0]}, "depths must be >= 1, got 0"),
    ({"threshold": 0}, "threshold must be > 0.0, got 0.0"),
    ({"threshold": 1.5}, "threshold must be <= 1.0, got 1.5"),
    ({"optimiser": "sdg"}, r"sgd, adam; got 'sdg' \(did you mean 'sgd'\?\)"),
    ({"steps": -1}, "steps must be >= 0, got -1"),
])  # fmt: skip
def test_a_bad_grid_of_trainings_is_refused(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        TrainingSweep(**settings)


def test_the_last_axis_runs_fastest() -> None:
    points = list(TrainingSweep(sigma_w2=(1.0,), seeds=(0, 1), depths=(2, 3)).points())
    assert [(p.seed, p.depth) for p in points] == [(0, 2), (0, 3), (1, 2), (1, 3)]
    judged = list(PredictorSweep(sigma_w2=(1.0, 2.0), seeds=(0,), predictors=["snip"]).points())
    assert [(p.sigma_w2, p.predictors) for p in judged] == [(1.0, ("snip",)), (2.0, ("snip",))]


def test_the_axes_of_a_grid_rise_in_whatever_order_they_were_typed() -> None:
    typed = TrainingSweep(sigma_w2=(1.7, 0.8), seeds=(3, 1), depths=(40, 10, 20))
    rising = TrainingSweep(sigma_w2=(0.8, 1.7), seeds=(1, 3), depths=(10, 20, 40))
    assert typed == rising
    assert list(typed.points()) == list(rising.points())
    assert PredictorSweep(predictors=("snip", "naswot")).predictors == ("snip", "naswot")


def test_an_unknown_predictor_is_named_with_the_right_one() -> None:
    with pytest.raises(ValueError, match=r"got 'r_squard_ridge' \(did you mean 'r_squared_ridge'"):
        PredictorSweep(predictors=("r_squard_ridge",))


def test_points_of_different_kinds_never_share_a_file() -> None:
    kinds = (CascadePoint(), TrainingPoint(), PredictorPoint())
    assert len({point.identity(code_version=1, checksum="c") for point in kinds}) == 3


OWN = 'profile: str = "quick"  # a comment\ndepth: int = 24\ndataset: str = "mnist"'
CONFIG = "config = PhaseDiagram.from_notebook(globals())"


def ran(*cells: str) -> dict:
    """The namespace of a kernel in which these cells have run."""
    namespace: dict = {"In": [""]}
    for cell in cells:
        namespace["In"].append(cell)
        exec(cell, {"PhaseDiagram": PhaseDiagram, "globals": lambda: namespace}, namespace)
    return namespace


def test_a_config_cell_runs_again_after_later_cells_have_left_their_numbers() -> None:
    later = "lost = 5\nscores = {}\nnames = ['a']\nfor _ in range(2):\n    count = 3"
    first = ran(OWN, "# Parameters\ndepth = 7\n", CONFIG, later, CONFIG)
    assert first["config"] == PhaseDiagram(depth=7)
    again = ran(OWN, "# Parameters\ndepth = 7\n", CONFIG, later, OWN, CONFIG)
    assert again["config"] == PhaseDiagram(depth=24), "the lower cell has not run again"


def test_a_changed_parameter_counts_when_its_cell_runs_again() -> None:
    changed = OWN.replace("24", "9")
    assert ran(OWN, CONFIG, "lost = 5", changed, CONFIG)["config"] == PhaseDiagram(depth=9)


def test_a_parameter_set_by_hand_between_the_cells_counts() -> None:
    assert ran(OWN, "depth = 9", CONFIG)["config"] == PhaseDiagram(depth=9)


def test_scratch_cells_before_the_config_cell_do_no_harm() -> None:
    assert ran("x = 3", OWN, "y: int = 4", CONFIG)["config"] == PhaseDiagram()


@pytest.mark.parametrize(
    "cells",
    [
        (OWN, "# Parameters\ndepht = 7\n"),
        (OWN, "# Parameters\ndepth = 7\ndepht = 7\n"),
        (OWN + "\ndepht: int = 7",),
        (OWN, CONFIG, "lost = 5", OWN, "# Parameters\ndepht = 7\n"),
    ],
)
def test_a_misspelt_parameter_still_stops(cells: tuple[str, ...]) -> None:
    with pytest.raises(ValueError, match=r"unknown parameter 'depht' = 7 .did you mean 'depth'"):
        ran(*cells, CONFIG)


def test_a_misspelt_parameter_that_was_mended_is_forgotten() -> None:
    assert ran(OWN + "\ndepht: int = 7", "x = 1", OWN, CONFIG)["config"] == PhaseDiagram()
    wrong, right = ("# Parameters\n" + line for line in ("depht = 7\n", "depth = 7\n"))
    assert ran(OWN, wrong, right, CONFIG)["config"] == PhaseDiagram(depth=7)


def test_a_parameter_that_a_later_cell_replaced_is_refused_rather_than_left_out() -> None:
    with pytest.raises(ValueError, match=r"dataset must be a string, got array|an array"):
        ran(OWN, "import numpy\ndataset = numpy.zeros(3)", CONFIG)


def test_without_papermill_or_ipython_every_literal_is_a_parameter() -> None:
    with pytest.raises(ValueError, match="unknown parameter 'lost' = 5"):
        PhaseDiagram.from_notebook({"depth": 3, "lost": 5})


def test_the_names_that_settings_know_are_those_that_cascades_and_trainings_have() -> None:
    """Settings are read without torch, so they have names of their own."""
    assert kinds.SOLVERS == fitting.SOLVERS
    assert kinds.PRECISIONS == fitting.PRECISIONS
    assert kinds.OPTIMISERS == OPTIMISERS
