"""Networks and modules rebuilt from what people reported, where their folder is at hand.

They lie beside the checkout, in shared/cases, and are no part of this package. Of each kind of
fault test_diagnoses.py and test_patients.py have a patient of their own.
"""

import contextlib
import importlib.util
import io
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
from checkout import ROOT
from torch import Tensor, nn

from paperlib import load_dataset, probe
from paperlib.instruments.probe.diagnoses import HEALTHY

CASES = ROOT.parent / "shared" / "cases"
NETS, MODULES = CASES / "nets", CASES / "modules"

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not NETS.is_dir(), reason="shared/cases is not beside the checkout"),
]


@cache
def digits(side: int) -> Tensor:
    images = load_dataset("digits").floats("train")[:200]
    return nn.functional.interpolate(images, (side, side), mode="bilinear", antialias=True)


def sequences() -> Tensor:
    return torch.randn(200, 20, 2, generator=torch.Generator().manual_seed(1))


def coordinates() -> Tensor:
    return 2 * torch.rand(200, 2, generator=torch.Generator().manual_seed(1)) - 1


@contextlib.contextmanager
def beside(folder: Path) -> Iterator[None]:
    """Cases import each other by name, and set threads and warnings; nothing is written there."""
    before, writes, threads = sys.modules.copy(), sys.dont_write_bytecode, torch.get_num_threads()
    sys.path.insert(0, str(folder))
    sys.dont_write_bytecode = True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        torch.set_num_threads(threads)
        sys.path.remove(str(folder))
        sys.dont_write_bytecode = writes
        for name in set(sys.modules) - set(before):
            if name.startswith(("net_", "repro_")):
                del sys.modules[name]


