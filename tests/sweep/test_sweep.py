import json
from dataclasses import replace
from itertools import permutations
from pathlib import Path

import joblib
import numpy as np
import pytest
import torch
import xarray as xr
from tiny_data import keras, refuse_requests, save

from paperlib.core import paths
from paperlib.core.provenance import about_data, provenance
from paperlib.datasets import load_dataset
from paperlib.instruments.prediction.points import PredictorSweep
from paperlib.instruments.reconstruction.points import CascadePoint, CascadeSweep
from paperlib.instruments.trainability.points import TrainingSweep
from paperlib.sweep import (
    collect_sweep,
    plan,
    points,
    run,
    run_along,
    run_resolutions,
    run_search,
    run_sweep,
    store,
    worker,
)
from paperlib.sweep.points import measure_point
from paperlib.sweep.store import load_result, save_result
from paperlib.training import TrainingPoint

SMALL = CascadeSweep(
    dataset="digits", depth=3, width=24, sigma_w2=(0.8, 1.7), seeds=(0, 1),
    train_images=100, test_images=20,
)  # fmt: skip


@pytest.fixture(autouse=True)
def own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own for every test, so that no test finds another's points."""
    (tmp_path / "notebooks").mkdir()
    monkeypatch.setenv(paths.HOME_VARIABLE, str(tmp_path))
    monkeypatch.delenv(paths.DATA_VARIABLE, raising=False)
    return tmp_path


def point_files(home: Path) -> list[Path]:
    return sorted((home / "data/points").glob("*"))


def numbers(result: xr.Dataset) -> xr.Dataset:
    return result.drop_attrs()


def test_a_sweep_holds_every_point_of_its_grid() -> None:
    result = run_sweep(SMALL, jobs=1)
    assert dict(result["r_squared"].sizes) == {"sigma_w2": 2, "seed": 2, "depth": 3}
    assert int(result["finished"].sum()) == 4
    single = measure_point(list(SMALL.points())[3])
    np.testing.assert_array_equal(result["r_squared"][1, 1], single["r_squared"])


@pytest.mark.slow
def test_the_numbers_depend_neither_on_the_jobs_nor_on_torchs_threads(own_home: Path) -> None:
    first = run_sweep(SMALL, jobs=2)
    for file in point_files(own_home):
        file.unlink()
    torch.set_num_threads(2)
    try:
        again = run_sweep(SMALL, jobs=1)
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(1)
    xr.testing.assert_identical(numbers(first), numbers(again))


