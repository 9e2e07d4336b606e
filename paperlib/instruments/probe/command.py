"""What `paperlib probe` reads and writes: a model by its name, pictures, and the report's files."""

import importlib
import os
import sys
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from paperlib.core import paths
from paperlib.core.checks import checked
from paperlib.core.provenance import provenance
from paperlib.datasets import load_dataset
from paperlib.instruments.probe.report import Report

PAGE = """<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><title>{title}</title></head>
<body style="font-family: sans-serif">
<h1>{title}</h1>
{body}</body>
</html>
"""


def model_of(name: str) -> nn.Module:
    """Return the model that MODULE:FACTORY names: an nn.Module, or what the factory returns.

    The module is looked up in the current folder, too.

    Raises:
        ValueError: no such module or name, or something else than a model.
    """
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ValueError(f"the model must be MODULE:FACTORY, e.g. mymodels:build; got {name!r}")
    try:
        found: Any = _imported(module)
        for part in attribute.split("."):
            found = getattr(found, part)
    except ImportError as error:
        raise ValueError(
            f"cannot import {module!r}: {error}; it is looked up in the current folder and among "
            "the installed packages"
        ) from error
    except AttributeError:
        raise ValueError(f"the module {module!r} has no {attribute!r}") from None
    if not isinstance(found, nn.Module) and callable(found):
        try:
            found = found()
        except TypeError as error:
            raise ValueError(
                f"{name} must be callable without arguments and return a model: {error}"
            ) from error
    if not isinstance(found, nn.Module):
        raise ValueError(f"{name} must be or return a torch.nn.Module, got {type(found).__name__}")
    return found


def _imported(module: str) -> Any:
    if module.partition(".")[0] == "torchvision":
        from paperlib.core.vision import torchvision  # noqa: F401 (where a plain import would fail)
    here = os.getcwd()
    sys.path.insert(0, here)
    try:
        return importlib.import_module(module)
    finally:
        sys.path.remove(here)


def pictures_of(
    dataset: str, *, count: int, channels: int | None = None, size: int | None = None
) -> Tensor:
    """Return training pictures (n, channels, height, width) of a data set, in [0, 1].

    Args:
        dataset: a name, a .npz file or a folder.
        count: at most.
        channels: 1 or 3; None is what the data has.
        size: of their sides; None leaves them.

    Raises:
        ValueError: a count or size that is not positive, or data that is not there.
    """
    count = checked("images", count, int, low=1)
    if size is not None:
        size = checked("size", size, int, low=1)
    data = load_dataset(dataset)
    pictures = data.floats("train", limit=count, grey=channels == 1)
    if channels == 3 and pictures.shape[1] == 1:
        pictures = pictures.expand(-1, 3, -1, -1)
    if size is not None:
        pictures = nn.functional.interpolate(
            pictures, (size, size), mode="bilinear", antialias=True
        )
    return pictures.to(torch.float32).contiguous()


def write_report(report: Report, folder: Path) -> list[Path]:
    """Write probe.html, probe.png and probe.csv, each complete or not at all."""
    import io

    import matplotlib.pyplot as plt

    picture = io.BytesIO()
    figure = report.plot()
    figure.savefig(picture, format="png")
    plt.close(figure)
    title = provenance(report.result)["config"]["model"]
    contents = {
        "probe.html": PAGE.format(title=title, body=report.to_html()).encode(),
        "probe.png": picture.getvalue(),
        "probe.csv": report.to_dataframe().to_csv().encode(),
    }
    for name, content in contents.items():
        paths.write_whole(folder / name, content)
    return [folder / name for name in contents]
