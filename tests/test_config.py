import dataclasses

import numpy as np
import pytest

from paperlib.config import CascadePoint, CascadeSweep, PhaseDiagram


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
    ({"seeds": (-1,)}, "seed must be >= 0, got -1"),
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


def test_numpys_numbers_are_numbers() -> None:
    sweep = CascadeSweep(sigma_w2=np.array([0.5, 1.5], np.float32), seeds=np.arange(2))
    assert sweep == CascadeSweep(sigma_w2=(0.5, 1.5), seeds=(0, 1))
    assert CascadeSweep(depth=np.int64(4)).depth == 4


def test_settings_survive_a_round_trip() -> None:
    sweep = CascadeSweep(sigma_w2=(0.5, 1.5), seeds=(2,), solver="adam")
    again = CascadeSweep.from_dict({**sweep.as_dict(), "sigma_w2": [0.5, 1.5], "seeds": [2]})
    assert again == sweep
    assert "dataset" not in sweep.identifying()
