"""Whatever is passed: a valid result, or a message that names the argument; never a hang.

Each example takes a call that works and replaces one of its arguments. What comes back must be free
of NaN unless a warning says why, or an error of the ValueError family whose text names the argument
(TypeError only where Python itself refuses a call).
"""

import math
import re
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from fractions import Fraction
from functools import partial
from pathlib import Path
from typing import Any

import nbformat
import numpy as np
import pytest
import torch
import xarray as xr
from checkout import ROOT
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

import paperlib
from paperlib import instruments
from paperlib.cascade import Cascade
from paperlib.core import paths
from paperlib.core.settings import Checked, digest
from paperlib.instruments.reconstruction.points import CascadePoint, CascadeSweep
from paperlib.instruments.trainability.points import TrainingSweep

PATIENCE = 20  # seconds for one call, on a busy machine
CLASSES = list(dict.fromkeys(instruments.settings().values()))
CONFIGS = [
    getattr(paperlib, name)
    for name in paperlib.__all__
    if isinstance(getattr(paperlib, name), type) and issubclass(getattr(paperlib, name), Checked)
]
STUDIED = [*CONFIGS, *CLASSES]

# -- values that nobody should pass, and some that are fine

MILLION = 10**6  # too many steps for a test, but valid


class Odd:
    """Not a number, a path, a tensor or a sequence."""

    def __repr__(self) -> str:
        return "<something odd\nin two lines>"


def endless() -> Iterator[int]:
    while True:
        yield 1


SCALARS = [
    None, True, False, 0, -1, 1, 2, 3, MILLION, 2**63, 2**64,
    10**400, -(2**70), 0.0, -0.0, 0.5, 2.0,
    2.5, -0.5, 1e-300, 1e300, math.nan, math.inf, -math.inf, 1j, b"3", "", "3", "nan", "tanh",
    "mnist\0", "a" * 5000, "digitz", "/nowhere/at.nc", "[1, 2", "[[]]", "\ud800", "tänh",
    np.float32(2), np.int64(-4), np.float64("nan"), np.bool_(True), np.str_("ridge"),
    Fraction(1, 3), Fraction(10**400), Path("nowhere"), Path("."), int, len, Odd(), Ellipsis,
    range(3), set(), {1, 2}, {}, {"depth": 1}, (), [], [0], [1, 1], [[1, 2], [3]], [None], ["x"],
    [math.nan], (1, 2), (1, 0, 3), (1, -4, 4), (1, 4, 4.0), (1, 4, "4"), (10**6, 10**6, 10**6),
    (99_999,) * 3, nn.Linear(2, 2), nn.Sequential(), [nn.Linear(2, 2), "x"],
]  # fmt: skip
ARRAYS = [
    np.array(3.0), np.zeros(0), np.zeros((0, 3)), np.zeros((2, 0)), np.ones((2, 3), dtype=object),
    np.array(["a", "b"]), np.array([1, "x", None], dtype=object), np.ones(3, complex),
    np.array("2026-01-01", dtype="datetime64[D]"), np.full((3, 16), np.nan), np.ones((3, 16)),
    np.ones((3, 1, 4, 4), np.uint16), np.ones((3, 1, 4, 4), ">f4"), np.ones((3, 1, 4, 4))[::-1],
    np.ma.masked_array(np.ones((3, 16)), mask=True), xr.DataArray(np.ones((3, 16))), xr.Dataset(),
    torch.tensor(3.0), torch.zeros(0), torch.zeros(0, 1, 4, 4), torch.ones(3, 1, 4, 4),
    torch.rand(1, 1, 4, 4), torch.rand(3, 1, 4, 5), torch.rand(3, 2, 4, 4), torch.rand(2, 3),
    torch.rand(3, 1, 4, 4).double(), torch.rand(3, 1, 4, 4).half(), torch.ones(3, 1, 4, 4).int(),
    torch.rand(3, 1, 4, 4).bfloat16(), torch.ones(3, 1, 4, 4, dtype=torch.bool),
    torch.ones(3, 1, 4, 4, dtype=torch.complex64), torch.full((3, 1, 4, 4), math.nan),
    torch.full((3, 1, 4, 4), math.inf), torch.full((3, 1, 4, 4), 1e38),
    torch.rand(3, 1, 4, 4).to_sparse(), torch.rand(3, 1, 4, 4, device="meta"),
    torch.rand(1, 1, 1, 1, 1, 1), torch.tensor([1]),
    torch.rand(3, 1, 4, 4, requires_grad=True), -torch.rand(3, 1, 4, 4), torch.zeros(3, 1, 4, 4),
    torch.rand(3, 1, 4, 4).transpose(2, 3), torch.empty(3, 0, 4), torch.arange(3),
    torch.rand(3, 1, 4, 4).to_mkldnn(), torch.nn.Parameter(torch.rand(3, 16)),
]  # fmt: skip
SMALL = st.one_of(
    st.integers(-3, 6),
    st.floats(-10, 10),
    st.text(max_size=8),
    st.binary(max_size=4),
    st.lists(st.one_of(st.integers(-2, 5), st.floats(), st.text(max_size=2)), max_size=4),
    st.tuples(*[st.integers(-1, 5)] * 3),
    st.dictionaries(st.text(max_size=3), st.integers(), max_size=2),
)
ANYTHING = st.one_of(st.sampled_from(SCALARS), st.sampled_from(ARRAYS), SMALL)


