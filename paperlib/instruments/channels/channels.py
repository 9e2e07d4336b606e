"""VGG as its channels see it: the picture that each of them carries alone, and how much it is.

    result = run_channels(ChannelsPoint(side=64))  # random weights, scikit-image's photographs

The cascade leads from the last max-pooling to the pixels; the flattening and the fully connected
layers behind it are left out, as published.
"""

import json
import math
import shutil
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from paperlib import measures
from paperlib.activations.stages import output_of
from paperlib.cascade import Cascade, archive
from paperlib.core import paths
from paperlib.core.progress import Progress
from paperlib.core.provenance import provenance, stamp
from paperlib.core.settings import digest
from paperlib.datasets import PICTURE
from paperlib.datasets.photographs import load_photographs, read_photograph
from paperlib.instruments.channels.settings import ChannelsPoint, level_and_channel
from paperlib.networks import vgg16
from paperlib.sweep.store import load_result

CODE_VERSION = 1  # raised when a change to the code changes the numbers
ALL = -1  # instead of a channel: every one of its level
STEP = 127  # of the integers that hold what a picture has beyond the empty one
FULLY_CONNECTED = 4  # stages behind the last pooling: the flattening, three of Linear
AT_ONCE = 16  # channels whose pictures are made at a time
ADAM_BATCH = 10  # photographs; a hundred, as published, need ten times the memory


def run_channels(point: ChannelsPoint, *, start_from: str = "") -> xr.Dataset:
    """Measure what the channels of a VGG network carry of photographs.

    Args:
        point: the network, the photographs, and what is looked at.
        start_from: an earlier result, a .nc file or a name in data/reference/; taken if it is of
            the very same settings and code, whatever weights and photographs lie here.

    Returns:
        Pictures are kept as integers, those of `original` (photograph) in 1/255; of all others
        `added` / 127 · `scale` is what they have beyond the `empty` picture (of their level, in
        `shown_level`), whose every channel is zero. Of `shown` (such as 3:26, or 17:all for all
        channels of a level): `added`, `scale`, `empty`, `shown_level`, `shown_channel` (−1: all).
        Of the channel asked about, by `photograph`: `answer`, `answer_scale`, `answer_energy`. Of
        every channel of the ranked levels, by `entry`: `entry_level`, `entry_channel`, `gained`
        and `energy`; see `carried`. By `cascade` and `level` (named in `stage`): `r_squared` of
        the test photographs; by `cascade` the `seconds` and Adam's `steps` of its fit.

    Raises:
        ValueError: a setting out of range, a level or channel that the network has not, a picture
            that cannot be read.
        FileNotFoundError: no such weights or photographs; DownloadError, if a download failed.
    """
    if start_from:
        earlier = load_result(start_from)
        about, own = provenance(earlier), json.loads(json.dumps(point.as_dict()))
        if about["config"] == own and about["code_version"] == CODE_VERSION:
            return earlier
        print(f"{start_from} is of other settings or by other code; computing anew", flush=True)
    seen = _Seen.of(point)
    cascades = {"ridge" if point.solver == "ridge" else "adam": seen.fitted(point)}
    if point.compare:
        cascades |= _compared(point, seen, next(iter(cascades.values())))
    cascade = next(iter(cascades.values())).cascade
    parts = [
        _curves(cascades, seen),
        _ranking(cascade, seen, point),
        _answers(cascade, seen, point),
    ]
    parts.append(_gallery(cascade, seen, _chosen(point, parts[1], cascade.depth)))
    result = xr.merge(parts)
    result["original"] = (("photograph", *PICTURE), _integers(seen.photographs, 255, np.uint8))
    result.attrs["provenance"] = json.dumps(_about(point, seen), sort_keys=True)
    return result


