"""Reconstruction entropy: whether a deep network will train, and where it loses information.

    from paperlib import Cascade, initialise, load_dataset, mlp, r_squared

    data = load_dataset("digits")
    network = mlp((1, 28, 28), depth=30)
    initialise(network, sigma_w2=1.7, sigma_b2=0.05, seed=0)
    cascade = Cascade.for_network(network, data.floats("train")[:1]).fit(data.floats("train"))
    test = data.floats("test")
    r_squared(test, cascade.reconstruct(test))  # the fraction of the image left, level by level

Source: arXiv:2406.12916. The notebooks regenerate its figures: `paperlib list`.
"""

import sys as _sys
from importlib.metadata import version as _version
from typing import TYPE_CHECKING

from paperlib.core.lazy import exports
from paperlib.sweep import results

if TYPE_CHECKING:
    from paperlib.cascade import Cascade
    from paperlib.datasets import Dataset, load_dataset
    from paperlib.instruments.prediction.points import PredictorPoint, PredictorSweep
    from paperlib.instruments.probe.probe import probe
    from paperlib.instruments.probe.watching import watch
    from paperlib.instruments.reconstruction.points import CascadePoint, CascadeSweep
    from paperlib.instruments.trainability.points import TrainingSweep
    from paperlib.meanfield import correlation_depth, critical_sigma_w2
    from paperlib.measures import (
        collapse_depth,
        cutoff,
        cutoffs,
        differential_entropy,
        differential_entropy_published,
        gram_entropy,
        r_squared,
        relative_entropy,
    )
    from paperlib.networks import Network, cnn, initialise, mlp, residual_mlp, resnet, vgg16
    from paperlib.sweep import run_search, run_sweep
    from paperlib.sweep.points import measure_point
    from paperlib.sweep.store import load_result
    from paperlib.training import TrainingPoint
else:
    __getattr__ = exports(__name__)

# where users import it from; in the package it belongs to the sweeps that write results
_sys.modules[f"{__name__}.results"] = results

__version__ = _version("reconstruction-entropy")

__all__ = [
    "Cascade",
    "CascadePoint",
    "CascadeSweep",
    "Dataset",
    "Network",
    "PredictorPoint",
    "PredictorSweep",
    "TrainingPoint",
    "TrainingSweep",
    "cnn",
    "collapse_depth",
    "correlation_depth",
    "critical_sigma_w2",
    "cutoff",
    "cutoffs",
    "differential_entropy",
    "differential_entropy_published",
    "gram_entropy",
    "initialise",
    "load_dataset",
    "load_result",
    "measure_point",
    "mlp",
    "probe",
    "r_squared",
    "relative_entropy",
    "residual_mlp",
    "resnet",
    "run_search",
    "run_sweep",
    "vgg16",
    "watch",
]
