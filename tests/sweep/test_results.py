import json
from pathlib import Path

import numpy as np
import pytest
import xarray as xr

from paperlib.core import paths
from paperlib.core.provenance import provenance
from paperlib.sweep.store import load_result, read_point, save_result, write_point

ARRAYS = {"curve": np.arange(5, dtype=np.float32), "cutoff": np.int32(3)}


def result() -> xr.Dataset:
    curve = (("sigma_w2", "seed", "depth"), np.random.default_rng(0).random((2, 1, 4)))
    return xr.Dataset({"r_squared": curve}, attrs={"provenance": json.dumps({"commit": "abc"})})


def test_a_point_comes_back_as_it_was_written(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "point.npz"
    write_point(file, {"depth": 5}, ARRAYS)
    found = read_point(file)
    assert found is not None
    np.testing.assert_array_equal(found["curve"], ARRAYS["curve"])
    assert found["curve"].dtype == np.float32
    assert json.loads(str(found["about"])) == {"depth": 5}
    assert [f.name for f in file.parent.iterdir()] == ["point.npz"]  # no temporary left


def test_no_point_and_a_foreign_file_are_no_points(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert read_point(tmp_path / "none.npz") is None
    np.savez(tmp_path / "foreign.npz", curve=ARRAYS["curve"])
    assert read_point(tmp_path / "foreign.npz") is None
    assert "foreign.npz is damaged" in capsys.readouterr().out


def test_a_point_whose_arrays_were_exchanged_is_damaged(tmp_path: Path) -> None:
    file = tmp_path / "point.npz"
    write_point(file, {}, ARRAYS)
    with np.load(file) as stored:
        content = dict(stored)
    content["curve"] = content["curve"] + 1
    np.savez(file, **content)
    assert read_point(file) is None


def test_nothing_is_unpickled(tmp_path: Path) -> None:
    file = tmp_path / "point.npz"
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self) -> tuple:
            return ran.touch, ()

    np.savez(file, curve=np.array([Payload()], dtype=object), digest=np.array("x"))
    assert read_point(file) is None
    assert not ran.exists()
    np.load(file, allow_pickle=True)["curve"]  # the payload is a live one
    assert ran.exists()


def test_a_result_comes_back_as_it_was_saved_and_is_vouched_for(tmp_path: Path) -> None:
    save_result(result(), tmp_path / "a.nc")
    save_result(result(), tmp_path / "b.nc")
    xr.testing.assert_identical(load_result(tmp_path / "a.nc"), result())
    assert provenance(load_result(tmp_path / "a.nc")) == {"commit": "abc"}
    lines = (tmp_path / paths.CHECKSUMS).read_text().splitlines()
    assert [line.split()[1] for line in lines] == ["a.nc", "b.nc"]
    save_result(result(), tmp_path / "a.nc")  # again: still one line each
    assert len((tmp_path / paths.CHECKSUMS).read_text().splitlines()) == 2


def test_a_files_name_may_hold_a_blank(tmp_path: Path) -> None:
    for name in ("my sweep.nc", "b.nc"):
        save_result(result(), tmp_path / name)
        xr.testing.assert_identical(load_result(tmp_path / name), result())


@pytest.mark.parametrize("vouched", [True, False])
def test_a_damaged_result_is_refused(tmp_path: Path, vouched: bool) -> None:
    file = tmp_path / "a.nc"
    save_result(result(), file)
    file.write_bytes(file.read_bytes()[:700])
    if not vouched:
        (tmp_path / paths.CHECKSUMS).unlink()
    with pytest.raises(ValueError, match=r"a\.nc is damaged"):
        load_result(file)


def test_a_netcdf_of_something_else_is_refused(tmp_path: Path) -> None:
    xr.Dataset({"x": 1}).to_netcdf(tmp_path / "x.nc", engine="h5netcdf")
    with pytest.raises(ValueError, match="no result of a sweep"):
        load_result(tmp_path / "x.nc")


def test_a_bare_name_is_looked_up_among_the_shipped_results() -> None:
    with pytest.raises(FileNotFoundError, match=r"reference.*none\.nc"):
        load_result("none.nc")


def shipped() -> list[str]:
    return sorted(file.name for file in paths.reference_file("x").parent.glob("*.nc"))


@pytest.mark.parametrize("name", shipped())
def test_a_shipped_result_is_whole(name: str) -> None:
    about = provenance(load_result(name))
    assert all(way["commit"] != "unknown" for way in about["computed"])
    sums = paths.reference_file(paths.CHECKSUMS).read_text()
    assert name in [line.split()[1] for line in sums.splitlines()]