@dataclass
class _Seen:
    """A network up to its last pooling, and photographs (n, 3, side, side)."""

    stages: nn.Sequential
    train: Tensor
    test: Tensor
    names: list[str]
    photographs: Tensor

    @classmethod
    def of(cls, point: ChannelsPoint) -> "_Seen":
        """Everything that can be wrong is looked at before the photographs are read."""
        stages = _stages(point)
        names = list(dict.fromkeys([point.image, *point.asked_images]))
        shown = torch.stack([read_photograph(name, side=point.side) for name in names])
        train, test = (
            load_photographs(
                point.photographs, split, side=point.side, limit=count, seed=point.seed
            )
            for split, count in (("train", point.train_images), ("test", point.test_images))
        )
        return cls(stages, train, test, names, shown)

    def fitted(self, point: ChannelsPoint) -> "_Fitted":
        """The cascade of these stages; one in closed form that was stopped goes on."""
        if point.solver == "adam":  # one epoch, as published
            return self.fitted_by_adam(point, steps=math.ceil(len(self.train) / ADAM_BATCH))
        cascade = Cascade.for_network(self.stages, self.train[:1])
        begin = time.perf_counter()
        folder = paths.points_folder() / f"channels-{digest(point.as_dict())[:16]}"
        with Progress(cascade.depth, "stages") as progress:

            def tell(stages: int) -> None:
                for _ in range(stages):
                    progress.advance()

            cascade.fit(self.train, resolution=point.resolution, checkpoint=folder, progress=tell)
        with suppress(FileNotFoundError):
            shutil.rmtree(folder)
        return _Fitted(cascade, time.perf_counter() - begin)

    def fitted_by_adam(self, point: ChannelsPoint, *, steps: int) -> "_Fitted":
        cascade = Cascade.for_network(self.stages, self.train[:1])
        begin = time.perf_counter()
        cascade.fit(self.train, solver="adam", batch_size=ADAM_BATCH, seed=point.seed, steps=steps)
        return _Fitted(cascade, time.perf_counter() - begin, steps)


@dataclass
class _Fitted:
    cascade: Cascade
    seconds: float
    steps: int = 0  # of Adam


def _stages(point: ChannelsPoint) -> nn.Sequential:
    network = vgg16(
        point.weights,
        image_shape=(3, point.side, point.side),
        layers=point.layers,
        batch_norm=point.batch_norm,
        seed=point.seed,
    )
    return _first(network.stages, len(network.stages) - FULLY_CONNECTED).eval()


def _first(stages: nn.Sequential, count: int) -> nn.Sequential:
    return nn.Sequential(*list(stages)[:count])


def _compared(point: ChannelsPoint, seen: _Seen, ours: _Fitted) -> dict[str, _Fitted]:
    """The same fit to random weights; and with a closed form, Adam for as long as this took."""
    found = {}
    if point.weights != "random":
        random = replace(point, weights="random")
        found["random weights"] = replace(seen, stages=_stages(random)).fitted(random)
    if point.solver == "ridge":
        found["adam"] = _timed_adam(point, seen, at_least=ours.seconds)
    return found


def _timed_adam(point: ChannelsPoint, seen: _Seen, *, at_least: float) -> _Fitted:
    """Adam with as many steps as make it take at least so many seconds."""
    steps = 1
    while True:
        fitted = seen.fitted_by_adam(point, steps=steps)
        if fitted.seconds >= at_least:
            return fitted
        steps = math.ceil(steps * max(1.2, 1.2 * at_least / fitted.seconds))


def stage_names(stages: nn.Sequential) -> list[str]:
    """torchvision's layers in the words of VGG's authors: conv1_1, conv1_2, pool1 …"""
    names, block, number = [], 1, 0
    for stage in stages:
        if isinstance(stage, nn.MaxPool2d):
            names.append(f"pool{block}")
            block, number = block + 1, 0
        else:
            number += 1
            names.append(f"conv{block}_{number}")
    return names


