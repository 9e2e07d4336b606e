"""The command line: `paperlib COMMAND`; `paperlib --help` lists them."""

import argparse
import logging
import os
import re
import shutil
import sys
import textwrap
from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from paperlib.core import paths
from paperlib.core.checks import checked
from paperlib.core.settings import PROFILES
from paperlib.core.values import parsed, word_of

_MARKUP = re.compile(r"(\*\*|\*|`)(?! )(.+?)(?<! )\1")  # of Markdown, with the text inside
KEPT_DATA = ("README.md", Path(paths.REFERENCE).name)  # committed


def main(arguments: Sequence[str] | None = None) -> int:
    """Return the exit status: 0, 1 after an error that was reported, 2 without a command, 130 after
    Ctrl-C."""
    words = sys.argv[1:] if arguments is None else arguments
    parser = _parser(next((word for word in words if not word.startswith("-")), ""))
    options = parser.parse_args(words)
    if "command" not in options:
        parser.print_help(sys.stderr)
        return 2
    command: Callable[[argparse.Namespace], int] = options.command
    try:
        return command(options)
    except BrokenPipeError:  # what reads the output, such as `head`, has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (ValueError, OSError) as error:
        return _failed(error)
    except KeyboardInterrupt:
        logging.getLogger("asyncio").disabled = True  # it would report the interrupted cell at exit
        print("paperlib: interrupted; finished points are kept", file=sys.stderr)
        return 130


def _list(options: argparse.Namespace) -> int:
    from paperlib.notebooks import costs, runner

    measured = costs.load_costs()
    if options.markdown:
        print(costs.markdown(runner.find(), measured))
        return 0
    rows = [("notebook", "figure", "what it shows", "time: quick", "paper", "state")]
    for notebook in runner.find():
        claim = textwrap.shorten(_MARKUP.sub(r"\2", notebook.claim), 78, placeholder=" …")
        cost = measured.get(notebook.name)
        times = cost.times if cost else (costs.UNKNOWN, costs.UNKNOWN)
        states = [_state(notebook.name, profile)[0] for profile in ("quick", "reference")]
        state = next((state for state in states if state != "missing"), "missing")
        rows.append((notebook.name, notebook.title, claim, *times, state))
    _print_table(rows)
    return 0


def _params(options: argparse.Namespace) -> int:
    from paperlib.notebooks import runner

    name = runner.resolve(options.name)
    given = runner.profile_parameters(name, options.profile)
    rows = [("parameter", f"default ({options.profile})", "unit and range")]
    for key, parameter in runner.parameters(name).items():
        rows.append((key, word_of(given.get(key, parameter.default)), parameter.help))
    _print_table(rows)
    return 0


def _run(options: argparse.Namespace) -> int:
    from paperlib.notebooks import runner
    from paperlib.sweep import engines

    names = list(dict.fromkeys(n for name in options.names for n in runner.group(name)))
    engines.choose(options.backend, options.address)
    parameters = {key: parsed(text) for key, text in options.parameters}
    profile = parameters.get("profile", options.profile or "quick")
    if options.profile not in (None, profile):
        raise ValueError(
            f"two profiles are named, --profile {options.profile} and -p profile {profile}; "
            "expected one"
        )
    status = 0
    names = names or [notebook.name for notebook in runner.find()]
    if checked("at_once", options.at_once, int, low=1) > 1:
        return _run_at_once(names, options)
    for name in names:
        try:
            runner.execute(
                name,
                profile=profile,
                parameters=parameters,
                jobs=options.jobs,
                force=options.force,
                save=options.save,
                output=options.output,
            )
        except (ValueError, OSError, runner.NotebookError) as error:
            status = _failed(error)
    return status