@contextmanager
def watched() -> Iterator[None]:
    """A call that takes longer than PATIENCE fails, where the system has alarms."""

    def stop(*_: Any) -> None:
        raise AssertionError(f"the call has not ended after {PATIENCE} s")

    if not hasattr(signal, "setitimer"):
        yield
        return
    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, PATIENCE)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def holds_nan(result: Any) -> bool:
    """Whether there is a NaN anywhere in a result."""
    if isinstance(result, torch.Tensor):
        return bool(result.isnan().any()) if result.is_floating_point() else False
    if isinstance(result, np.ndarray | np.generic):
        return bool(np.isnan(result).any()) if result.dtype.kind == "f" else False
    if isinstance(result, xr.Dataset):
        return False  # NaN stands for what a search did not visit
    if isinstance(result, dict):
        return any(map(holds_nan, result.values()))
    return isinstance(result, float) and math.isnan(result)


def answer(call: Callable[[], Any], name: str, *, known_as: tuple[str, ...] = ()) -> Any:
    """The result of a call in which `name` was replaced, or None after an error that names it."""
    with warnings.catch_warnings(record=True) as warned, watched():
        warnings.simplefilter("always")
        try:
            result = call()
        except UnicodeError:
            raise  # a ValueError, but nobody's message
        except (ValueError, FileNotFoundError) as error:
            said = str(error)
            assert any(re.search(rf"\b{word}\b", said) for word in (name, *known_as)), (
                f"the message does not name {name}: {said!r}"
            )
            return None
    assert not holds_nan(result) or warned, f"NaN without a warning, from {name}"
    return result


# -- configurations: of sweeps, of points, of notebooks


@pytest.mark.slow
@settings(derandomize=True, max_examples=1000)
@given(kind=st.sampled_from(STUDIED), data=st.data())
def test_a_setting_of_a_configuration_is_valid_or_named(kind: Any, data: st.DataObject) -> None:
    setting = data.draw(st.sampled_from(fields(kind)))
    value = data.draw(ANYTHING)
    made = answer(lambda: kind.from_dict({setting.name: value}), setting.name)
    if made is not None:
        text = digest(made.as_dict())  # canonical JSON: no NaN, nothing of NumPy
        again = kind.from_dict(made.as_dict())
        assert digest(again.as_dict()) == text
        if setting.type in (int, float, str, bool):
            assert type(getattr(made, setting.name)) is setting.type


@pytest.mark.slow
@settings(derandomize=True, max_examples=200)
@given(kind=st.sampled_from(STUDIED), name=st.text(max_size=12), value=ANYTHING)
def test_an_unknown_setting_is_named(kind: Any, name: str, value: Any) -> None:
    if name not in kind.names():
        with pytest.raises(ValueError, match="unknown parameter") as caught:
            kind.from_dict({name: value})
        assert repr(name) in str(caught.value)


@settings(derandomize=True, max_examples=200)
@given(kind=st.sampled_from(CLASSES), data=st.data())
def test_a_notebooks_variable_is_valid_or_named(kind: Any, data: st.DataObject) -> None:
    known = st.sampled_from(kind.names())
    name = data.draw(st.one_of(known, st.from_regex(r"[a-z]{1,8}", fullmatch=True)))
    value = data.draw(st.one_of(st.none(), st.booleans(), SMALL))
    namespace = {"In": [], "Out": {}, "_": 3, "config": paperlib, name: value}
    answer(lambda: kind.from_notebook(namespace), name)