def loaded(path: Path) -> ModuleType:
    with beside(path.parent):
        spec = importlib.util.spec_from_file_location(path.stem, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module


def trained_too_fast() -> nn.Module:
    """Adam at 0.1, which kills the ReLUs of a network that is healthy before."""
    images, labels = digits(28), load_dataset("digits").labels("train")[:200]
    model = loaded(NETS / "net_21.py").build()
    optimiser = torch.optim.Adam(model.parameters(), 0.1)
    for _ in range(60):
        some = torch.randint(0, 200, (64,))
        optimiser.zero_grad()
        nn.functional.cross_entropy(model(images[some]), labels[some]).backward()
        optimiser.step()
    return model


Make = Callable[[ModuleType], nn.Module]

# number, what is built of it, what it is given, and the words of the first line; None: healthy
TABLE: list[tuple[str, Make, Callable[[], Tensor], str | None]] = [
    ("01", lambda m: m.build(), lambda: digits(32)[:100], "2.45 times smaller than He's"),
    ("01", lambda m: m.build(True), lambda: digits(32)[:100], None),
    ("03", lambda m: m.build(), lambda: digits(28), "a post-norm stack from layer"),
    ("03", lambda m: m.build(True), lambda: digits(28), None),
    ("04", lambda m: m.build(), lambda: digits(28), "depends on sample 4: samples of a batch"),
    ("04", lambda m: m.ViT(batch_first=True), lambda: digits(28), None),
    ("06", lambda m: m.build(), sequences, "LSTM of 8 layers of 2 units, a bottleneck"),
    ("06", lambda m: m.Net(2, 32), sequences, None),
    ("07", lambda m: m.build(), lambda: digits(28), "layer '6' are dead: 0 for every image"),
    ("07", lambda m: m.build(True), lambda: digits(28), None),
    ("08", lambda m: m.build(), lambda: digits(28), "is a gate of zeros before a ReLU"),
    ("08", lambda m: m.Net(True), lambda: digits(28), None),
    ("09", lambda m: m.build(), lambda: digits(28), "are copies of each other: rank 1 of"),
    ("09", lambda m: m.build(False), lambda: digits(28), None),
    ("11", lambda m: m.build(), lambda: digits(28), "1.73 times smaller than LeCun's"),
    ("11", lambda m: m.build(True), lambda: digits(28), None),
    ("12", lambda m: m.build(), lambda: digits(28), "is a bottleneck: 3 numbers, of 784"),
    ("14", lambda m: m.build(), lambda: 255 * digits(32), "inputs reach 255"),
    ("14", lambda m: m.build(), lambda: digits(32), None),
    ("15", lambda m: m.build(), coordinates, "periods: their frequencies are too low"),
    ("15", lambda m: m.build(True), coordinates, None),
    ("16", lambda m: m.build(), lambda: digits(28), "'norm' is a LayerNorm over one feature"),
    ("16", lambda m: m.Net(False), lambda: digits(28), None),
    ("17", lambda m: m.build(), lambda: digits(28), "is 1.000 for every image"),
    ("17", lambda m: m.build(True), lambda: digits(28), None),
    ("19", lambda m: m.build(), lambda: digits(32)[:100], "2.45 times smaller than He's"),
    ("19", lambda m: m.build(True), lambda: digits(32)[:100], None),
    ("21", lambda m: m.build(), lambda: digits(28), None),
    ("22", lambda m: trained_too_fast(), lambda: digits(28), "are dead: 0 for every image"),
    ("24", lambda m: m.build(), lambda: digits(28), "the output is a softmax"),
    ("25", lambda m: m.build(), lambda: digits(28), None),
    ("27", lambda m: m.build(), lambda: digits(28), None),
    ("27", lambda m: m.mlp(), lambda: digits(28), None),
]  # fmt: skip


@pytest.mark.parametrize(("number", "make", "images", "words"), TABLE)
def test_the_first_line_of_a_network_names_the_cause_or_says_that_there_is_none(
    number: str, make: Make, images: Callable[[], Tensor], words: str | None
) -> None:
    torch.manual_seed(0)
    report = probe(make(loaded(NETS / f"net_{number}.py")), images())
    first = report.summary().splitlines()[0]
    assert (words or HEALTHY) in first
    if words is None:
        assert not any(diagnosis.ill for diagnosis in report.diagnoses)
        assert report.phase not in ("ordered", "chaotic")


# a script of each kind, and what it must print, or must not
SAID: dict[str, list[Any]] = {
    "batch_interleaved": [(1, "same function: True"), (2, "inputs of 4×8"), (0, "lost from")],
    "cache_train_mode_small": [(1, "cache left behind: False"), (1, "trained bias: True")],
    "compiled": [(5, "924 parameters")],
    "decoder": [(2, "t.decoder.layers.4"), (0, "lost from")],
    "deep_residual": [(6, "lost from None")],
    "default_resolution": [(2, "lost: None")],
    "first_output": [(1, "'aux', 'out', 'out' is looked at"), (1, "'0', '1', '1' is looked at")],
    "image_offset": [(1, "images + 10 ->"), (0, "ordered"), (0, "chaotic")],
    "inference_mode": [(3, "544 parameters")],
    "inputs": [(8, "2,212 parameters"), (1, "were divided by 255")],
    "jit": [(3, "ProbeError model is scripted, traced or frozen"), (1, "ProbeError model was exp")],
    "lora_train_override": [(0, "merged True")],
    "ordered_verdict": [(0, "ordered:"), (2, "4,096 parameters")],
    "output_1d": [(3, "its input is not lost")],
    "residual_in_forward": [(1, "within 21 stages"), (1, "within 12 stages")],
    "state": [(1, "steps 0 | log 0 | hidden is None: True | weight changed: False")],
}


def test_there_is_a_line_for_every_script_and_every_network() -> None:
    scripts = {path.stem.removeprefix("repro_") for path in MODULES.glob("repro_*.py")}
    assert scripts - {"common"} == set(SAID)
    assert {path.stem.removeprefix("net_") for path in NETS.glob("*.py")} == {n for n, *_ in TABLE}


@pytest.mark.parametrize("name", SAID)
def test_a_module_is_probed_as_the_table_asks(name: str) -> None:
    if name == "lora_train_override":
        pytest.importorskip("loralib")
    printed = io.StringIO()
    with contextlib.redirect_stdout(printed):
        loaded(MODULES / f"repro_{name}.py")
    text = printed.getvalue()
    for count, words in SAID[name]:
        assert text.count(words) == count, text
    if name != "jit":
        assert "Error" not in text
