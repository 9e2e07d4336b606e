"""A sweep among kills, full disks and rivals: nothing finished is lost, nothing damaged is used.

PAPERLIB_KILLS=50 makes the long test of it: 50 kills on loky and 20 on Dask, an hour.
"""

import contextlib
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import noted_sweep
import numpy as np
import psutil
import pytest
import xarray as xr
from tiny_data import keras

from paperlib import load_dataset
from paperlib.core import paths
from paperlib.core.provenance import provenance
from paperlib.instruments.reconstruction.points import CascadeSweep
from paperlib.sweep import collect_sweep, run, run_sweep, store, worker
from paperlib.sweep.store import load_result, read_point, save_result

pytestmark = pytest.mark.faults

KILLS = int(os.environ.get("PAPERLIB_KILLS", "3"))
JOBS = 2
PATIENCE = 300  # seconds, for what takes ten on an idle machine
SMALL = {
    "dataset": "digits", "depth": 2, "width": 12, "sigma_w2": [0.8, 1.7], "seeds": [0, 1, 2],
    "train_images": 50, "test_images": 10,
}  # fmt: skip


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout of its own for a test."""
    return as_home(tmp_path, monkeypatch)


def as_home(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (folder / "notebooks").mkdir()
    monkeypatch.setenv(paths.HOME_VARIABLE, str(folder))
    monkeypatch.delenv(paths.DATA_VARIABLE, raising=False)
    return folder


def point_files(home: Path) -> list[Path]:
    return sorted((home / "data/points").glob("*.npz"))


def undisturbed(settings: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> xr.Dataset:
    """The result of the same sweep where nothing happens, in a checkout that is gone then."""
    with tempfile.TemporaryDirectory() as folder, monkeypatch.context() as patched:
        as_home(Path(folder), patched)
        return run_sweep(CascadeSweep.from_dict(settings), jobs=1)


def assert_same(one: xr.Dataset, other: xr.Dataset) -> None:
    """The same numbers bit by bit, from the same settings, data, code and machine."""
    xr.testing.assert_identical(one.drop_attrs(), other.drop_attrs())
    for key in ("config", "data", "code_version", "computed"):
        assert provenance(one)[key] == provenance(other)[key]


# --- kill -9 ---


class Killer:
    """Kills a sweep's processes at random moments; where it was the main one, starts it again."""

    def __init__(self, home: Path, kills: int, *, main_too: bool, **options: Any) -> None:
        self._home, self._options = home, options
        self._main_too = main_too
        self._random = random.Random(0)
        self._left = kills
        self.killed_mains = 0

    def run(self) -> int:
        """The number of kills until the sweep was finished."""
        kills = self._left
        process = noted_sweep.start(self._home, **self._options)
        deadline = time.monotonic() + PATIENCE + 60 * kills
        try:
            while (status := process.poll()) != 0:
                assert time.monotonic() < deadline, self._log()
                assert status in (None, -signal.SIGKILL), self._log()
                if status is not None:
                    process = noted_sweep.start(self._home, **self._options)
                time.sleep(self._random.uniform(0.1, 1.5))
                if self._left:
                    self._kill_one(process)
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        return kills - self._left

    def _kill_one(self, process: "subprocess.Popen[str]") -> None:
        with contextlib.suppress(psutil.NoSuchProcess):
            living = {child.pid for child in psutil.Process(process.pid).children(recursive=True)}
            at_work = {pid for pid, _ in noted_sweep.unfinished(self._home)} & living
            if not at_work:
                return
            self._left -= 1
            if self._main_too and self._random.random() < 0.5:
                noted_sweep.kill(process.pid)
                self.killed_mains += 1
                process.wait()
            else:
                noted_sweep.kill(self._random.choice(sorted(at_work)))

    def _log(self) -> str:
        return (self._home / "log").read_text()[-3000:]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backend", "kills", "main_too"), [("loky", KILLS, True), ("dask", KILLS * 2 // 5, False)]
)
def test_after_random_kills_the_result_is_that_of_an_undisturbed_sweep(
    backend: str, kills: int, main_too: bool, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SMALL | {"seeds": list(range(10 + 3 * kills))}
    killer = Killer(
        home, kills, main_too=main_too, settings=settings, jobs=JOBS, backend=backend, seconds=0.3
    )
    assert killer.run() == kills
    notes = noted_sweep.notes(home)
    begun = [note.point for note in notes if note.what == "begin"]
    again = len(begun) - len(set(begun))
    in_flight = len(noted_sweep.unfinished(home))  # in processes that were killed
    print(f"{kills} kills ({killer.killed_mains} of the main process), {again} points begun again, "
          f"{in_flight} were in flight")  # fmt: skip
    assert 0 < again <= in_flight <= kills * JOBS
    (file,) = (home / "data/results").glob("*.nc")
    assert_same(load_result(file), undisturbed(settings, monkeypatch))
    assert len(point_files(home)) == len(set(begun)) == 2 * len(settings["seeds"])


@pytest.mark.slow
def test_workers_go_with_the_sweep_that_is_killed(home: Path) -> None:
    settings = SMALL | {"seeds": list(range(40))}
    process = noted_sweep.start(home, settings=settings, jobs=JOBS, seconds=0.3)
    wait_until(lambda: len(point_files(home)) >= 1, process)
    children = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    psutil.wait_procs(children, timeout=60)
    assert [child for child in children if child.is_running()] == []
    assert len(point_files(home)) < 80


def wait_until(condition: Any, process: "subprocess.Popen[str]") -> None:
    deadline = time.monotonic() + PATIENCE
    while not condition():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_ctrl_c_ends_a_sweep_at_once_and_keeps_what_is_finished(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SMALL | {"seeds": list(range(40))}
    process = noted_sweep.start(home, settings=settings, jobs=JOBS, seconds=0.3)
    wait_until(lambda: len(point_files(home)) >= 2, process)
    children = psutil.Process(process.pid).children(recursive=True)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    assert process.wait(timeout=PATIENCE) != 0
    psutil.wait_procs(children, timeout=PATIENCE)
    assert [child for child in children if child.is_running()] == []
    kept = point_files(home)
    assert 2 <= len(kept) < 80
    assert all(read_point(file) is not None for file in kept)


# --- no room, no access, no memory ---


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of its own that holds 64 kB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(folder)]
    if not shutil.which("mount") or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("a file system can be mounted by root only")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


def test_a_full_disk_stops_a_sweep_with_a_message_and_half_written_files_have_no_name(
    small_disk: Path, home: Path
) -> None:
    (home / "data").mkdir()
    (home / "data/points").symlink_to(small_disk)
    config = CascadeSweep.from_dict(SMALL | {"seeds": list(range(20))})
    with pytest.raises(OSError, match=r"No space left.*finished before is kept\. Make room"):
        run_sweep(config, jobs=1)
    kept = point_files(home)
    assert 1 <= len(kept) < 40
    assert all(read_point(file) is not None for file in kept)
    assert [file for file in small_disk.iterdir() if file.suffix != ".npz"] == []
    assert int(collect_sweep(config)["finished"].sum()) == len(kept)


def test_a_file_that_may_not_grow_is_the_same_and_a_later_run_goes_on(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CascadeSweep.from_dict(SMALL)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4000, before[1]))
    try:
        with pytest.raises(OSError, match=r"File too large.*results cannot be written there"):
            run_sweep(config, jobs=1)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list((home / "data/points").iterdir()) == []
    assert_same(run_sweep(config, jobs=1), undisturbed(SMALL, monkeypatch))