@pytest.mark.parametrize(
    "path", sorted((ROOT / "notebooks").glob("[0-9]*.ipynb")), ids=lambda path: path.stem
)
def test_the_configuration_of_each_notebook_is_tried(path: Path) -> None:
    named = nbformat.read(path, as_version=4).metadata["paperlib"]["config"]
    assert instruments.settings()[named] in CLASSES


# -- functions


def images(count: int = 3) -> torch.Tensor:
    return torch.rand(count, 1, 4, 4, generator=torch.Generator().manual_seed(0))


def small_network() -> paperlib.Network:
    network = paperlib.mlp((1, 4, 4), depth=2, width=5, classes=3)
    paperlib.initialise(network, sigma_w2=1.5, sigma_b2=0.05, seed=0)
    return network


def fitted() -> Cascade:
    return Cascade.for_network(small_network(), images()).fit(images(8))


NETWORK, CASCADE = small_network(), fitted()
DATA = paperlib.Dataset(
    *(torch.ones(4, 1, 4, 4, dtype=torch.uint8), torch.arange(4)) * 2,
    name="ones", source="a test", checksum="0" * 64, classes=("a", "b", "c", "d"),
)  # fmt: skip
POINT = CascadePoint(dataset="digits", depth=2, width=4, train_images=20, test_images=5)
CURVES = torch.rand(5, 3).add(0.1)


@dataclass
class Call:
    """A call that works, argument by argument."""

    function: Callable[..., Any]
    arguments: dict[str, Any]
    known_as: dict[str, tuple[str, ...]] = field(default_factory=dict)  # in messages
    positional: int = 0  # arguments that cannot be given by name

    def with_(self, name: str, value: Any) -> Any:
        every = {**self.arguments, name: value}
        first = [every.pop(key) for key in list(self.arguments)[: self.positional]]
        return self.function(*first, **every)