def test_finished_points_are_not_computed_again(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_sweep(replace(SMALL, seeds=(0,)), jobs=1)
    asked: list[CascadePoint] = []

    def counted(point: CascadePoint, **options: object) -> dict:
        asked.append(point)
        return measure_point(point, **options)

    monkeypatch.setattr(points, "measure_point", counted)
    both = run_sweep(SMALL, jobs=1)
    assert [point.seed for point in asked] == [1, 1]
    assert "4 points, 2 finished before" in capsys.readouterr().out
    xr.testing.assert_identical(numbers(both.sel(seed=[0])), numbers(first))


@pytest.mark.parametrize("damage", [
    lambda b: b[: len(b) // 2],
    lambda b: b"",
    lambda b: b[:200] + bytes([b[200] ^ 1]) + b[201:],
    lambda b: b[:-40] + b"\0" * 40,
])  # fmt: skip
def test_a_damaged_point_is_reported_and_computed_again(
    damage, own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    first = run_sweep(SMALL, jobs=1)
    file = point_files(own_home)[0]
    file.write_bytes(damage(file.read_bytes()))
    again = run_sweep(SMALL, jobs=1)
    out = capsys.readouterr().out
    assert f"{file.name} is damaged and will be computed again" in out
    assert "4 points, 3 finished before" in out
    xr.testing.assert_identical(numbers(first), numbers(again))


def test_a_failing_point_is_named_and_the_others_are_kept(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(point: CascadePoint, **options: object) -> dict:
        if point.sigma_w2 == 0.8 and point.seed == 1:
            raise ValueError("the activations after stage 2 overflow")
        return measure_point(point, **options)

    monkeypatch.setattr(points, "measure_point", failing)
    with pytest.raises(RuntimeError, match=r"1 of 4 points failed.*sigma_w2=0.8, seed=1.*stage 2"):
        run_sweep(SMALL, jobs=1)
    assert len(point_files(own_home)) == 3
    partial = collect_sweep(SMALL)
    assert int(partial["finished"].sum()) == 3
    assert bool(partial["r_squared"].sel(sigma_w2=0.8, seed=1).isnull().all())


@pytest.mark.slow
def test_an_unfinished_result_carries_a_sweep_to_another_machine(
    own_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_sweep(replace(SMALL, sigma_w2=(0.8,)), jobs=1)
    save_result(collect_sweep(SMALL), tmp_path / "partial.nc")
    for file in point_files(own_home):
        file.unlink()
    result = run_sweep(SMALL, jobs=1, start_from=tmp_path / "partial.nc")
    assert "4 points, 2 finished before" in capsys.readouterr().out
    assert len(point_files(own_home)) == 2
    for file in point_files(own_home):
        file.unlink()
    xr.testing.assert_identical(numbers(result), numbers(run_sweep(SMALL, jobs=1)))
    assert sum(way["points"] for way in provenance(result)["computed"]) == 4


ADDED = CascadePoint.added


def make_old(file: Path) -> None:
    """Write a point file anew as it was before some measures were added."""
    content = dict(store.read_point(file))
    about = json.loads(str(content.pop(store.ABOUT)))
    store.write_point(file, about, {k: v for k, v in content.items() if k not in ADDED})


def test_points_of_before_a_measure_was_added_are_finished_and_lack_it(
    own_home: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = run_sweep(SMALL, jobs=1)
    first = next(iter(SMALL.points()))
    checksum = provenance(whole)["data"]["checksum"]
    file = own_home / f"data/points/{first.identity(code_version=1, checksum=checksum)}.npz"
    make_old(file)
    mixed = run_sweep(SMALL, jobs=1)
    assert "4 points, 4 finished before" in capsys.readouterr().out
    assert mixed["differential_entropy_published"][0, 0].isnull().all()
    assert mixed["cutoff_differential"].values[0, 0] == -1
    assert mixed["cutoff_per_image"].dims == ("sigma_w2", "seed", "image")
    assert (mixed["cutoff_per_image"][0, 0] == -1).all()
    assert mixed["finished"].all()
    for i, j in ((0, 1), (1, 0), (1, 1)):
        place = {"sigma_w2": i, "seed": j}
        xr.testing.assert_identical(numbers(mixed).isel(place), numbers(whole).isel(place))
    xr.testing.assert_identical(numbers(mixed).drop_vars(ADDED), numbers(whole).drop_vars(ADDED))


@pytest.mark.slow
def test_a_measure_that_no_point_has_is_left_out(own_home: Path, tmp_path: Path) -> None:
    whole = run_sweep(SMALL, jobs=1)
    save_result(whole, tmp_path / "whole.nc")
    for file in point_files(own_home):
        make_old(file)
    old = run_sweep(SMALL, jobs=1)
    xr.testing.assert_identical(numbers(old), numbers(whole).drop_vars(ADDED))
    # nor has a part of a result of which only the other points have it
    mixed = whole.copy(deep=True)
    for name in ADDED:
        mixed[name][0] = np.nan if mixed[name].dtype.kind == "f" else -1
    save_result(mixed, tmp_path / "mixed.nc")
    part = run_sweep(replace(SMALL, sigma_w2=(0.8,)), jobs=1, start_from=tmp_path / "mixed.nc")
    assert set(whole.variables) - set(part.variables) == set(ADDED)


@pytest.mark.slow
def test_a_sweep_goes_on_from_a_result_of_before_a_measure_was_added(
    own_home: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    early = run_sweep(replace(SMALL, seeds=(0,)), jobs=1)
    save_result(early.drop_vars(ADDED), tmp_path / "old.nc")
    for file in point_files(own_home):
        file.unlink()
    grown = run_sweep(SMALL, jobs=1, start_from=tmp_path / "old.nc")
    assert "4 points, 2 finished before" in capsys.readouterr().out
    xr.testing.assert_identical(
        numbers(grown.sel(seed=[0])).drop_vars(ADDED), numbers(early).drop_vars(ADDED)
    )
    assert grown["differential_entropy_published"].sel(seed=0).isnull().all()
    assert grown["differential_entropy_published"].sel(seed=1).notnull().all()
    save_result(grown, tmp_path / "grown.nc")
    again = run_sweep(SMALL, jobs=1, start_from=tmp_path / "grown.nc")
    xr.testing.assert_identical(numbers(again), numbers(grown))


@pytest.mark.slow
def test_a_complete_result_is_drawn_without_its_data(
    own_home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = run_sweep(SMALL, jobs=1)
    save_result(first, tmp_path / "whole.nc")
    monkeypatch.setattr(plan, "load_data", lambda point: pytest.fail("the data was loaded"))
    again = run_sweep(SMALL, jobs=1, start_from=tmp_path / "whole.nc")
    xr.testing.assert_identical(numbers(first), numbers(again))
    before, after = provenance(first), provenance(again)
    assert {k: after[k] for k in ("computed", "finished_at", "data")} == {
        k: before[k] for k in ("computed", "finished_at", "data")
    }


@pytest.mark.slow
def test_a_part_of_an_earlier_result_counts_only_its_own_points(tmp_path: Path) -> None:
    save_result(run_sweep(SMALL, jobs=1), tmp_path / "whole.nc")
    part = run_sweep(replace(SMALL, seeds=(1,)), jobs=1, start_from=tmp_path / "whole.nc")
    assert [way["points"] for way in provenance(part)["computed"]] == [2]
    save_result(part, tmp_path / "part.nc")
    more = replace(SMALL, sigma_w2=(1.7, 2.5), seeds=(1,))
    grown = run_sweep(more, jobs=1, start_from=tmp_path / "part.nc")
    assert [way["points"] for way in provenance(grown)["computed"]] == [2], "made alike"


@pytest.mark.slow
def test_of_points_made_in_several_ways_a_part_says_how_many_there_are_at_most(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for seed, commit in ((0, "old"), (1, "new")):
        monkeypatch.setattr(worker, "stamp", lambda at=commit: {"commit": at, "versions": {}})
        run_sweep(replace(SMALL, seeds=(seed,)), jobs=1)
    three = replace(SMALL, sigma_w2=(0.8, 1.7, 2.5))
    save_result(run_sweep(three, jobs=1), tmp_path / "mixed.nc")
    part = run_sweep(replace(SMALL, seeds=(0,)), jobs=1, start_from=tmp_path / "mixed.nc")
    told = [(way["commit"], way["points"], way["at_most"]) for way in provenance(part)["computed"]]
    assert sorted(told) == [("new", 2, True), ("old", 2, True)]
    whole = run_sweep(three, jobs=1, start_from=tmp_path / "mixed.nc")
    exact = {way["commit"]: way["points"] for way in provenance(whole)["computed"]}
    assert exact == {"old": 2, "new": 4}


@pytest.mark.slow
def test_an_earlier_result_whose_axes_fall_gives_each_point_its_own_numbers(
    tmp_path: Path,
) -> None:
    first = run_sweep(SMALL, jobs=1)
    falling = first.isel(sigma_w2=[1, 0], seed=[1, 0])
    about = provenance(first)
    about["config"] |= {"sigma_w2": [1.7, 0.8], "seeds": [1, 0]}
    save_result(falling.assign_attrs(provenance=json.dumps(about)), tmp_path / "falling.nc")
    again = run_sweep(SMALL, jobs=1, start_from=tmp_path / "falling.nc")
    xr.testing.assert_identical(numbers(again), numbers(first))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*unrecognised contents")
def test_a_complete_result_on_a_file_that_changed_since_is_not_taken(tmp_path: Path) -> None:
    file = save(tmp_path / "own.npz", keras(train=120, test=40))
    config = replace(SMALL, dataset=str(file), width=0)
    save_result(run_sweep(config, jobs=1), tmp_path / "whole.nc")
    same = run_sweep(config, jobs=1, start_from=tmp_path / "whole.nc")
    xr.testing.assert_identical(numbers(same), numbers(load_result(tmp_path / "whole.nc")))
    save(file, keras(train=120, test=40, seed=1))
    with pytest.warns(UserWarning, match="was computed from other data"):
        changed = run_sweep(config, jobs=1, start_from=tmp_path / "whole.nc")
    assert not np.array_equal(changed["r_squared"], same["r_squared"])


@pytest.mark.slow
def test_points_with_other_settings_or_other_data_are_not_taken(tmp_path: Path) -> None:
    save_result(run_sweep(SMALL, jobs=1), tmp_path / "other.nc")
    with pytest.warns(UserWarning, match="holds no point"):
        finer = run_sweep(replace(SMALL, resolution=1e-2), jobs=1, start_from=tmp_path / "other.nc")
    assert not np.array_equal(finer["r_squared"], load_result(tmp_path / "other.nc")["r_squared"])
    partial = replace(SMALL, dataset="noise", seeds=(0, 1, 2))
    with pytest.warns(UserWarning, match="was computed from other data"):
        run_sweep(partial, jobs=1, start_from=tmp_path / "other.nc")


def test_a_result_says_what_it_was_computed_with() -> None:
    about = provenance(run_sweep(SMALL, jobs=1))
    assert CascadeSweep.from_dict(about["config"]) == SMALL
    assert about["data"]["name"] == "digits"
    assert about["data"]["source"] == "scikit-learn's digits"
    assert about["data"]["train_images"] == 100
    assert len(about["data"]["checksum"]) == 64
    (way,) = about["computed"]
    assert way["points"] == 4
    assert way["versions"]["torch"] == torch.__version__
    assert way["device"] == "cpu"
    assert way["arithmetic"] == "float32"
    assert about["code_version"] == CascadePoint.code_version
    assert about["seconds_per_point"] > 0


def test_the_commit_is_that_of_the_computation_not_of_the_collection(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(worker, "stamp", lambda: {"commit": "old", "versions": {}})
    run_sweep(replace(SMALL, seeds=(0,)), jobs=1)
    monkeypatch.setattr(worker, "stamp", lambda: {"commit": "new", "versions": {}})
    again = provenance(run_sweep(replace(SMALL, seeds=(0,)), jobs=1))
    assert [(way["commit"], way["points"]) for way in again["computed"]] == [("old", 2)]
    both = provenance(run_sweep(SMALL, jobs=1))
    assert {way["commit"]: way["points"] for way in both["computed"]} == {"old": 2, "new": 2}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*unrecognised contents")
def test_workers_never_measure_other_data_than_the_sweep_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = np.random.default_rng(0)
    for name in ("one", "two"):
        images = rng.integers(0, 256, (120, 8, 8), dtype=np.uint8)
        labels = np.arange(120) % 10
        (tmp_path / name).mkdir()
        np.savez(
            tmp_path / name / "mnist.npz",
            x_train=images, y_train=labels, x_test=images[:40], y_test=labels[:40],
        )  # fmt: skip
    config = replace(SMALL, dataset="mnist", width=0)
    found = {}
    for name in ("one", "two"):  # the second time, the workers of the first are still there
        monkeypatch.setenv(paths.DATA_VARIABLE, str(tmp_path / name))
        found[name] = run_sweep(config, jobs=2)
    point = next(config.points())
    for name in ("one", "two"):
        monkeypatch.setenv(paths.DATA_VARIABLE, str(tmp_path / name))
        plan.forget_data()
        alone = measure_point(point)["r_squared"]
        np.testing.assert_array_equal(found[name]["r_squared"][0, 0], alone)
    assert not np.array_equal(found["one"]["r_squared"], found["two"]["r_squared"])


def test_the_provenance_names_the_file_of_the_data_and_no_folder(tmp_path: Path) -> None:
    data = load_dataset(save(tmp_path / "own.npz", keras()))
    assert about_data(SMALL, data)["source"] == "own.npz"


@pytest.mark.slow
def test_a_complete_result_on_other_data_is_not_taken(tmp_path: Path) -> None:
    save_result(run_sweep(SMALL, jobs=1), tmp_path / "digits.nc")
    with pytest.warns(UserWarning, match="was computed from other data"):
        noise = run_sweep(
            replace(SMALL, dataset="noise"), jobs=1, start_from=tmp_path / "digits.nc"
        )
    assert provenance(noise)["data"]["name"] == "noise"
    assert not np.array_equal(noise["r_squared"], load_result(tmp_path / "digits.nc")["r_squared"])


@pytest.mark.slow
def test_a_start_that_shares_nothing_says_so(tmp_path: Path) -> None:
    save_result(run_sweep(SMALL, jobs=1), tmp_path / "other.nc")
    with pytest.warns(UserWarning, match="holds no point of this sweep"):
        run_sweep(replace(SMALL, depth=2), jobs=1, start_from=tmp_path / "other.nc")


def test_every_sweep_leaves_its_result_and_the_digest(own_home: Path) -> None:
    result = run_sweep(SMALL, jobs=1)
    (file,) = (own_home / "data/results").glob("*.nc")
    xr.testing.assert_identical(load_result(file), result)
    assert file.name in (own_home / "data/results/SHA256SUMS").read_text()


@pytest.mark.slow
def test_resolutions_make_a_dimension() -> None:
    configs = [replace(SMALL, resolution=r) for r in (1e-4, 1e-2)]
    result = run_resolutions(configs, jobs=1)
    assert result.resolution.values.tolist() == [1e-4, 1e-2]
    assert provenance(result)["config"]["resolution"] == [1e-4, 1e-2]
    assert sum(way["points"] for way in provenance(result)["computed"]) == result["finished"].sum()
    assert result["differential_entropy_published"].dims[0] == "resolution"
    fine, coarse = result["r_squared"].isel(depth=-1).mean(("sigma_w2", "seed")).values
    assert fine > coarse
    with pytest.raises(ValueError, match="expected sweeps by ridge"):
        run_resolutions([replace(SMALL, solver="adam")])


def test_results_of_other_grids_are_joined_and_unfinished_where_one_has_nothing() -> None:
    few = replace(SMALL, sigma_w2=SMALL.sigma_w2[:1], resolution=0.1)
    both = run_along([SMALL, few], "resolution", jobs=1)
    assert both.resolution.values.tolist() == [SMALL.resolution, 0.1]
    assert both["finished"].dtype == np.int8
    assert both["finished"].sum("seed").values.tolist() == [
        [len(SMALL.seeds)] * len(SMALL.sigma_w2),
        [len(SMALL.seeds)] + [0] * (len(SMALL.sigma_w2) - 1),
    ]
    assert both["r_squared"].isel(resolution=1, sigma_w2=-1).isnull().all()
    with pytest.raises(ValueError, match="expected sweeps with a setting 'steeps'"):
        run_along([SMALL], "steeps")
    with pytest.raises(ValueError, match="expected sweeps with a setting"):
        run_along([], "steps")


@pytest.mark.parametrize(("settings", "message"), [
    ({"jobs": -1}, "jobs must be >= 0"),
    ({"device": "tpu"}, "device must be one of auto, cpu, cuda; got 'tpu'"),
])  # fmt: skip
def test_bad_run_options_are_named(settings: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        run_sweep(SMALL, **settings)


def test_a_fall_back_is_decided_once_and_named(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tried = refuse_requests(monkeypatch)
    config = replace(SMALL, dataset="mnist", fallback=True)
    with pytest.warns(UserWarning, match="NOT mnist BUT digits"):
        result = run_sweep(config, jobs=1)
    about = provenance(result)
    assert (about["data"]["name"], about["config"]["dataset"]) == ("digits", "digits")
    assert 0 < len(tried) <= 2  # one download, of two mirrors
    again = run_sweep(SMALL, jobs=1)  # the same points by their own name
    xr.testing.assert_identical(numbers(result), numbers(again))
    assert len(point_files(own_home)) == 4


@pytest.mark.parametrize("fallback", [False, True])
def test_a_users_file_is_not_taken_for_the_data_set_it_is_called_after(
    fallback: bool, tmp_path: Path
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (120, 8, 8), dtype=np.uint8)
    labels = np.arange(120) % 10
    file = tmp_path / "digits.npz"
    np.savez(file, x_train=images, y_train=labels, x_test=images[:40], y_test=labels[:40])
    config = replace(SMALL, dataset=str(file), width=0, fallback=fallback)
    result = run_sweep(config, jobs=1)
    assert provenance(result)["config"]["dataset"] == str(file)
    assert result["original"].shape == (1, 8, 8)


def test_a_gpu_has_one_process_unless_more_are_asked_for() -> None:
    assert run.resolve_jobs(None, "cuda") == run.resolve_jobs(0, "cuda") == 1
    assert run.resolve_jobs(3, "cuda") == run.resolve_jobs(3, "cpu") == 3
    assert run.resolve_jobs(None, "cpu") == joblib.cpu_count()


def test_an_unknown_data_set_stops_a_sweep_before_any_work(own_home: Path) -> None:
    with pytest.raises(ValueError, match="mnits"):
        run_sweep(replace(SMALL, dataset="mnits"), jobs=1)
    assert not point_files(own_home)


@pytest.mark.gpu
def test_a_gpu_gives_the_cpus_curves() -> None:
    point = next(iter(SMALL.points()))
    for name in ("r_squared", "gram_entropy"):
        np.testing.assert_allclose(
            measure_point(point, device="cuda")[name], measure_point(point)[name], atol=2e-3
        )


# --- trainings and predictions ---

TRAININGS = TrainingSweep(
    dataset="digits", width=16, sigma_w2=(0.8, 1.7), seeds=(0, 1), depths=(2, 4, 8), steps=20,
    train_images=200, test_images=50,
)  # fmt: skip


def test_a_grid_of_trainings_holds_what_each_network_learnt() -> None:
    result = run_sweep(TRAININGS, jobs=1)
    assert result["accuracy"].dims == ("sigma_w2", "seed", "depth")
    assert result.depth.values.tolist() == [2, 4, 8]
    point = TrainingPoint(
        dataset="digits", width=16, sigma_w2=1.7, seed=1, depth=4, steps=20,
        train_images=200, test_images=50,
    )  # fmt: skip
    alone = measure_point(point)
    at = result.sel(sigma_w2=1.7, seed=1, depth=4)
    for name in ("accuracy", "loss", "steps", "diverged"):
        assert at[name] == alone[name]


@pytest.mark.slow
def test_an_unfinished_grid_of_trainings_goes_on_elsewhere(own_home: Path) -> None:
    run_sweep(replace(TRAININGS, depths=(2,)), jobs=1)
    part = collect_sweep(TRAININGS)
    assert int(part["finished"].sum()) == 4
    save_result(part, own_home / "part.nc")
    for file in point_files(own_home):
        file.unlink()
    whole = run_sweep(TRAININGS, jobs=1, start_from=own_home / "part.nc")
    assert int(whole["finished"].sum()) == 12
    assert len(point_files(own_home)) == 8
    assert sum(way["points"] for way in provenance(whole)["computed"]) == 12


def test_trainings_of_one_depth_are_one_program_on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    files = {point: Path(f"{number}") for number, point in enumerate(TRAININGS.points())}
    assert [len(group) for group in run._groups(files, "cpu")] == [1] * 12
    together = run._groups(files, "cuda")
    assert [{point.depth for point in group} for group in together] == [{2}, {4}, {8}]
    monkeypatch.setattr(run, "TOGETHER_ON_GPU", 3)
    assert sorted(len(group) for group in run._groups(files, "cuda")) == [1, 1, 1, 3, 3, 3]
    assert {p: f for group in run._groups(files, "cuda") for p, f in group.items()} == files
    cascades = dict.fromkeys(SMALL.points(), Path("x"))
    assert [len(group) for group in run._groups(cascades, "cuda")] == [1] * 4


@pytest.mark.slow
def test_a_grid_computed_in_groups_is_the_one_computed_point_by_point(
    own_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = run_sweep(TRAININGS, jobs=1)
    for file in point_files(own_home):
        file.unlink()
    as_on_a_gpu = run._groups
    monkeypatch.setattr(run, "_groups", lambda files, device: as_on_a_gpu(files, "cuda"))
    together = run_sweep(TRAININGS, jobs=1)
    np.testing.assert_allclose(alone["accuracy"], together["accuracy"], atol=0.021)
    np.testing.assert_allclose(alone["loss"], together["loss"], rtol=0.01)


def test_a_grid_of_predictions_holds_every_predictors_scores() -> None:
    config = PredictorSweep(
        dataset="digits", width=16, depth=4, sigma_w2=(0.8, 1.7), seeds=(0, 1), train_images=60,
        predictors=("r_squared_ridge", "random"),
    )  # fmt: skip
    result = run_sweep(config, jobs=1)
    assert result["scores"].dims == ("sigma_w2", "seed", "predictor", "depth")
    assert result["scores"].shape == (2, 2, 2, 4)
    assert (result["seconds"] > 0).all()
    assert result.predictor.values.tolist() == ["r_squared_ridge", "random"]
    again = measure_point(list(config.points())[1])
    np.testing.assert_array_equal(result["scores"][0, 1], again["scores"])


# the deepest network that trains, by variance, of a data set that never was
TRAINS_TO = {1.3: 10, 1.5: 20, 1.7: 40, 1.9: 30, 2.1: 0}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[TrainingPoint]:
    """The points that were trained, instead of training them."""
    asked: list[TrainingPoint] = []

    def train(point: TrainingPoint, **options: object) -> dict:
        asked.append(point)
        good = point.depth <= TRAINS_TO[point.sigma_w2]
        numbers = {"accuracy": 0.9 if good else 0.1, "loss": 1.0, "seconds": 1.0}
        counts = {"steps": np.int32(1), "diverged": np.int8(0)}
        return {k: np.float32(v) for k, v in numbers.items()} | counts

    monkeypatch.setattr(points, "measure_point", train)
    return asked


def test_the_search_walks_down_to_the_trainable_depth_and_on_from_there(
    trained: list[TrainingPoint],
) -> None:
    grid = replace(TRAININGS, sigma_w2=tuple(TRAINS_TO), depths=(10, 20, 30, 40, 50), seeds=(3,))
    found = run_search(grid, threshold=0.5, start=1.68, jobs=1)
    depths = found.depth.where(found["accuracy"] >= 0.5).max("depth").sel(seed=3)
    assert depths.fillna(0).values.tolist() == list(TRAINS_TO.values())
    walked = [(p.sigma_w2, p.depth) for p in trained]
    assert sorted(walked) == sorted({
        (1.7, 50), (1.7, 40), (1.5, 40), (1.5, 30), (1.5, 20), (1.3, 20), (1.3, 10),
        (1.9, 40), (1.9, 30), (2.1, 30), (2.1, 20), (2.1, 10),
    })  # fmt: skip
    assert int(found["finished"].sum()) == len(walked)
    assert set(walked[:2]) == {(1.7, 50), (1.7, 40)}


@pytest.mark.slow
def test_a_search_trains_nothing_twice_and_shows_only_what_it_walked_over(
    trained: list[TrainingPoint],
) -> None:
    grid = replace(TRAININGS, sigma_w2=tuple(TRAINS_TO), depths=(10, 20, 30, 40, 50))
    run_sweep(grid, jobs=1)
    assert len(trained) == 50
    found = run_search(grid, threshold=0.5, start=1.7, jobs=1)
    assert len(trained) == 50
    assert int(found["finished"].sum()) == 24
    assert [way["points"] for way in provenance(found)["computed"]] == [24]


@pytest.mark.parametrize("threshold", [0, -0.1, 1.1])
def test_a_search_needs_an_accuracy_to_look_for(threshold: float) -> None:
    with pytest.raises(ValueError, match=r"threshold must be (> 0|<= 1), got"):
        run_search(TRAININGS, threshold=threshold, start=1.7)


def test_the_mean_seconds_of_points_do_not_depend_on_their_order() -> None:
    seconds = [0.001, 0.004, 0.002, 0.013, 0.006, 0.001]  # 0.0045 in the mean: to be rounded
    assert {plan._mean(order) for order in permutations(seconds)} == {0.004}
