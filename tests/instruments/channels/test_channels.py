"""What channels carry: by hand on a small network, and the whole on a small VGG."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import xarray as xr
from PIL import Image
from torch import Tensor, nn

from paperlib import r_squared
from paperlib.cascade import Cascade
from paperlib.core.provenance import provenance
from paperlib.instruments.channels import channels
from paperlib.instruments.channels.channels import (
    best_channels,
    carried,
    picture,
    run_channels,
    stage_names,
)
from paperlib.instruments.channels.settings import ChannelsPoint, level_and_channel
from paperlib.networks import vgg16
from paperlib.sweep.store import save_result

POINT = ChannelsPoint(
    layers=11,
    side=32,
    train_images=8,
    test_images=3,
    shown=("2:26", "4:3"),
    asked="4:5",
    asked_images=("chelsea",),
    ranked_levels=(2, 4),
    ranked_images=2,
    best=2,
)


@pytest.fixture(scope="module")
def result() -> xr.Dataset:
    return run_channels(POINT)


@pytest.fixture(scope="module")
def cascade() -> Cascade:
    """The cascade that is behind `result`."""
    seen = channels._Seen.of(POINT)
    return Cascade.for_network(seen.stages, seen.train[:1]).fit(
        seen.train, resolution=POINT.resolution
    )


def small() -> tuple[nn.Sequential, Tensor, Tensor]:
    """Three stages, and photographs to fit to and to look at."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        stages = nn.Sequential(
            nn.Sequential(nn.Conv2d(3, 6, 3, padding=1), nn.ReLU()),
            nn.Sequential(nn.Conv2d(6, 5, 3, padding=1), nn.ReLU()),
            nn.MaxPool2d(2),
        )
        return stages, torch.rand(30, 3, 8, 8), torch.rand(4, 3, 8, 8)


# --- by hand ---


def test_r_squared_gained_is_how_much_nearer_the_picture_comes() -> None:
    stages, train, images = small()
    cascade = Cascade.for_network(stages, train[:1]).fit(train)
    found = carried(cascade, stages, images, train)
    quiet, seen = stages(train).mean(0), stages(images)
    base = cascade.from_activation(quiet[None], 3).expand_as(images)
    for channel in range(5):
        codes = quiet.repeat(4, 1, 1, 1)
        codes[:, channel] = seen[:, channel]
        alone = cascade.from_activation(codes.detach(), 3)
        mean = train.mean(0)
        gain = r_squared(images, alone, mean=mean) - r_squared(images, base, mean=mean)
        assert float(found.gained[channel]) == pytest.approx(float(gain), abs=1e-6)
        energy = (alone - base).square().mean()
        assert float(found.energy[channel]) == pytest.approx(float(energy), rel=1e-4)


def test_a_channel_that_says_nothing_carries_nothing() -> None:
    stages, train, images = small()
    with torch.no_grad():
        stages[1][0].weight[2] = 0  # type: ignore[index]
    cascade = Cascade.for_network(stages, train[:1]).fit(train)
    found = carried(cascade, stages, images, train)
    assert float(found.gained[2]) == pytest.approx(0, abs=1e-6)
    assert float(found.energy[2]) == pytest.approx(0, abs=1e-9)
    assert float(found.energy.max()) > 1e-4


def test_stages_have_the_names_that_vgg_s_authors_gave_them() -> None:
    stages = vgg16("random", image_shape=(3, 32, 32)).stages[:-4]
    names = stage_names(stages)
    assert names[:6] == ["conv1_1", "conv1_2", "pool1", "conv2_1", "conv2_2", "pool2"]
    assert (names[9], names[13], names[16], names[17]) == ("pool3", "pool4", "conv5_3", "pool5")


@pytest.mark.parametrize("text", ["10", "10:", ":3", "0:3", "a:b", "3:-1", "1.5:2"])
def test_a_channel_that_cannot_be_read_is_told(text: str) -> None:
    with pytest.raises(ValueError, match="is written level:channel"):
        level_and_channel(text)
    with pytest.raises(ValueError, match="is written level:channel"):
        replace(POINT, asked=text)