SHAPED = {"image_shape": (1, 4, 4), "depth": 2, "activation": "tanh", "classes": 3}
CALLS = {
    "mlp": Call(paperlib.mlp, {**SHAPED, "width": 5, "shape": "wide"}),
    "shrinking": Call(paperlib.mlp, {**SHAPED, "width": None, "shape": "shrinking"}),
    "cnn": Call(paperlib.cnn, {**SHAPED, "channels": 2}),
    "resnet": Call(paperlib.resnet, {**SHAPED, "channels": 2}),
    "residual_mlp": Call(paperlib.residual_mlp, {**SHAPED, "width": 5}),
    "Network": Call(
        paperlib.Network,
        {"stages": NETWORK.stages, "head": NETWORK.head, "image_shape": (1, 4, 4), "stem": 0},
    ),
    "initialise": Call(
        lambda network, **options: paperlib.initialise(network, **options),
        {"network": NETWORK, "sigma_w2": 1.0, "sigma_b2": 0.1, "seed": 0},
    ),
    "relative_entropy": Call(
        paperlib.relative_entropy, {"reference": images(), "reconstruction": images()}
    ),
    "r_squared": Call(
        paperlib.r_squared,
        {"reference": images(), "reconstruction": images(), "mean": images()[0]},
    ),
    "r_squared of a batch": Call(
        paperlib.r_squared, {"reference": images(), "reconstruction": images()}
    ),
    "differential_entropy": Call(paperlib.differential_entropy, {"images": images()}),
    "differential_entropy_published": Call(
        paperlib.differential_entropy_published, {"images": images()}
    ),
    "gram_entropy": Call(paperlib.gram_entropy, {"images": images()}),
    "collapse_depth": Call(
        paperlib.collapse_depth, {"curve": [0.9, 0.5, 0.0], "threshold": 0.02}
    ),
    "cutoff": Call(paperlib.cutoff, {"curves": CURVES, "rtol": 0.005}),
    "cutoffs": Call(paperlib.cutoffs, {"curves": CURVES, "rtol": 0.005}),
    "critical_sigma_w2": Call(
        paperlib.critical_sigma_w2, {"sigma_b2": 0.05, "activation": "tanh"}
    ),
    "correlation_depth": Call(
        paperlib.correlation_depth, {"sigma_w2": 1.5, "sigma_b2": 0.05, "activation": "tanh"}
    ),
    "for_network": Call(
        Cascade.for_network, {"network": NETWORK, "example_images": images()},
        {"network": ("stage 1",)},
    ),
    "fit": Call(
        lambda **options: Cascade.for_network(NETWORK, images()).fit(**options),
        {"images": images(8), "solver": "ridge", "seed": 0, "resolution": 1e-3, "affine": True,
         "arithmetic": "auto", "progress": None},
    ),
    "fit by Adam": Call(
        lambda **options: Cascade.for_network(NETWORK, images()).fit(**options),
        {"images": images(8), "solver": "adam", "seed": 0, "steps": 1, "batch_size": 4},
    ),
    "reconstruct": Call(CASCADE.reconstruct, {"images": images(), "levels": [1]}),
    "from_activation": Call(
        CASCADE.from_activation, {"activation": torch.rand(3, 5), "level": 2, "to": 0}
    ),
    "from_channel": Call(
        CASCADE.from_channel, {"images": images(), "level": 1, "channel": 2, "each": False}
    ),
    "ideal_input": Call(CASCADE.ideal_input, {"target": torch.rand(3, 5)}),
    "load": Call(
        Cascade.load, {"path": "nowhere.safetensors", "network": NETWORK},
        {"path": ("saved cascade",), "network": ("saved cascade",)},
    ),
    "floats": Call(
        DATA.floats,
        {"split": "train", "limit": 2, "grey": True, "flat": False, "device": "cpu"},
    ),
    "examples": Call(
        DATA.examples, {"split": "train", "limit": 2, "grey": True, "device": "cpu"}
    ),
    "load_dataset": Call(
        paperlib.load_dataset, {"name": "digits", "root": None, "limit": 5, "seed": 0},
        {"name": ("data set", "file", "folder", "pictures")},
    ),
    "load_result": Call(paperlib.load_result, {"path": "nowhere.nc"}, {"path": ("path",)}),
    "probe": Call(
        paperlib.probe,
        {"model": nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3)),
         "images": images(12), "labels": torch.arange(12) % 3, "layers": "auto", "seed": 0,
         "resolution": None, "batch_norm": "auto", "memory": 2**30},
        {"images": ("model", "samples", "layer", "labels"), "model": ("layer", "stage")},
    ),
    "watch": Call(
        paperlib.watch,
        {"model": nn.Sequential(nn.Flatten(), nn.Linear(16, 5), nn.Tanh(), nn.Linear(5, 3)),
         "images": images(12), "labels": None, "instruments": ("r_squared", "vital_signs"),
         "every": 10, "layers": "auto", "seed": 0},
        {"images": ("model", "samples", "layer"), "model": ("layer", "stage")},
    ),
    "vgg16": Call(
        lambda **options: paperlib.vgg16("random", **options),
        {"image_shape": (3, 32, 32), "layers": 12, "batch_norm": False, "classes": 2, "seed": 0},
        # 12 layers are refused, after all that is cheap has been checked
        dict.fromkeys(("image_shape", "batch_norm", "classes", "seed"), ("layers",)),
    ),
    "vgg16's weights": Call(
        paperlib.vgg16, {"weights": "random", "layers": 12}, {"weights": ("layers",)}
    ),
}  # fmt: skip


