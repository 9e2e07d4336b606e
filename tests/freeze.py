"""What must stay as it is while code moves, computed anew; `tests/frozen/` holds what it was.

    python tests/freeze.py

writes `tests/frozen/` anew, after a change that is meant: read its diff before you commit it. A
changed identity of settings loses every finished point that was computed with them.
"""

import ast
import contextlib
import hashlib
import io
import json
import os
import re
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import nbformat
import numpy as np

import paperlib
from paperlib import cli, notebooks
from paperlib.core import paths
from paperlib.core.provenance import provenance
from paperlib.core.settings import digest
from paperlib.instruments.channels.settings import ChannelsPoint, VggTraining
from paperlib.instruments.digits.settings import StudyPoint
from paperlib.instruments.prediction.forecasts import GridForecasts, ZooForecasts
from paperlib.instruments.prediction.instrument_forecasts import (
    InstrumentForecast,
    InstrumentForecasts,
    InstrumentPoint,
    InstrumentSweep,
)
from paperlib.instruments.prediction.points import PredictorPoint, PredictorSweep
from paperlib.instruments.reconstruction.points import CascadePoint, CascadeSweep
from paperlib.instruments.trainability.grids import GridTrainings
from paperlib.instruments.trainability.points import TrainingSweep
from paperlib.instruments.trainability.zoo import ZooPoint, ZooSweep
from paperlib.notebooks.explorer.digits import DigitPoint, DigitSweep
from paperlib.sweep.grid import Grid
from paperlib.sweep.plan import make_plan
from paperlib.sweep.store import load_result
from paperlib.training import TrainingPoint

FROZEN = Path(__file__).parent / "frozen"
AGAIN = "if this is meant, run `python tests/freeze.py` and commit its diff with the reason"
LOST = f"finished points and shipped results would no longer be found; {AGAIN}"
# the first that has all settings of a result: some have those of others, too
SWEEPS = (CascadeSweep, GridForecasts, TrainingSweep, PredictorSweep, ZooForecasts, ZooSweep,
          InstrumentForecasts, InstrumentSweep, DigitSweep, GridTrainings)  # fmt: skip
DATA = "0" * 64  # stands for a data set's checksum

CNN = {"architecture": "cnn", "channels": 32, "sigma_b2": 2e-5}
RESNET = {"architecture": "resnet", "channels": 16, "sigma_b2": 2e-5, "sigma_w2": 0.9}
SETTINGS: dict[str, tuple[type[Any], dict[str, Any]]] = {
    "cascade, as it comes": (CascadePoint, {}),
    "digit that comes back": (DigitPoint, {}),
    "cascade, Adam": (CascadePoint, {"solver": "adam", "steps": 80, "batch_size": 100}),
    "cascade, Adam for an epoch": (CascadePoint, {"solver": "adam"}),
    "cascade, shrinking": (CascadePoint, {"shape": "shrinking", "depth": 9, "seed": 2}),
    "cascade, relu of 300": (CascadePoint, {"activation": "relu", "width": 300, "sigma_w2": 2.0}),
    "cascade, fewer images": (CascadePoint, {"train_images": 500, "test_images": 20}),
    "cascade, other images": (CascadePoint, {"dataset": "cifar10", "data_seed": 5}),
    "cascade, resolution": (CascadePoint, {"resolution": 1e-5, "rtol": 0.02}),
    "cascade, CNN": (CascadePoint, {**CNN, "depth": 30}),
    "cascade, CNN by Adam": (CascadePoint, {**CNN, "depth": 10, "solver": "adam"}),
    "cascade, ResNet": (CascadePoint, {**RESNET, "depth": 50}),
    "cascades": (CascadeSweep, {"sigma_w2": [0.5, 1.7], "seeds": [0, 1], "depth": 20}),
    "cascades, CNN": (CascadeSweep, {**CNN, "sigma_w2": [0.9, 1.0], "seeds": [0]}),
    "training, as it comes": (TrainingPoint, {}),
    "training, Adam": (TrainingPoint, {"optimiser": "adam", "learning_rate": 1e-3, "steps": 9}),
    "training, CNN": (TrainingPoint, {**CNN, "depth": 10, "threshold": 0.9}),
    "training, ResNet": (TrainingPoint, {**RESNET, "rate_exponent": 0.5, "batch_size": 32}),
    "trainings": (TrainingSweep, {"sigma_w2": [1.0, 1.7], "depths": [5, 9], "width": 300}),
    "prediction, as it comes": (PredictorPoint, {}),
    "prediction, two": (PredictorPoint, {"predictors": ["naswot", "cutoff_adam"], "depth": 9}),
    "predictions": (PredictorSweep, {"sigma_w2": [1.0, 1.7], "seeds": [3], "depth": 30}),
    "study, as it comes": (StudyPoint, {}),
    "study, shrinking": (StudyPoint, {"shape": "shrinking", "grey": True, "shown_class": 3}),
    "channels, as they come": (ChannelsPoint, {}),
    "channels, compared": (ChannelsPoint, {"side": 64, "compare": True, "shown": ["3:26"]}),
    "an instrument on the zoo": (InstrumentForecast, {"number": 7}),
    "an instrument on an MLP": (InstrumentPoint, {"depth": 9, "width": 300}),
    "zoo, as it comes": (ZooPoint, {}),
    "zoo, four times as long": (ZooPoint, {"number": 7, "budget": 2400}),
    "zoos": (ZooSweep, {"numbers": [0, 5]}),
    "VGG, as it comes": (VggTraining, {}),
    "VGG, short": (VggTraining, {"epochs": 2, "precision": "bfloat16", "layers": 11}),
}