# --- the whole ---


@pytest.mark.slow
def test_the_pictures_are_those_of_the_cascade(result: xr.Dataset, cascade: Cascade) -> None:
    photograph = channels._Seen.of(POINT).photographs[:1]
    for name in ("2:26", "4:3"):
        level, channel = level_and_channel(name)
        exact = cascade.from_channel(photograph, level, channel)[0].numpy()
        rounding = float(result.scale.sel(shown=name)) / 254 + 1 / 510
        np.testing.assert_allclose(picture(result, name), exact, atol=1.1 * rounding)
    whole = cascade.reconstruct(photograph, levels=13)[0, 0].numpy()
    rounding = float(result.scale.sel(shown="13:all")) / 254 + 1 / 510
    np.testing.assert_allclose(picture(result, "13:all"), whole, atol=1.1 * rounding)


@pytest.mark.slow
def test_the_gallery_holds_what_was_asked_for_the_last_two_levels_and_the_best(
    result: xr.Dataset,
) -> None:
    best = [f"{level}:{c}" for level in (2, 4) for c in best_channels(result, level)[:2]]
    expected = ["2:26", "4:3", "12:all", "13:all", *best]
    assert result.shown.values.tolist() == list(dict.fromkeys(expected))


@pytest.mark.slow
def test_every_channel_of_a_ranked_level_is_ranked(result: xr.Dataset) -> None:
    for level, count in ((2, 64), (4, 128)):
        order = best_channels(result, level)
        assert sorted(order) == list(range(count))
        gained = result.gained.values[result.entry_level.values == level][order]
        assert (np.diff(gained) <= 0).all()


@pytest.mark.slow
def test_the_curve_is_r_squared_of_the_test_photographs(
    result: xr.Dataset, cascade: Cascade
) -> None:
    seen = channels._Seen.of(POINT)
    curve = r_squared(seen.test, cascade.reconstruct(seen.test), mean=seen.train.mean(0))
    np.testing.assert_allclose(result.r_squared.sel(cascade="ridge"), curve, atol=1e-5)
    assert result.stage.values[-1] == "pool5"


@pytest.mark.slow
def test_the_answers_are_those_of_the_channel_asked(result: xr.Dataset, cascade: Cascade) -> None:
    seen = channels._Seen.of(POINT)
    assert result.photograph.values.tolist() == ["astronaut", "chelsea"]
    nothing = cascade.from_activation(torch.zeros(1, *cascade.shapes[4]), 4)
    added = cascade.from_channel(seen.photographs, 4, 5) - nothing
    energy = added.square().mean((1, 2, 3))
    np.testing.assert_allclose(result.answer_energy, energy, rtol=1e-3)


@pytest.mark.slow
def test_the_provenance_names_weights_photographs_and_settings(result: xr.Dataset) -> None:
    about = provenance(result)
    assert about["weights"]["name"] == "random"
    assert about["data"]["name"] == "scikit-image's photographs"
    assert (about["data"]["train_images"], about["data"]["test_images"]) == (8, 3)
    assert about["config"] == json.loads(json.dumps(POINT.as_dict()))


@pytest.mark.slow
def test_the_same_settings_give_the_same_numbers(result: xr.Dataset) -> None:
    again = run_channels(POINT)
    for name in ("added", "empty", "gained", "r_squared"):
        np.testing.assert_array_equal(again[name], result[name])