@torch.no_grad()
def carried(cascade: Cascade, stages: nn.Sequential, images: Tensor, train: Tensor) -> xr.Dataset:
    """Measure how much of the images each channel of the last of these stages carries.

    The channel shows what the images make of it, all others their mean over the training
    photographs, and the cascade makes a picture of that. `gained` (channel): by how much this
    picture is nearer to the image than the one of means alone, as a fraction of the images'
    variance, so in R². `energy` (channel): the mean square of what the channel changes in the
    picture, in squared pixel units.

    Args:
        cascade: fitted.
        stages: the network's first ones.
        images: (n, 3, height, width), held out.
        train: (m, 3, height, width), of which the means are taken.
    """
    level = len(stages)
    quiet = torch.stack([output_of(stages, part).sum(0) for part in train.split(ADAM_BATCH)]).sum(0)
    quiet = (quiet / len(train))[None]
    activations = output_of(stages, images)
    base = cascade.from_activation(quiet, level)
    missing = (images - base).double()
    variance = (images - train.mean(0)).double().square().sum()
    gained, energy = [], []
    for some in torch.arange(activations.shape[1]).split(AT_ONCE):
        codes = quiet.repeat(len(some), len(images), 1, 1, 1)
        for code, channel in zip(codes, some, strict=True):
            code[:, channel] = activations[:, channel]
        pictures = cascade.from_activation(codes.flatten(0, 1), level)
        change = (pictures - base).double().unflatten(0, codes.shape[:2])
        nearer = 2 * missing * change - change.square()
        gained.append(nearer.sum((1, 2, 3, 4)) / variance)
        energy.append(change.square().mean((1, 2, 3, 4)))
    found = {"gained": torch.cat(gained), "energy": torch.cat(energy)}
    return xr.Dataset({name: ("channel", values.numpy()) for name, values in found.items()})


def _curves(cascades: dict[str, _Fitted], seen: _Seen) -> xr.Dataset:
    mean = seen.train.mean(0)
    kept = [
        measures.r_squared(seen.test, fitted.cascade.reconstruct(seen.test), mean=mean)
        for fitted in cascades.values()
    ]
    names = stage_names(seen.stages)
    return xr.Dataset(
        {
            "r_squared": (("cascade", "level"), torch.stack(kept).numpy()),
            "seconds": ("cascade", [fitted.seconds for fitted in cascades.values()]),
            "steps": ("cascade", [fitted.steps for fitted in cascades.values()]),
        },
        {
            "cascade": list(cascades),
            "level": np.arange(1, len(names) + 1),
            "stage": ("level", names),
        },
    )


def _ranking(cascade: Cascade, seen: _Seen, point: ChannelsPoint) -> xr.Dataset:
    parts = []
    for level in point.ranked_levels:
        part = carried(
            cascade, _first(seen.stages, level), seen.test[: point.ranked_images], seen.train
        )
        numbers = np.arange(part.sizes["channel"])
        part["entry_channel"] = ("channel", numbers)
        part["entry_level"] = ("channel", np.full_like(numbers, level))
        parts.append(part.rename(channel="entry"))
    return xr.concat(parts, "entry")


def best_channels(result: xr.Dataset, level: int) -> list[int]:
    """Return the channels of a ranked level, from the one that gains most R² on."""
    at = result.isel(entry=result.entry_level.values == level)
    return at.entry_channel.values[np.argsort(-at.gained.values, kind="stable")].tolist()


def _chosen(point: ChannelsPoint, ranking: xr.Dataset, depth: int) -> list[tuple[int, int]]:
    """The levels and channels of the gallery: those asked for, the last two levels, the best."""
    named = [level_and_channel(text) for text in point.shown]
    whole = [(level, ALL) for level in (depth - 1, depth)]
    best = [
        (level, channel)
        for level in point.ranked_levels
        for channel in best_channels(ranking, level)[: point.best]
    ]
    return list(dict.fromkeys([*named, *whole, *best]))