@contextlib.contextmanager
def without_roots_rights() -> Iterator[None]:
    """Root knows no read-only folder; anybody else stays who they are."""
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)


def test_a_read_only_folder_is_told_before_any_point_is_computed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with tempfile.TemporaryDirectory() as folder:  # pytest's own are closed to others
        home = as_home(Path(folder), monkeypatch)
        run_sweep(CascadeSweep.from_dict(SMALL | {"seeds": [0]}), jobs=1)
        before = point_files(home)
        home.chmod(0o755)
        (home / "data/points").chmod(0o555)
        monkeypatch.setattr(worker, "measure_together", lambda *a, **b: pytest.fail("computed"))
        with (
            without_roots_rights(),
            pytest.raises(PermissionError, match="Permission denied: results cannot be") as told,
        ):
            run_sweep(CascadeSweep.from_dict(SMALL), jobs=1)
        assert str(home / "data/points") in str(told.value)
        assert point_files(home) == before
        (home / "data/points").chmod(0o755)


LIMITED = """
import resource
from paperlib.instruments.trainability.points import TrainingSweep
from paperlib.sweep import run_sweep

if __name__ == "__main__":
    used = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + 1500 * 2**20,) * 2)  # workers inherit it
    run_sweep(TrainingSweep(
        dataset="digits", width=1000, depths=(1, 1000), sigma_w2=(1.7,), seeds=(0, 1), steps=1,
        train_images=50, test_images=10,
    ), jobs=2)
"""


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="needs Linux' /proc")
def test_points_that_want_more_memory_than_there_is_fail_alone(home: Path) -> None:
    script = home / "limited.py"
    script.write_text(LIMITED)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert re.search(r"2 of 4 points failed, the rest is kept.*depth=1000.*alloc", done.stderr)
    assert len(point_files(home)) == 2


