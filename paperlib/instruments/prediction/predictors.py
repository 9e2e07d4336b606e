"""Predictors of trainability: from an untrained network and some images to one score per depth.

    prediction = PREDICTORS["r_squared_ridge"](network, images, labels, seed=0)
    prediction.scores  # (depth,); higher: a network of this depth is more likely to train
    prediction.seconds

The network cut off at a depth is the network's first stages and, where a predictor needs logits or
a loss, a new linear head in place of the network's: one layer without bias, N(0, 1/features),
drawn from `seed` alone, so that it is the same at all depths of equal width. Options go by keyword
(`steps`, `rtol`, `batch_size`, `sigma_w2`, …; see each rule) and are bound with functools.partial.

The scores of one predictor can be compared between networks; those of two predictors cannot. All
are finite: infinity becomes the largest or lowest float64, and a score that is NaN (the network
overflows, its gradients are all zero, a measure is not defined) the lowest.

Cost, in stages passed: O(depth) for NASWOT, SynFlow and ξ_c, and for the fit of a reconstruction,
whose at most 100 held-out images may go back in O(depth²); O(depth²) for the gradient ratio, SNIP
and κ, which share one forward pass and go back once from each depth.
"""

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from paperlib import measures
from paperlib.cascade import Cascade
from paperlib.core.progress import clock_of
from paperlib.instruments.prediction import baselines
from paperlib.instruments.prediction.baselines import Task, make_task
from paperlib.instruments.prediction.names import BASELINES, DEPTHS_REACHED, RECONSTRUCTED
from paperlib.instruments.reconstruction.points import RTOL
from paperlib.networks import Network

ADAM_STEPS = 100  # of the inverses' fit, as in the notebooks' comparison of solvers
MOST_HELD_OUT = 100  # images that reconstructions are measured on, as published


@dataclass(frozen=True)
class Prediction:
    """What a predictor says, and what it took to say it.

    Attributes:
        scores: (depth,), float64, finite; higher: more likely to train, if cut off there.
        seconds: CPU time of the call; wall-clock time on a GPU.
    """

    scores: Tensor
    seconds: float


@dataclass(frozen=True)
class Predictor:
    """One rule behind the signature that all predictors share.

    Attributes:
        rule: from a task, or where there is a `fit` from a task and its reconstructions, to scores.
        fit: options of the cascade's fit, for rules that measure reconstructions.
    """

    rule: Callable[..., Tensor]
    fit: Mapping[str, Any] | None = None

    def __call__(
        self, network: Network, images: Tensor, labels: Tensor, *, seed: int, **options: Any
    ) -> Prediction:
        """The scores at every depth. Neither the network nor a global generator is touched.

        Args:
            network: initialised, not trained.
            images: (n, *image_shape), n >= 2, floating point, values in [0, 1].
            labels: (n,), whole numbers from 0 to the network's classes - 1.
            seed: of the linear head and of every choice among the images.
            options: of the rule, or of the fit.

        Raises:
            ValueError: an argument that is not as above, or a network the rule cannot take.
        """
        return self.judge(make_task(network, images, labels, seed), **options)

    def judge(self, task: Task, **options: Any) -> Prediction:
        """The same of a task that several predictors may judge; each is charged for its whole fit,
        which is computed once."""
        clock = clock_of(task.images.device.type)
        begin, before = clock(), 0.0
        with torch.enable_grad():
            if self.fit is None:
                scores = self.rule(task, **options)
            else:
                own = {"rtol": options.pop("rtol")} if "rtol" in options else {}
                found, before = _reconstructions(task, {**self.fit, **options}, clock)
                scores = self.rule(task, found, **own)
        lowest = torch.finfo(torch.float64).min
        scores = scores.detach().double().cpu()[task.stem :]
        scores = scores.nan_to_num(nan=lowest, posinf=-lowest, neginf=lowest)
        return Prediction(scores, clock() - begin + before)


@dataclass(frozen=True)
class _Reconstructions:
    """Held-out images, and how an untrained network's cascade brings them back."""

    images: Tensor  # (n, *image_shape)
    pictures: Tensor  # (depth, n, *image_shape)
    mean: Tensor  # of the images that the inverses were fitted to


def _reconstructions(
    task: Task, fit: Mapping[str, Any], clock: Callable[[], float]
) -> tuple[_Reconstructions, float]:
    """The task's reconstructions by this fit, and the seconds they took if that was before.

    A fifth of the images, 2 to 100 of them, is held out; the inverses are fitted to the others.
    """
    key, begin = repr(sorted(fit.items())), clock()
    if key in task.shared:
        return task.shared[key]
    if len(task.images) < 4:
        raise ValueError(f"a reconstruction needs at least 4 images, got {len(task.images)}")
    images = task.batch(len(task.images)).images
    held_out = min(max(len(images) // 5, 2), MOST_HELD_OUT)
    test, train = images[:held_out], images[held_out:]
    cascade = Cascade.for_network(task.stages, train[:1]).fit(train, seed=task.seed, **fit)
    found = _Reconstructions(test, cascade.reconstruct(test), train.mean(0))
    task.shared[key] = found, clock() - begin
    return found, 0.0


def _measured(
    task: Task, found: _Reconstructions, *, measure: str, rtol: float = RTOL["mlp"]
) -> Tensor:
    """How much of the images came back, at every depth.

    `measure` is R², gram entropy, differential entropy or minus the mean relative entropy; the two
    depths become scores by `until`: its end is the collapse depth, or the depth after the
    cutoff, so that a network that never collapses still scores above 0 at its last depth.
    """
    with warnings.catch_warnings():
        # what cannot be measured is NaN, and NaN is the lowest score
        warnings.simplefilter("ignore", RuntimeWarning)
        if measure == "gram_entropy":
            return measures.gram_entropy(found.pictures)
        if measure == "differential_entropy":
            return measures.differential_entropy(found.pictures)
        if measure in ("r_squared", "collapse_depth"):
            curve = measures.r_squared(found.images, found.pictures, mean=found.mean)
            return curve if measure == "r_squared" else task.until(measures.collapse_depth(curve))
        curves = measures.relative_entropy(found.images, found.pictures)
        if measure == "relative_entropy":
            return -curves.mean(1)
        return task.until(measures.cutoff(curves, rtol=rtol) + 1)


_FITS: dict[str, dict[str, Any]] = {
    "ridge": {"solver": "ridge"},
    "adam": {"solver": "adam", "steps": ADAM_STEPS},
}
PREDICTORS: dict[str, Predictor] = {
    f"{name}_{solver}": Predictor(partial(_measured, measure=name), fit)
    for solver, fit in _FITS.items()
    for name in (*RECONSTRUCTED, *DEPTHS_REACHED)
} | {name: Predictor(getattr(baselines, name)) for name in BASELINES}