def _gallery(cascade: Cascade, seen: _Seen, chosen: Sequence[tuple[int, int]]) -> xr.Dataset:
    """What each of these channels, alone, makes of the first photograph."""
    image = seen.photographs[:1]
    levels = list(dict.fromkeys(level for level, _ in chosen))
    empty = {level: _empty(cascade, level) for level in levels}
    added, scales = [], []
    for level, channel in chosen:
        if channel == ALL:
            picture = cascade.reconstruct(image, levels=level)[0, 0]
        else:
            picture = cascade.from_channel(image, level, channel)[0]
        integers, scale = _scaled(picture - empty[level])
        added.append(integers)
        scales.append(scale)
    names = [f"{level}:{'all' if channel == ALL else channel}" for level, channel in chosen]
    return xr.Dataset(
        {
            "added": (("shown", *PICTURE), np.stack(added)),
            "scale": ("shown", scales),
            "shown_level": ("shown", [level for level, _ in chosen]),
            "shown_channel": ("shown", [channel for _, channel in chosen]),
            "empty": (
                ("empty_level", *PICTURE),
                _integers(torch.stack(list(empty.values())), 255, np.uint8),
            ),
        },
        {"shown": names, "empty_level": levels},
    )


def _answers(cascade: Cascade, seen: _Seen, point: ChannelsPoint) -> xr.Dataset:
    """What the channel asked about makes of every photograph."""
    level, channel = level_and_channel(point.asked)
    pictures = cascade.from_channel(seen.photographs, level, channel) - _empty(cascade, level)
    integers, scales = zip(*map(_scaled, pictures), strict=True)
    return xr.Dataset(
        {
            "answer": (("photograph", *PICTURE), np.stack(integers)),
            "answer_scale": ("photograph", list(scales)),
            "answer_energy": ("photograph", pictures.square().mean((1, 2, 3)).numpy()),
        },
        {"photograph": [Path(name).stem for name in seen.names]},
    )


def picture(result: xr.Dataset, shown: str) -> xr.DataArray:
    """Return a picture of the gallery as the cascade made it, (channel, row, column)."""
    at = result.sel(shown=shown)
    empty = result["empty"].sel(empty_level=int(at.shown_level)) / 255
    return empty + at.added * (at.scale / STEP)


def _empty(cascade: Cascade, level: int) -> Tensor:
    """The picture of a level whose every channel is zero, (3, height, width)."""
    return cascade.from_activation(torch.zeros(1, *cascade.shapes[level]), level)[0]


def _scaled(picture: Tensor) -> tuple[np.ndarray, float]:
    """A picture in integers up to STEP, and the value that STEP stands for."""
    scale = float(picture.abs().max()) or 1.0
    return _integers(picture / scale, STEP, np.int8), scale


def _integers(pictures: Tensor, step: int, kind: type[np.generic]) -> np.ndarray:
    limits = np.iinfo(kind)  # type: ignore[type-var]
    return (pictures * step).round().clamp(limits.min, limits.max).numpy().astype(kind)


def _about(point: ChannelsPoint, seen: _Seen) -> dict[str, Any]:
    return {
        "config": point.as_dict(),
        "weights": _about_weights(point, seen),
        "data": {
            "name": _name_of(point),
            "checksum": archive.digest_of([seen.train, seen.test]),
            "train_images": len(seen.train),
            "test_images": len(seen.test),
        },
        "code_version": CODE_VERSION,
        "computed": [{**stamp(), "device": "cpu", "points": 1}],
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def _name_of(point: ChannelsPoint) -> str:
    folder = Path(point.photographs).name
    return "scikit-image's photographs" if folder == "bundled" else folder


def _about_weights(point: ChannelsPoint, seen: _Seen) -> dict[str, Any]:
    """Whose weights these are; of those that `training_vgg` made, how well they were trained."""
    about_weights: dict[str, Any] = {}
    if point.weights not in ("random", "imagenet"):
        with suppress(ValueError):
            about_weights = archive.read(paths.given_weights(point.weights))[0]
    return {
        "name": Path(point.weights).name,
        "digest": archive.digest_of(seen.stages.parameters()),
        "epochs": about_weights.get("epochs"),
        "accuracy": about_weights.get("accuracy", [None])[-1],
        "trained_on": about_weights.get("data"),
        "seed": about_weights.get("config", {}).get("seed"),
    }