def _run_at_once(names: Sequence[str], options: argparse.Namespace) -> int:
    """Run each notebook by a command of its own, with its share of the cores; what computes points
    was chosen in the environment, which they inherit."""
    from paperlib.notebooks.at_once import run_at_once

    share = max(1, (os.cpu_count() or 1) // options.at_once)
    words = [sys.executable, "-m", "paperlib", "run", "--jobs", str(options.jobs or share)]
    words += [word for key, value in options.parameters for word in ("-p", key, value)]
    words += [f"--{key}={value}" for key in ("profile", "output") if (value := vars(options)[key])]
    words += [f"--{key}" for key in ("force", "save") if vars(options)[key]]
    commands = {name: [*words, name] for name in names}
    return int(not run_at_once(commands, options.at_once, threads=share))


def _status(options: argparse.Namespace) -> int:
    from paperlib.notebooks import runner

    rows = [("notebook", "profile", "state", "why")]
    for notebook in runner.find():
        for profile in PROFILES:
            rows.append((notebook.name, profile, *_state(notebook.name, profile)))
    _print_table(rows)
    return 0


def _show(options: argparse.Namespace) -> int:
    from paperlib.notebooks import figures

    for name in options.names:
        file = figures.find_figure(name)
        about = figures.provenance_of(file)
        print(os.path.relpath(file))
        for number, result in enumerate(about, start=1):
            print(f"result {number} of {len(about)}")
            print(*figures.provenance_lines(result), sep="\n")
    return 0


def _data(options: argparse.Namespace) -> int:
    from paperlib.datasets import NAMES, availability, load_dataset

    if not options.names:
        root, system = paths.data_root(), paths.SYSTEM_DATA
        print(f"looked up in {root}, then in {system}; fetched into the first: paperlib data NAME")
        _print_table([("data set", "where"), *((name, availability(name)) for name in NAMES)])
        return 0
    for name in options.names:
        data = load_dataset(name)
        sizes = [tuple(images.shape) for images in (data.train_images, data.test_images)]
        print(f"{name}: {data.name}, from {data.source}")
        print(f"  train {sizes[0]}, test {sizes[1]}, {len(data.classes)} classes")
        print(f"  checksum {data.checksum}", flush=True)
    return 0


def _train(options: argparse.Namespace) -> int:
    from paperlib.instruments.channels.settings import VggTraining

    settings = VggTraining.from_dict({k: parsed(text) for k, text in options.parameters})
    import torch

    from paperlib.instruments.channels.training_vgg import train_vgg

    device = "cuda" if torch.cuda.is_available() else "cpu"
    file, about = train_vgg(settings, options.output, device=device)
    accuracy, data = about["accuracy"][-1], about["data"]["name"]
    print(f"{file}: {accuracy:.2%} of the test images of {data} after {about['epochs']} epochs")
    return 0


def _probe(options: argparse.Namespace) -> int:
    from paperlib.instruments.probe.command import model_of, pictures_of, write_report
    from paperlib.instruments.probe.probe import probe

    model = model_of(options.model)
    pictures = pictures_of(
        options.dataset, count=options.images, channels=options.channels, size=options.size
    )
    layers = options.layers.split(",") if options.layers else "auto"
    report = probe(model, pictures, layers=layers, seed=options.seed)
    if options.verdict:
        try:
            _ = report.verdict  # which the report tells from now on
        except ValueError as error:
            print(f"no verdict: {error}", flush=True)
    print(report, flush=True)
    if options.suggest:
        print(f"\n{report.suggest()}", flush=True)
    for file in write_report(report, Path(options.output)) if options.output else ():
        print(f"wrote {file}")
    return 0


def _explorer(options: argparse.Namespace) -> int:
    from paperlib.notebooks.explorer.page import write_page

    try:
        file = write_page(options.output)
    except ImportError as error:
        return _failed(error)
    print(f"{os.path.relpath(file)}: open it in a browser")
    return 0


def _clean(options: argparse.Namespace) -> int:
    from paperlib.notebooks import runner

    # what a sweep wrote can be made from its points in seconds, so the two go together
    folders = {paths.points_folder(), paths.results_folder()}
    if options.what == "points":
        found = [folder for folder in sorted(folders) if folder.exists()]
    elif options.what == "figures":
        every = [paths.figures_folder(folder) for folder in runner.FOLDERS]
        found = [folder for folder in every if folder.exists()]
    else:
        found = [path for path in _downloads() if path not in folders]
    if not found:
        print(f"nothing to free: no {options.what} here")
    for path in found:
        print(f"removing {path.relative_to(paths.home())} ({_size(path) / 1e6:.1f} MB)", flush=True)
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        else:
            path.unlink()
    return 0


def _parser(command: str) -> argparse.ArgumentParser:
    """The parser; only of the named command does it know what is slow to find out."""
    parser = argparse.ArgumentParser(
        prog="paperlib", description="Every figure of the paper, from its notebook."
    )
    parser.add_argument("--version", action="version", version=_version())
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")

    listed = commands.add_parser("list", help="the notebooks, and what each one shows")
    listed.add_argument("--markdown", action="store_true", help="the table of the README")
    listed.set_defaults(command=_list)

    params = commands.add_parser(
        "params", help="a notebook's parameters, with default, unit and range, for `run -p`"
    )
    params.add_argument("name", metavar="NAME", help='"01" or "1" will do')
    params.add_argument(
        "--profile",
        default="quick",
        help="the one whose values are the defaults (default: quick)",
    )
    params.set_defaults(command=_params)

    _add_run(commands)

    status = commands.add_parser(
        "status", help="which figures are fresh, stale, missing or shipped, and why"
    )
    status.set_defaults(command=_status)

    show = commands.add_parser("show", help="what a figure was computed from, when and with what")
    show.add_argument("names", nargs="+", metavar="FIGURE", help="a .png, a .pdf, or its name")
    show.set_defaults(command=_show)

    data = commands.add_parser("data", help="list data sets, or fetch and verify some")
    data.add_argument("names", nargs="*", metavar="NAME", help="a name, a .npz file or a folder")
    data.set_defaults(command=_data)

    train = commands.add_parser(
        "train", help="train VGG16 on small images, for notebook 06; a stopped one goes on"
    )
    _add_parameters(train, f"of the training: {_names_of_training() if command == 'train' else ''}")
    train.add_argument(
        "--output",
        metavar="FILE",
        help="of the weights, .safetensors (default: in data/weights/)",
    )
    train.set_defaults(command=_train)

    _add_probe(commands)

    explorer = commands.add_parser(
        "explorer", help="write the explorer: the shipped results as one page to play with"
    )
    explorer.add_argument("--output", metavar="FOLDER", default=".", help="(default: this folder)")
    explorer.set_defaults(command=_explorer)

    clean = commands.add_parser("clean", help="say what can be freed, then free it")
    what = clean.add_mutually_exclusive_group()
    for name, text in (
        ("points", "finished points and the results made from them (the default)"),
        ("data", "downloads in data/"),
        ("figures", "figures and notebooks of runs, not the canonical ones"),
    ):
        what.add_argument(f"--{name}", dest="what", action="store_const", const=name, help=text)
    clean.set_defaults(command=_clean, what="points")
    return parser


def _names_of_training() -> str:
    from paperlib.instruments.channels.settings import VggTraining

    return ", ".join(VggTraining.names())


def _add_parameters(command: argparse.ArgumentParser, meaning: str) -> None:
    command.add_argument(
        "-p",
        dest="parameters",
        nargs=2,
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        help=meaning,
    )


def _add_run(commands: Any) -> None:
    """Add the command that runs notebooks."""
    run = commands.add_parser("run", help="run notebooks; their figures go to figures/")
    *others, last = PROFILES
    run.add_argument(
        "names",
        nargs="*",
        metavar="NAME",
        help='"01" or "1" will do; "figures": 00 to 09, "instruments": the others (default: all)',
    )
    run.add_argument("--profile", help=f"{', '.join(others)} or {last} (default: quick)")
    _add_parameters(
        run, "another value for a parameter; the figure then goes to a folder in figures/custom/"
    )
    run.add_argument("--jobs", type=int, help="points computed at a time (default: one per core)")
    run.add_argument(
        "--at-once",
        type=int,
        default=1,
        metavar="N",
        help="notebooks that run side by side, each with its share of the cores (default: 1)",
    )
    run.add_argument("--backend", help="what computes points: loky or dask (default: loky)")
    run.add_argument(
        "--address",
        help="of a Dask scheduler, tcp://… (default: a cluster on this machine)",
    )
    run.add_argument("--force", action="store_true", help="run again what is fresh, too")
    run.add_argument(
        "--save", action="store_true", help="replace the notebook by the executed one (canonical)"
    )
    run.add_argument(
        "--output", metavar="FOLDER", help="for figures and executed notebooks (default: figures/)"
    )
    run.set_defaults(command=_run)


def _add_probe(commands: Any) -> None:
    """Add the command that looks into any model."""
    probe = commands.add_parser(
        "probe", help="at which layer of any PyTorch model its input is lost"
    )
    probe.add_argument(
        "model",
        metavar="MODULE:FACTORY",
        help="what makes the model, or is it: mymodels:build, torchvision.models:resnet18",
    )
    probe.add_argument("--dataset", required=True, help="a name, a .npz file or a folder")
    probe.add_argument(
        "--images", type=int, default=400, help="how many images to use, at most (default: 400)"
    )
    probe.add_argument(
        "--channels",
        type=int,
        choices=(1, 3),
        help="turn grey into colour or back (default: as they are)",
    )
    probe.add_argument(
        "--size",
        type=int,
        help="scale the images to squares with sides of so many pixels (default: as they are)",
    )
    probe.add_argument("--layers", help="names with commas between (default: where all paths meet)")
    probe.add_argument(
        "--seed",
        type=int,
        default=0,
        help="of the held-out images' choice and the model's random numbers (default: 0)",
    )
    probe.add_argument(
        "--verdict",
        action=argparse.BooleanOptionalAction,
        default=True,
        help="whether it will train, and why; costs about as much again",
    )
    probe.add_argument("--suggest", action="store_true", help="look for a better initialisation")
    probe.add_argument("--output", metavar="FOLDER", help="for probe.html, probe.png, probe.csv")
    probe.set_defaults(command=_probe)


def _version() -> str:
    return f"paperlib {version('reconstruction-entropy')}"


def _state(name: str, profile: str) -> tuple[str, str]:
    from paperlib.notebooks import runner

    try:
        return runner.state(name, profile)
    except (ValueError, OSError) as error:
        return "unknown", str(error)


def _failed(error: Exception) -> int:
    sys.stdout.flush()
    print(f"paperlib: {error}", file=sys.stderr, flush=True)
    return 1


def _print_table(rows: Iterable[Sequence[str]]) -> None:
    rows = list(rows)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for row in rows:
        padded = (cell.ljust(width) for cell, width in zip(row, widths, strict=True))
        print("  ".join(padded).rstrip())


def _downloads() -> list[Path]:
    """What git ignores in data/; nothing where data/ leads out of the checkout."""
    folder = paths.home() / paths.DATA
    if not folder.is_dir() or not folder.resolve().is_relative_to(paths.home()):
        return []
    return [path for path in sorted(folder.iterdir()) if path.name not in KEPT_DATA]


def _size(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() and not path.is_symlink() else [path]
    return sum(file.lstat().st_size for file in files if not file.is_dir())