def identity_of(settings: Any) -> str:
    """The digest that results of these settings are found by."""
    if isinstance(settings, ChannelsPoint | VggTraining):  # compared as they are
        return digest(settings.as_dict())
    return str(settings.identity(code_version=1, checksum=DATA))


def settings() -> dict[str, str]:
    """The identity of each of `SETTINGS`."""
    return {name: identity_of(kind.from_dict(given)) for name, (kind, given) in SETTINGS.items()}


def kind_of(about: dict[str, Any]) -> type[Grid] | None:
    """The kind of sweep with a result's settings; None: it is no sweep's."""
    return next((kind for kind in SWEEPS if about["config"].keys() <= set(kind.names())), None)


def sweeps() -> dict[str, Any]:
    """The shipped results of sweeps by file name, with their provenance."""
    folder = paths.reference_file("x").parent
    results = {file.name: load_result(file) for file in sorted(folder.glob("*.nc"))}
    return {name: result for name, result in results.items() if kind_of(provenance(result))}


def finished_points(result: Any) -> Iterator[Any]:
    """The finished points of a sweep's result, made from its settings and coordinates."""
    about = provenance(result)
    kind = kind_of(about)
    assert kind is not None
    done = result["finished"]
    # settings that came after the result have their defaults; the axes are given by the place
    lists = {*kind.axes.values(), *done.dims}
    shared = {name: value for name, value in about["config"].items() if name not in lists}
    for place in zip(*np.nonzero(done.values == 1), strict=True):
        here = zip(done.dims, place, strict=True)
        axes = {axis: done[axis].values[number].item() for axis, number in here}
        yield kind.point.from_dict({**shared, **axes})


def points_of(result: Any, points: Iterable[Any]) -> dict[str, Any]:
    """How many points, and one digest over their sorted identities."""
    about = provenance(result)
    found = sorted(
        point.identity(code_version=about["code_version"], checksum=about["data"]["checksum"])
        for point in points
    )
    return {"points": len(found), "digest": hashlib.sha256("\n".join(found).encode()).hexdigest()}


def reference() -> dict[str, Any]:
    """The points behind each shipped result of a sweep."""
    return {name: points_of(result, finished_points(result)) for name, result in sweeps().items()}


def files() -> dict[str, list[str]]:
    """What a small sweep calls its result and its points: the whole way, data and all."""
    sizes = {"depth": 2, "width": 8, "train_images": 20, "test_images": 10}
    small = CascadeSweep(dataset="digits", sigma_w2=(1.0, 1.7), seeds=(0,), **sizes)
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / paths.NOTEBOOKS).mkdir()
        with mock.patch.dict(os.environ, {paths.HOME_VARIABLE: home}):
            plan = make_plan(small, None)
    return {plan.name: [file.name for file in plan.missing.values()]}


def names() -> list[str]:
    """The public names."""
    return sorted(paperlib.__all__)


def parameters() -> dict[str, dict[str, Any]]:
    """The parameters of each notebook: the names in its cell, in order, and their defaults."""
    return {notebook.name: parameters_of(notebook.path) for notebook in notebooks.find()}


def parameters_of(path: Path) -> dict[str, Any]:
    """The names in a notebook's parameters cell, in order, and their default values."""
    cells = nbformat.read(path, as_version=4).cells
    (cell,) = (cell for cell in cells if "parameters" in cell.metadata.get("tags", []))
    found = {}
    for line in ast.parse(cell.source).body:
        assert isinstance(line, ast.AnnAssign), ast.unparse(line)
        assert line.value is not None, ast.unparse(line)
        found[ast.unparse(line.target)] = ast.literal_eval(line.value)
    return found


def help_texts() -> dict[str, str]:
    """What `paperlib --help` and the `--help` of every command print, by command."""
    whole = help_text()
    commands = re.findall(r"^ {4}(\w+) ", whole, flags=re.MULTILINE)
    return {"paperlib": tidy(whole)} | {name: tidy(help_text(name)) for name in commands}


def help_text(*words: str) -> str:
    """What the command line prints when it is asked for help, on a terminal of endless width."""
    printed = io.StringIO()
    width = {"COLUMNS": "10000", "NO_COLOR": "1"}
    leaves = contextlib.suppress(SystemExit)
    with mock.patch.dict(os.environ, width), contextlib.redirect_stdout(printed), leaves:
        cli.main([*words, "--help"])
    return printed.getvalue()


def tidy(text: str) -> str:
    """A help text without its columns, which differ between versions of Python."""
    lines = [" ".join(line.split()) for line in text.splitlines()]
    return "\n".join(line for line in lines if line) + "\n"


FILES: dict[str, Callable[[], Any]] = {
    "settings.json": settings,
    "reference.json": reference,
    "files.json": files,
    "names.json": names,
    "parameters.json": parameters,
}


def frozen(name: str) -> Any:
    """What a file in `tests/frozen/` holds."""
    return json.loads((FROZEN / name).read_text(encoding="utf-8"))


def main() -> None:
    """Write `tests/frozen/` anew."""
    for old in FROZEN.glob("help/*.txt"):
        old.unlink()
    for name, made in FILES.items():
        text = json.dumps(made(), indent=1, ensure_ascii=False)
        paths.write_whole(FROZEN / name, f"{text}\n".encode())
    for command, text in help_texts().items():
        paths.write_whole(FROZEN / "help" / f"{command}.txt", text.encode())


if __name__ == "__main__":
    main()