@pytest.mark.slow
def test_an_earlier_result_is_taken_only_if_it_is_of_these_settings_and_this_code(
    result: xr.Dataset,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    file = tmp_path / "earlier.nc"
    save_result(result, file)

    class Computed(Exception):
        pass

    def refuse(point: ChannelsPoint) -> None:
        raise Computed

    monkeypatch.setattr(channels._Seen, "of", refuse)
    taken = run_channels(POINT, start_from=str(file))
    np.testing.assert_array_equal(taken.added, result.added)
    with pytest.raises(Computed):
        run_channels(replace(POINT, seed=1), start_from=str(file))
    assert "other settings or by other code; computing anew" in capsys.readouterr().out
    monkeypatch.setattr(channels, "CODE_VERSION", channels.CODE_VERSION + 1)
    with pytest.raises(Computed):
        run_channels(POINT, start_from=str(file))


@pytest.mark.slow
def test_compared_with_random_weights_and_with_adam_for_as_long(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    other = vgg16("random", image_shape=(3, 32, 32), layers=11, seed=5)
    save_file(dict(other.state_dict()), tmp_path / "w.safetensors")
    point = replace(POINT, weights=str(tmp_path / "w.safetensors"), compare=True)
    compared = run_channels(point)
    assert compared.cascade.values.tolist() == ["ridge", "random weights", "adam"]
    seconds = compared.seconds
    assert float(seconds.sel(cascade="adam")) >= float(seconds.sel(cascade="ridge"))
    assert int(compared.steps.sel(cascade="adam")) >= 1
    ours, adam = (compared.r_squared.sel(cascade=name) for name in ("ridge", "adam"))
    assert (ours > adam).all()
    assert provenance(compared)["weights"]["name"] == "w.safetensors"


@pytest.mark.slow
def test_compared_with_random_weights_adam_stays_the_published_fit_of_one_epoch(
    tmp_path: Path,
) -> None:
    from safetensors.torch import save_file

    other = vgg16("random", image_shape=(3, 32, 32), layers=11, seed=5)
    save_file(dict(other.state_dict()), tmp_path / "w.safetensors")
    point = replace(POINT, weights=str(tmp_path / "w.safetensors"), solver="adam", train_images=24)
    compared = run_channels(replace(point, compare=True))
    assert compared.cascade.values.tolist() == ["adam", "random weights"]
    assert compared.steps.values.tolist() == [3, 3]  # of ten photographs, the last of four
    np.testing.assert_array_equal(compared.gained, run_channels(point).gained)


# --- what is asked for and not there ---


@pytest.mark.slow
@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"asked": "99:3"}, "levels are 1 … 13, got 99 in '99:3'"),
        ({"shown": ("2:64",)}, "level 2 has the channels 0 … 63, got '2:64'"),
        ({"ranked_levels": (2, 14)}, "levels are 1 … 13, got 14"),
        ({"weights": "nowhere.safetensors"}, "no weights at nowhere.safetensors"),
        ({"image": "nowhere.png"}, "no picture at nowhere.png"),
        ({"asked_images": ("chelsea", "nowhere.png")}, "no picture at nowhere.png"),
        ({"photographs": "nowhere"}, "no folder nowhere in"),
    ],
)
def test_what_is_not_there_is_told_before_any_fit(
    change: dict[str, object], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Cascade, "fit", None)
    with pytest.raises((ValueError, FileNotFoundError), match=message):
        run_channels(replace(POINT, **change))  # type: ignore[arg-type]


def test_more_photographs_cannot_rank_than_test() -> None:
    with pytest.raises(ValueError, match=r"ranked_images must be <= test_images \(3\), got 4"):
        replace(POINT, ranked_images=4)


@pytest.mark.parametrize(
    ("mode", "size", "warned"),
    [("L", (40, 40), False), ("RGBA", (50, 40), False), ("RGB", (8, 8), True)],
)
def test_any_picture_can_be_looked_at(
    mode: str, size: tuple[int, int], warned: bool, tmp_path: Path
) -> None:
    Image.new(mode, size, 128 if mode == "L" else (200, 30, 30, 255)[: len(mode)]).save(
        tmp_path / "own.png"
    )
    point = replace(POINT, image=str(tmp_path / "own.png"))
    if warned:
        with pytest.warns(UserWarning, match="only 8×8 pixels and is enlarged to 32×32"):
            seen = channels._Seen.of(point)
    else:
        seen = channels._Seen.of(point)
    assert seen.photographs.shape == (2, 3, 32, 32)


def test_a_picture_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "own.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    with pytest.raises(ValueError, match=r"own\.png"):
        channels._Seen.of(replace(POINT, image=str(tmp_path / "own.png")))
