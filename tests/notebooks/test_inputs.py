"""Wrong parameters: refused with one line that names them, before a kernel starts."""

import math
import os
import resource
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from checkout import ROOT
from PIL import Image
from tiny_data import keras, save

from paperlib.cli import main
from paperlib.core.values import parsed, word_of
from paperlib.datasets import NAMES, load_dataset
from paperlib.datasets.places import NAMED_CLASSES
from paperlib.notebooks import inputs
from paperlib.notebooks import runner as notebooks

SECONDS = 3.0  # of the processor, for a refusal

WRONG = [
    ("00 -p depht 3", "unknown parameter 'depht' = 3 (did you mean 'depth'?)"),
    ("00 -p depth 0", "depth must be >= 1, got 0"),
    ("00 -p depth 10:21", "depth must be a whole number, got '10:21'"),
    ("00 -p depth 2.5", "depth must be a whole number, got 2.5"),
    ("00 -p depth ten", "depth must be a whole number, got 'ten'"),
    ("00 -p depth true", "depth must be a whole number, got True"),
    ("00 -p depth 1_000", "depth must be a whole number, got '1_000'"),
    ("00 -p depth [3]", "depth must be a whole number, got [3]"),
    ("00 -p stages 5", "stages must be <= 4, got 5"),
    ("00 -p image 100", "image must be < test_images (100)"),
    ("00 -p fallback no", "fallback must be True or False, got 'no'"),
    ("00 -p sigma_b2 -0.1", "sigma_b2 must be >= 0"),
    ("00 -p sigma_w2 nan", "sigma_w2 must be a finite number, got 'nan'"),
    ("00 -p sigma_w2 1e999", "sigma_w2 must be a finite number, got inf"),
    ("00 -p solver rigde", "solver must be one of ridge, adam; got 'rigde'"),
    ("00 -p activation sigmoid", "activation must be one of"),
    ("00 -p seed 99999999999999999999", "seed must be <="),
    ("00 -p dataset mnits", "dataset = 'mnits': unknown data set 'mnits' (did you mean 'mnist'?)"),
    ("00 -p dataset no", "dataset = 'no': unknown data set 'no'"),
    ("00 -p dataset null", "dataset must be a string, got None"),
    ("00 -p dataset nowhere.npz", "no file or folder nowhere.npz (relative paths"),
    ("00 -p dataset ./nowhere", "no file or folder {here}/nowhere"),
    ("00 -p dataset damaged.npz", "damaged.npz is no readable .npz file"),
    ("00 -p dataset pipe.npz", "pipe.npz is neither a file nor a folder"),
    ("00 -p profile papre", "unknown profile 'papre' (did you mean 'paper'?)"),
    ("00 --profile smoke -p profile paper", "two profiles are named"),
    ("01 -p start_from nowhere.nc", "start_from = 'nowhere.nc': no result at"),
    ("01 -p start_from mnist_mlp", "start_from = 'mnist_mlp': no result at"),
    ("01 -p start_from ./damaged.nc", "damaged.nc is damaged or no result of this package"),
    ("01 -p compare_with nowhere.nc", "compare_with = 'nowhere.nc': no result at"),
    ("01 -p trained nowhere.nc", "trained = 'nowhere.nc': no result at"),
    ("01 -p sigma_w2_min 5", "sigma_w2_max must be >= sigma_w2_min"),
    ("01 -p sigma_w2_step 1e-9", "sigma_w2_step must leave at most 100,000 values"),
    ("02 -p trained_depths [5,5]", "none twice"),
    ("02 -p trained_depths 5", "trained_depths must be a sequence of values, got 5"),
    ("02 -p trained_depths [5", "cannot read the value '[5'"),
    ("02 -p search_from 1.5", "needs stop_at < 1"),
    (
        "05 -p shown_class 10",
        "shown_class must be below 10, the number of classes of mnist, got 10",
    ),
    ("05 -p dataset four.npz -p shown_class 4", "shown_class must be below 4"),
    ("05 -p dataset two -p shown_class 2", "shown_class must be below 2"),
    ("06 -p weights nowhere.pth", "no file of weights, .safetensors or .pth at"),
    ("06 -p weights no", "weights = 'no': no file of weights"),
    ("06 -p photographs nowhere", "no folder of pictures at"),
    ("06 -p image nobody", "image = 'nobody': no picture at nobody; expected one, or coffee"),
    ("06 -p asked_images [chelsea,nobody]", "asked_images = 'nobody': no picture at"),
    ("06 -p asked 19:0", "levels are 1 … 18, got 19 in '19:0'"),
    ("06 -p asked 10:256", "level 10 has the channels 0 … 255, got '10:256'"),
    ("06 -p asked 10", "asked must be a string, got 10"),
    ("06 -p asked ten", "asked is written level:channel, such as 10:112; got 'ten'"),
    ("06 -p shown [3:26,6:128]", "level 6 has the channels 0 … 127, got '6:128'"),
    ("06 -p ranked_levels [3,19]", "levels are 1 … 18, got 19"),
    ("06 -p ranked_levels [0]", "ranked_levels must be >= 1, got 0"),
    ("06 -p ranked_images 11", "ranked_images must be <= test_images (10), got 11"),
    ("06 -p layers 12", "layers must be one of 11, 13, 16, 19; got 12"),
    ("06 -p side 16", "side must be >= 32, got 16"),
    (
        "07 -p trained [nowhere.nc,trainability_cifar10.nc]",
        "trained = 'nowhere.nc': no result at",
    ),
    ("07 -p predicted [predictors_mnist.nc]", "must name as many results each"),
    ("07 -p column_predictors [r_squard]", "did you mean 'r_squared"),
    ("08 -p picture_size 33", "picture_size must be a multiple of 16"),
    (
        "08 -p pictures nowhere.npz",
        "no file or folder nowhere.npz (relative paths",
    ),
    ("08 -p learning_rate 0", "learning_rate must be > 0"),
    ("10 -p removed [1.5]", "removed must be <= 0.99, got 1.5"),
    ("10 -p epochs 1", "epochs must be >= 2, got 1"),
]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A checkout, and a folder to work in with data that can and cannot be read."""
    home, folder = tmp_path / "home", tmp_path / "here"
    shutil.copytree(ROOT / "notebooks", home / "notebooks")
    (home / "data").mkdir()
    (home / "data/reference").symlink_to(ROOT / "data/reference")
    folder.mkdir()
    save(folder / "four.npz", keras())
    for name in ("a/0.png", "a/1.png", "b/2.png"):
        (folder / "two" / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((8, 8), np.uint8)).save(folder / "two" / name)
    (folder / "damaged.npz").write_bytes(b"PK\x03\x04 this was an archive once")
    (folder / "damaged.nc").write_bytes(b"no result")
    os.mkfifo(folder / "pipe.npz")
    monkeypatch.setenv("PAPERLIB_HOME", str(home))
    monkeypatch.setenv("PAPERLIB_DATA", str(home / "data"))
    monkeypatch.chdir(folder)
    return folder.resolve()


@pytest.mark.parametrize(("words", "message"), WRONG)
def test_a_wrong_parameter_is_refused_before_a_kernel_starts(
    words: str,
    message: str,
    here: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setattr(notebooks, "_run", lambda *a: pytest.fail("a kernel would start"))
    assert main(["run", *words.split()]) == 1
    said = capsys.readouterr().err
    assert message.format(here=here) in said
    assert said.startswith("paperlib: ")
    assert said.count("\n") == 1


@pytest.mark.slow
@pytest.mark.parametrize("words", ["00 -p depth 0", "01 -p start_from x.nc", "06 -p asked 19:0",
                                   "05 -p dataset nowhere.npz", "10 -p epochs 1"])  # fmt: skip
def test_a_refusal_takes_three_seconds_at_most(words: str, here: Path) -> None:
    spent: list[float] = []
    # of the processor, and the least of three: a busy machine is no failure
    while len(spent) < 3 and min(spent, default=math.inf) > SECONDS:
        code, seconds = processor_seconds("-m", "paperlib", "run", *words.split())
        assert code == 1
        spent.append(seconds)
    if min(spent) > SECONDS:  # on a slow one, or two threads on one core: twice torch's own import
        code, torchs = processor_seconds("-c", "import torch")
        assert code == 0
        assert min(spent) <= 2 * torchs, spent


def processor_seconds(*words: str) -> tuple[int, float]:
    """The exit status of an interpreter with these arguments, and what it spent."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    spent = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.returncode, spent


