import json

import numpy as np
import pytest
import xarray as xr
from test_plots import GRID, result
from test_plots_trainability import DEPTHS, trained

from paperlib.core.provenance import provenance
from paperlib.instruments.reconstruction import tables


def test_walls_stand_beside_the_published_ones_of_the_same_depth() -> None:
    table = tables.walls(result(architecture="cnn", depth=60, sigma_b2=2e-5))
    assert table.index.tolist() == [30, 50]
    assert table["published"].tolist() == [0.65, 0.78]
    # 0 at σ_w² = 0.5 and 0.5 at 1.0
    assert table["here: R² = 0.02"].tolist() == pytest.approx([0.52, 0.52])
    assert table["here: −13 nats, not shifted"].tolist() == ["none", "none"]
    assert table["mean field: signal = λ"].tolist() == pytest.approx([0.66, 0.78], abs=0.1)
    assert tables.walls(result(architecture="resnet")).empty
    rectified = tables.walls(result(architecture="cnn", depth=60, activation="relu"))
    assert rectified["mean field: signal = λ"].tolist() == ["none", "none"]


def published(made: xr.Dataset) -> xr.Dataset:
    """A result that has the published entropy too: it falls below -13 at half the depth."""
    falling = np.where(made.depth <= made.sizes["depth"] // 2, -6.5, -19.3)
    everywhere = np.broadcast_to(falling, made["r_squared"].shape).copy()
    return made.assign(differential_entropy_published=(made["r_squared"].dims, everywhere))


def test_published_depths_are_compared_with_the_published_entropy_where_a_result_has_it() -> None:
    made = result(name="mnist").assign_coords(sigma_w2=[0.6, 1.1, 1.4, 1.5, 3.0])
    column = "here: −13 nats, as published"
    assert tables.against_published(published(made))[column].tolist() == [7] * 4
    assert column not in tables.against_published(made)
    assert tables.against_published(made)["here: −13 nats, not shifted"].tolist() == ["> 12"] * 4


def test_published_walls_are_compared_with_the_published_entropy_where_a_result_has_it() -> None:
    made = published(result(architecture="cnn", depth=60, sigma_b2=2e-5))
    made["differential_entropy_published"][:2] = -19.3
    # from -19.3 at 1.0 to -6.5 at 1.7: -13 lies 6.3 / 12.8 of the way
    expected = 1.0 + 0.7 * 6.3 / 12.8
    assert tables.walls(made)["here: −13 nats, as published"].tolist() == [
        pytest.approx(expected, abs=1e-3), "none",
    ]  # fmt: skip


def test_tables_do_not_mix_points_that_have_the_published_entropy_with_points_that_lack_it() -> (
    None
):
    made = published(result(name="mnist").assign_coords(sigma_w2=[0.6, 1.1, 1.4, 1.5, 3.0]))
    made["differential_entropy_published"][1, 0] = np.nan
    assert "here: −13 nats, not shifted" in tables.against_published(made)
    made["finished"][1, 0] = 0  # it lacks all
    assert "here: −13 nats, as published" in tables.against_published(made)


def test_two_solvers_stand_side_by_side_for_the_networks_that_both_have() -> None:
    table = tables.same_points(result(), result("adam", depth=8, seeds=1).isel(sigma_w2=[0, 2]))
    assert table.index.tolist() == [0.5, 1.7]
    assert table[(8, "ridge")].tolist() == table[(8, "adam")].tolist() == [0.0, 0.5]
    with pytest.raises(ValueError, match="width"):
        tables.same_points(result(), result("adam", width=7))


def test_published_depths_stand_only_beside_the_published_network() -> None:
    grid = dict(zip(GRID, (0.6, 1.1, 1.4, 1.5, 3.0), strict=True))
    mnist = result(name="mnist").assign_coords(sigma_w2=list(grid.values()))
    table = tables.against_published(mnist)
    assert table.index.tolist() == [0.6, 1.1, 1.4, 1.5]
    assert table.loc[0.6].tolist() == [16, 4, "> 12"]
    assert table.loc[1.1].tolist() == [38, "> 12", "> 12"]
    for other in (result(), result(name="mnist", activation="erf"), result(name="mnist", width=9)):
        assert not tables.published_depths(other)
        assert tables.against_published(other).empty


def test_a_variance_without_a_finished_point_has_no_row_beside_the_published_one() -> None:
    grid = dict(zip(GRID, (0.6, 1.1, 1.4, 1.5, 3.0), strict=True))
    partial = result(name="mnist").assign_coords(sigma_w2=list(grid.values()))
    partial["finished"][2], partial["finished"][3, 0] = 0, 0
    for name in ("r_squared", "differential_entropy"):
        partial[name][2], partial[name][3, 0] = np.nan, np.nan
    table = tables.against_published(partial)
    assert table.index.tolist() == [0.6, 1.1, 1.5]
    assert table.loc[1.5].tolist() == [120, "> 12", "> 12"]


def test_the_best_variance_is_that_of_the_last_depth() -> None:
    made = result()
    made["r_squared"][2, :, -1] = 0.9
    assert tables.best_variances(made).loc["r_squared"].tolist() == [1.7, 0.9, 0.0, 0.5]


def test_the_variances_that_train_are_found_for_every_depth() -> None:
    table = tables.trained_walls(trained())
    assert table.index.tolist() == list(DEPTHS)
    # of the grid 0.5, 1.0, 1.7, 2.4, 3.0: halfway to the first that trains
    assert table["trains from σ_w²"].tolist() == pytest.approx([0.75, 0.75, 1.35, 2.05])
    assert table["to σ_w²"].tolist() == ["none"] * 4
    assert table["best accuracy"].tolist() == pytest.approx([0.9] * 4)
    peaked = trained()
    peaked["accuracy"][3:] = 0.1
    assert tables.trained_walls(peaked)["to σ_w²"].tolist() == pytest.approx([2.05] * 3 + ["none"])


def test_fresh_numbers_are_compared_with_shipped_ones_of_the_same_data_only() -> None:
    shipped = trained()
    fresh = shipped.isel(sigma_w2=[1], seed=[0]).copy(deep=True)
    fresh["accuracy"] += 0.05
    table = tables.against_shipped(fresh, shipped, "accuracy")
    assert list(table.columns) == ["here (made-up)", "shipped (made-up)", "difference"]
    np.testing.assert_allclose(table["difference"], 0.05, atol=1e-6)
    about = provenance(fresh)
    about["data"] |= {"checksum": "1" * 64, "name": "digits"}
    fresh.attrs["provenance"] = json.dumps(about)
    other = tables.against_shipped(fresh, shipped, "accuracy")
    assert next(iter(other.columns)) == "here (digits)"
    assert other["difference"].isna().all()