# --- damage ---


def flipped(content: bytes, bit: int) -> bytes:
    damaged = bytearray(content)
    damaged[bit // 8] ^= 1 << bit % 8
    return bytes(damaged)


def damages(content: bytes) -> Iterator[bytes]:
    """300 files with one flipped bit each, and 20 that end too early."""
    chosen = random.Random(0)
    for bit in chosen.sample(range(8 * len(content)), 300):
        yield flipped(content, bit)
    for length in chosen.sample(range(len(content)), 20):
        yield content[:length]


def test_no_flipped_bit_and_no_missing_end_of_a_point_changes_a_number(home: Path) -> None:
    run_sweep(CascadeSweep.from_dict(SMALL | {"sigma_w2": [1.7], "seeds": [0]}), jobs=1)
    (file,) = point_files(home)
    whole = read_point(file)
    assert whole is not None
    refused = 0
    for damaged in damages(file.read_bytes()):
        file.write_bytes(damaged)
        found = read_point(file, tell=False)
        refused += found is None
        if found is not None:  # the damage lies in what zip notes and nobody reads
            assert found.keys() == whole.keys()
            for name, array in found.items():
                assert array.dtype == whole[name].dtype
                np.testing.assert_array_equal(array, whole[name])
    assert refused > 250


def test_every_flipped_bit_and_missing_end_of_a_result_is_refused(home: Path) -> None:
    result = run_sweep(CascadeSweep.from_dict(SMALL | {"seeds": [0]}), jobs=1)
    file = home / "saved.nc"
    save_result(result, file)
    for damaged in damages(file.read_bytes()):
        file.write_bytes(damaged)
        with pytest.raises(ValueError, match=r"saved\.nc is damaged"):
            load_result(file)


@pytest.mark.parametrize("write", [np.savez, np.savez_compressed])
def test_no_flipped_bit_and_no_missing_end_of_a_data_set_goes_unnoticed(
    write: Any, tmp_path: Path
) -> None:
    file = tmp_path / "data.npz"
    write(file, **keras())
    checksum = load_dataset(file).checksum
    refused = same = 0
    for damaged in damages(file.read_bytes()):
        file.write_bytes(damaged)
        try:
            found = load_dataset(file)
        except ValueError as error:
            refused += "data.npz" in str(error)
        else:
            same += found.checksum == checksum
    assert refused > 200
    assert refused + same == 320


# --- rivals and clocks ---


@pytest.mark.slow
def test_two_sweeps_over_one_grid_share_it_and_agree(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = SMALL | {"seeds": list(range(20))}
    options = {"settings": settings, "jobs": 1, "seconds": 0.2}
    rivals = [noted_sweep.start(home, **options) for _ in range(2)]
    for process in rivals:
        assert process.wait(timeout=PATIENCE) == 0, (home / "log").read_text()
    begun = [note.point for note in noted_sweep.notes(home) if note.what == "begin"]
    assert len(set(begun)) == 40
    assert len(begun) < 60  # each alone would begin 40
    (file,) = (home / "data/results").glob("*.nc")
    assert_same(load_result(file), undisturbed(settings, monkeypatch))
    assert {path.name for path in file.parent.iterdir()} == {file.name, paths.CHECKSUMS}


SAVING = """
import sys
from pathlib import Path
import xarray as xr
from paperlib.sweep.store import save_result

for number in range(25):
    for name in (f"{sys.argv[1]}-{number}.nc", "both.nc"):
        result = xr.Dataset({"who": int(sys.argv[1])}, attrs={"provenance": "{}"})
        save_result(result, Path(sys.argv[2], name))
"""


@pytest.mark.slow
def test_processes_that_save_at_the_same_time_lose_no_digest(tmp_path: Path) -> None:
    savers = [
        subprocess.Popen([sys.executable, "-c", SAVING, number, tmp_path]) for number in ("1", "2")
    ]
    assert [saver.wait() for saver in savers] == [0, 0]
    files = sorted(tmp_path.glob("*.nc"))
    assert len(files) == 51
    named = {line.split()[1] for line in (tmp_path / paths.CHECKSUMS).read_text().splitlines()}
    assert named == {file.name for file in files}
    for file in files:
        load_result(file)


@pytest.mark.parametrize("year", [1970, 2100])
def test_a_clock_that_jumps_changes_no_number_and_no_point_is_computed_again(
    year: int, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CascadeSweep.from_dict(SMALL)
    real = worker.datetime

    class Jumping(real):  # type: ignore[misc, valid-type]
        @classmethod
        def now(cls, zone: Any = None) -> Any:
            return real(year, 1, 1, tzinfo=zone)

    half = run_sweep(CascadeSweep.from_dict(SMALL | {"seeds": [0]}), jobs=1)
    assert provenance(half)["finished_at"] > "2020"
    monkeypatch.setattr(worker, "datetime", Jumping)
    monkeypatch.setattr(time, "time", lambda: real(year, 1, 1).timestamp())
    result = run_sweep(config, jobs=1)
    for file in point_files(home):
        os.utime(file, (0, 0) if year == 1970 else (4e9, 4e9))
    monkeypatch.setattr(worker, "measure_together", lambda *a, **b: pytest.fail("computed"))
    xr.testing.assert_identical(run_sweep(config, jobs=1), result)
    monkeypatch.undo()
    assert_same(result, undisturbed(SMALL, monkeypatch))
    assert provenance(result)["seconds_per_point"] >= 0


def test_a_point_that_others_finished_meanwhile_is_not_computed_again(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = CascadeSweep.from_dict(SMALL)
    plan = run.make_plan(config, None)
    first = run_sweep(config, jobs=1)
    monkeypatch.setattr(worker, "measure_together", lambda *a, **b: pytest.fail("computed"))
    with run.Engine(jobs=1) as engine:
        run.compute(plan, plan.missing, engine, "cpu")
    xr.testing.assert_identical(run.collect(plan), first)


def test_a_worker_whose_files_cannot_be_seen_here_is_told(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store, "write_point", lambda *anything: None)
    with pytest.raises(RuntimeError, match=r"6 of 6 points failed.*its worker wrote no .*npz"):
        run_sweep(CascadeSweep.from_dict(SMALL), jobs=1)


def test_a_worker_with_other_code_computes_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(run, "Terms", lambda *told: worker.Terms(*told[:3], code_version=99))
    with pytest.raises(RuntimeError, match=r"6 of 6 points failed.*another paperlib, code version"):
        run_sweep(CascadeSweep.from_dict(SMALL), jobs=1)
    assert point_files(home) == []