@pytest.fixture(autouse=True, scope="module")
def elsewhere(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A project of its own, in which nothing is found and whatever is written is forgotten."""
    folder = tmp_path_factory.mktemp("elsewhere")
    (folder / "notebooks").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv(paths.HOME_VARIABLE, str(folder))
        patch.delenv(paths.DATA_VARIABLE, raising=False)
        patch.chdir(folder)
        yield folder


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(CALLS))
def test_every_odd_value_of_every_argument_is_valid_or_named(name: str) -> None:
    call = CALLS[name]
    for argument in call.arguments:
        for value in [*SCALARS, *ARRAYS]:
            if argument == "progress" and callable(value):
                continue  # its errors are the caller's own
            if argument != "steps" or value is not MILLION:
                with_value = partial(call.with_, argument, value)
                answer(with_value, argument, known_as=call.known_as.get(argument, ()))


@pytest.mark.slow
@settings(derandomize=True, max_examples=800, suppress_health_check=[HealthCheck.too_slow])
@given(name=st.sampled_from(sorted(CALLS)), data=st.data())
def test_an_argument_of_a_function_is_valid_or_named(name: str, data: st.DataObject) -> None:
    call = CALLS[name]
    argument = data.draw(st.sampled_from(sorted(call.arguments)))
    value = data.draw(SMALL)
    answer(lambda: call.with_(argument, value), argument,
           known_as=call.known_as.get(argument, ()))  # fmt: skip


@pytest.mark.parametrize(
    "name", sorted(set(CALLS) - {"load", "load_result", "vgg16", "vgg16's weights"})
)
def test_the_calls_that_are_spoilt_work(name: str) -> None:
    call = CALLS[name]
    first = next(iter(call.arguments))
    call.with_(first, call.arguments[first])


@pytest.mark.slow
@settings(derandomize=True, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(data=st.data())
def test_an_argument_of_a_point_or_a_sweep_is_valid_or_named(data: st.DataObject) -> None:
    tiny = {"dataset": "digits", "train_images": 20, "test_images": 5}
    grid = CascadeSweep(depth=2, width=4, sigma_w2=(1.0,), seeds=(0,), **tiny)
    trainings = TrainingSweep(depths=(2,), sigma_w2=(1.0,), seeds=(0,), steps=1, **tiny)
    calls = [
        Call(paperlib.measure_point, {"point": POINT, "device": "cpu", "data": None}),
        Call(paperlib.run_sweep, {"config": grid, "jobs": 1, "device": "cpu", "start_from": None},
             {"start_from": ("path",)}),
        Call(paperlib.run_search, {"config": trainings, "threshold": 0.5, "start": 1.0, "jobs": 1}),
    ]  # fmt: skip
    call = data.draw(st.sampled_from(calls))
    argument = data.draw(st.sampled_from(sorted(call.arguments)))
    value = data.draw(ANYTHING.filter(lambda value: argument != "jobs" or not in_parallel(value)))
    answer(lambda: call.with_(argument, value), argument,
           known_as=call.known_as.get(argument, ()))  # fmt: skip


def in_parallel(value: Any) -> bool:
    """Whether a value is a valid number of processes, which would be started."""
    return isinstance(value, int | float | np.number | Fraction) and value not in (1, -1)


@pytest.mark.parametrize("name", paperlib.__all__)
def test_every_public_name_is_tried(name: str) -> None:
    functions = {call.function.__name__ for call in CALLS.values()}
    tried = functions | set(CALLS) | {kind.__name__ for kind in CONFIGS}
    assert name in tried | {"Cascade", "Dataset", "measure_point", "run_sweep", "run_search"}


@settings(derandomize=True, max_examples=100)
@given(data=st.data())
def test_a_cascade_without_a_fit_says_so_whatever_it_is_asked(data: st.DataObject) -> None:
    unfitted = Cascade.for_network(NETWORK, images())
    ask = data.draw(st.sampled_from(["reconstruct", "ideal_input", "save"]))
    with pytest.raises(ValueError, match=r"no inverses yet|must"):
        getattr(unfitted, ask)(data.draw(ANYTHING))


@settings(derandomize=True, max_examples=100)
@given(path=ANYTHING)
def test_a_path_to_save_to_is_valid_or_named(path: Any) -> None:
    if isinstance(path, str | Path) and "/" in str(path):
        return  # nothing is to be written outside the test's folder
    answer(lambda: CASCADE.save(path), "path")


def test_an_endless_iterator_is_refused() -> None:
    for call in (
        lambda: CascadeSweep(seeds=endless()),
        lambda: paperlib.mlp(endless(), depth=2),
        lambda: CASCADE.reconstruct(images(), levels=endless()),
        lambda: Cascade.for_network(endless(), images()),
        lambda: paperlib.collapse_depth(endless()),
    ):
        with watched(), pytest.raises(ValueError, match=r"seeds|image_shape|levels|network|curve"):
            call()


@pytest.mark.parametrize("function", [paperlib.mlp, paperlib.cutoff, paperlib.load_dataset])
def test_missing_and_unknown_arguments_are_pythons_own_errors(function: Any) -> None:
    with pytest.raises(TypeError, match="missing"):
        function()
    with pytest.raises(TypeError, match="unexpected keyword argument 'dpeth'"):
        function(1, dpeth=3)