@pytest.mark.parametrize(
    "words",
    [
        "00 -p dataset four.npz",
        "00 -p dataset two",
        "00 -p dataset cifar10",  # it may be downloaded
        "01 -p start_from mnist_mlp.nc -p depth 5",
        "01 -p compare_with {home}/data/reference/mnist_mlp_adam.nc",
        "05 -p shown_class 9",
        "05 -p dataset four.npz -p shown_class 3",
        "06 -p image astronaut -p asked 10:255",
        "06 -p asked_images [two/a/0.png,chelsea]",
        "06 -p photographs two",
        "06 -p shown [3:26,6:3]",
        "06 --profile reference",  # its weights need not be here: its result is
        "07 -p trained [trainability_mnist.nc] -p predicted [predictors_mnist.nc]",
    ],
)
def test_what_is_there_is_accepted(words: str, here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran = []
    monkeypatch.setattr(notebooks, "_run", lambda *run: ran.append(run))
    assert main(["run", "--force", *words.format(home=here.parent / "home").split()]) == 0
    assert len(ran) == 1


@pytest.mark.parametrize(
    ("notebook", "key", "name", "is_path"),
    [
        ("00", "dataset", "two", True),
        ("00", "dataset", "four.npz", True),
        ("00", "dataset", "digits", False),
        ("06", "photographs", "two", True),
        ("06", "photographs", "bundled", False),
        ("06", "image", "chelsea", False),
    ],
)
def test_a_folder_of_the_callers_is_found_by_the_kernel_too_and_a_name_stays_one(
    notebook: str, key: str, name: str, is_path: bool, here: Path
) -> None:
    if not is_path:
        (here / name).mkdir()  # it is not meant
    values = notebooks.validated(notebooks.resolve(notebook), "quick", {key: name})
    assert values[key] == (str(here / name) if is_path else name)


def test_texts_of_parameters_are_those_that_were_typed(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    monkeypatch.setattr(notebooks, "_run", lambda name, values, *places: ran.append(values))
    assert main(["run", "06", "-p", "asked", "10:21", "-p", "shown", "[3:26, 6:3]"]) == 0
    assert (ran[0]["asked"], ran[0]["shown"]) == ("10:21", ("3:26", "6:3"))


def test_a_named_profile_brings_its_values_and_not_only_its_name(
    here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ran = []
    monkeypatch.setattr(notebooks, "_run", lambda name, values, *places: ran.append(values))
    assert main(["run", "00", "-p", "profile", "paper"]) == 0
    assert ran == [notebooks.validated("00_how_it_works", "paper", {})]
    assert ran[0]["solver"] == "adam"


@pytest.mark.parametrize("name", ["digits", "patches", "noise"])
def test_every_named_data_set_has_so_many_classes(name: str) -> None:
    assert len(load_dataset(name).classes) == NAMED_CLASSES
    assert name in NAMES


def test_each_default_that_is_printed_can_be_typed() -> None:
    for notebook in notebooks.find():
        for profile in ("quick", "paper"):
            values = {key: p.default for key, p in notebooks.parameters(notebook.name).items()}
            values |= notebooks.profile_parameters(notebook.name, profile)
            typed = {key: parsed(word_of(value)) for key, value in values.items()}
            assert typed == values, notebook.name


def test_a_profiles_own_values_name_no_file_that_is_missing_here() -> None:
    for notebook in notebooks.find():
        for profile in ("smoke", "quick"):
            inputs.check(notebooks.validated(notebook.name, profile, {}))
