"""Wall-clock time and peak memory of notebooks, written to notebooks/costs.yaml.

    python benchmarks/notebooks.py [NAME…] [--profile quick | paper]

Each notebook's quick profile runs once in a project of its own, so that no finished point is
found; where others use the machine it says so, and the times are upper bounds. Paper profiles that
take days are not run: their time is scaled from shipped results of the same procedure, as `how`
says; the others are run too. Afterwards put the table that `paperlib list --markdown` prints into
the README.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil
import yaml

from paperlib import notebooks
from paperlib.core import paths
from paperlib.core.provenance import provenance, stamp
from paperlib.instruments.channels.channels import ADAM_BATCH
from paperlib.instruments.channels.parameters import Vgg16Channels
from paperlib.instruments.reconstruction.parameters import (
    CnnPhaseDiagram,
    PhaseDiagram,
    ResnetDepth,
)
from paperlib.instruments.trainability.parameters import Trainability
from paperlib.networks.kinds import stages_of
from paperlib.sweep.store import load_result

BUSY = 10  # per cent of all cores that others use


def run(name: str, profile: str) -> dict[str, float]:
    """Seconds and peak gigabytes of `paperlib run` with all the processes that it starts."""
    with tempfile.TemporaryDirectory() as folder:
        for part in (paths.NOTEBOOKS, paths.REFERENCE):
            shutil.copytree(paths.home() / part, Path(folder, part))
        environment = {**os.environ, paths.HOME_VARIABLE: folder}
        environment[paths.DATA_VARIABLE] = str(paths.data_root())
        command = [sys.executable, "-m", "paperlib", "run", name, "--profile", profile, "--force"]
        begin = time.monotonic()
        process = psutil.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        peak = 0
        while process.poll() is None:
            peak = max(peak, memory_of(process))
            time.sleep(0.2)
        if process.returncode:
            raise SystemExit(f"{name}, {profile}: exit status {process.returncode}")
    seconds = time.monotonic() - begin
    return {"seconds": round(seconds, 1), "gigabytes": round(peak / 2**30, 2)}


def memory_of(process: psutil.Process) -> int:
    """Bytes of a process and all below it, pages that they share counted once."""
    total = 0
    for each in [process, *process.children(recursive=True)]:
        try:
            total += each.memory_full_info().pss
        except psutil.Error:  # it ended meanwhile
            continue
    return total


def paper(name: str) -> dict[str, Any]:
    """What the paper profile costs: measured, or for those of days scaled from shipped results."""
    scaled = {
        "01_mnist_phase_diagram": mlp_seconds,
        "02_cifar10_phase_diagram": search_seconds,
        "03_cnn_phase_diagram": convolutional_seconds,
        "04_resnet_depth": convolutional_seconds,
        "06_vgg16_channels": vgg_seconds,
    }
    if name not in scaled:
        return {**run(name, "paper"), "how": "measured"}
    seconds, how = scaled[name](name)
    cores = os.cpu_count() or 1
    return {"seconds": round(seconds / cores), "how": f"{how} / {cores} cores"}


def mlp_seconds(name: str) -> tuple[float, str]:
    """CPU seconds of the published phase diagram, and how they were scaled."""
    config = PhaseDiagram.from_dict(notebooks.validated(name, "paper", {}))
    about = provenance(load_result("mnist_mlp_adam.nc"))
    stage = about["seconds_per_point"] / about["config"]["depth"]
    count = len(config.variances()) * config.seeds
    how = f"mnist_mlp_adam.nc: {stage:.2f} CPU s a stage × {config.depth} stages × {count} networks"
    return stage * config.depth * count, how


def convolutional_seconds(name: str) -> tuple[float, str]:
    """The same of a convolutional network, whose steps cost as the square of its channels."""
    kind = {"03_cnn_phase_diagram": CnnPhaseDiagram, "04_resnet_depth": ResnetDepth}[name]
    file = {"03_cnn_phase_diagram": "mnist_cnn_adam.nc", "04_resnet_depth": "resnet_adam.nc"}[name]
    config = kind.from_dict(notebooks.validated(name, "paper", {}))
    about = provenance(load_result(file))
    before = about["config"]
    before_stages = stages_of(before["architecture"], before["depth"])
    step = about["seconds_per_point"] / before_stages / before["steps"]
    step *= (config.channels / before["channels"]) ** 2
    steps, stages = 60_000 // config.batch_size, stages_of(config.architecture, config.depth)
    count = len(config.variances()) * config.seeds
    how = (
        f"{file}: {step:.4f} CPU s a step and stage of {config.channels} channels × {steps} steps "
        f"× {stages} stages × {count} networks"
    )
    return step * steps * stages * count, how


def vgg_seconds(name: str) -> tuple[float, str]:
    """The same of VGG's inverses by Adam, whose steps cost as the pixels of their photographs."""
    config = Vgg16Channels.from_dict(notebooks.validated(name, "paper", {}))
    result = load_result("vgg16_channels.nc")
    before = provenance(result)["config"]
    adam = result.sel(cascade="adam")
    cores = os.cpu_count() or 1  # its seconds are those of the clock, all cores at work
    pixels = int(adam.steps) * ADAM_BATCH * before["side"] ** 2
    pixel = cores * float(adam.seconds) / pixels
    how = (
        f"vgg16_channels.nc: {pixel * 1e6:.2f} CPU µs a pixel × {config.side}² × "
        f"{config.train_images:,} photographs"
    )
    return pixel * config.side**2 * config.train_images, how


def search_seconds(name: str) -> tuple[float, str]:
    """The same of the published search: at most one training for each depth and each variance.

    A step costs as the number of weights; the networks that the search visits are as deep as the
    grid's middle on average, and their widths fall from the number of pixels to that of classes.
    """
    config = Trainability.from_dict(notebooks.validated(name, "paper", {}))
    about = provenance(load_result("trainability_cifar10.nc"))
    before = about["config"]
    weights = sum(before["depths"]) / len(before["depths"]) * before["width"] ** 2
    step = about["seconds_per_point"] / before["steps"] / weights
    depth = sum(config.trained_depths) / len(config.trained_depths)
    visited = len(config.trained_depths) + len(config.trained_sigma_w2)
    seconds = step * depth * 1024**2 / 3 * config.steps * visited
    how = (
        f"trainability_cifar10.nc: {step * 1e9:.2f} CPU ns a weight and step × {config.steps:,} "
        f"steps × {visited} shrinking networks {depth:.0f} deep"
    )
    return seconds, how


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*")
    parser.add_argument("--profile", choices=("quick", "paper"), help="default: both")
    options = parser.parse_args()
    file = paths.costs_file()
    costs = yaml.safe_load(file.read_text(encoding="utf-8")) if file.exists() else {}
    chosen = [notebooks.resolve(name) for name in options.names]
    for name in chosen or [notebook.name for notebook in notebooks.find()]:
        cost = costs.get(name, {})
        busy = psutil.cpu_percent(interval=5) > BUSY
        cost["hardware"] = stamp()["hardware"]
        if options.profile != "paper":
            cost |= {"quick": run(name, "quick"), "busy": busy}
        if options.profile != "quick":
            cost["paper"] = paper(name)
            measured = cost["paper"]["how"] == "measured"
            cost["busy"] = cost.get("busy", False) or (measured and busy)
        print(name, cost, flush=True)
        costs[name] = cost
        text = "# Written by benchmarks/notebooks.py.\n" + yaml.safe_dump(costs, width=100)
        paths.write_whole(file, text.encode())


if __name__ == "__main__":
    main()
