"""The one import of torchvision; all else says `from paperlib.core.vision import torchvision`.

Where torch and torchvision come from different builds (CPU torch, CUDA torchvision), torchvision's
compiled operators do not load, and a plain `import torchvision` dies with "operator
torchvision::nms does not exist". This package needs only its datasets, transforms and models,
none of which call those operators, so the missing schemas are declared and the import goes on.
"""

import importlib
import sys
from types import ModuleType

import torch

__all__ = ["torchvision"]

_SCHEMAS = {
    "nms": "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms": "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
}

# A schema lives only as long as the library object that declared it.
_LIBRARY = torch.library.Library("torchvision", "FRAGMENT")


def _declare_missing_operators() -> None:
    for name, schema in _SCHEMAS.items():
        if not hasattr(torch.ops.torchvision, name):
            _LIBRARY.define(schema)


def _forget_torchvision() -> None:
    """Drop what a failed import left behind, so that the next import starts afresh."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "torchvision"]:
        del sys.modules[name]


def _import_torchvision() -> ModuleType:
    # The plain import comes first: schemas declared before matching compiled operators load
    # would collide with theirs.
    try:
        return importlib.import_module("torchvision")
    except RuntimeError as error:
        if "operator torchvision::" not in str(error):
            raise
    _forget_torchvision()
    _declare_missing_operators()
    return importlib.import_module("torchvision")


torchvision = _import_torchvision()
