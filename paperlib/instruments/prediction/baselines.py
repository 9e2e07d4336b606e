"""The predictors that ours must beat: their scores for every depth of an untrained network.

A rule takes a `Task` (a network, images and labels) and returns one score per depth. A higher score
says that a network cut off there is more likely to train. `predictors.Predictor` gives all rules
one signature.
"""

import copy
import math
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import reduce
from statistics import fmean
from typing import Any

import torch
from torch import Tensor, nn

from paperlib import meanfield
from paperlib.activations.factors import gram, linear_grams, recorded_calls
from paperlib.activations.stages import walk
from paperlib.cascade.inverses import activation_of
from paperlib.core.checks import checked
from paperlib.core.seeds import random_numbers
from paperlib.networks import Network, activation_module
from paperlib.networks.kinds import ACTIVATIONS


@dataclass(frozen=True)
class Task:
    """A network of our own, over the weights of the caller's, and the images to predict from."""

    stages: nn.Sequential
    images: Tensor
    labels: Tensor
    classes: int
    seed: int
    stem: int = 0
    shared: dict[str, Any] = field(default_factory=dict)  # what predictors need not make twice

    def generator(self, purpose: str) -> torch.Generator:
        """Random numbers for one purpose, unlike those that `initialise` draws from a seed."""
        return random_numbers(purpose, self.seed)

    def batch(self, size: int) -> "Task":
        """The same with at most `size` of the images, at least 2, chosen at random."""
        size = checked("batch_size", size, int, low=2)
        chosen = torch.randperm(len(self.images), generator=self.generator("batch"))[:size]
        chosen = chosen.to(self.images.device)
        return replace(self, images=self.images[chosen], labels=self.labels[chosen])

    def linear_head(self, features: Tensor) -> Tensor:
        """The weights (classes, features) of a new linear head for features (n, features)."""
        shape = (self.classes, features.shape[1])
        weight = torch.randn(shape, generator=self.generator("readout")) / shape[1] ** 0.5
        return weight.to(features).requires_grad_()

    def features(self) -> Iterator[Tensor]:
        """Yield the output (n, features) of each stage, all of them in one graph."""
        return (outputs.flatten(1) for outputs in walk(self.stages, self.images))

    def losses(self) -> Iterator[tuple[Tensor, Tensor]]:
        """For each level the loss of the network cut off there, and the linear head behind it."""
        for features in self.features():
            linear_head = self.linear_head(features)
            yield nn.functional.cross_entropy(features @ linear_head.T, self.labels), linear_head

    def weights(self) -> list[list[Tensor]]:
        """Each stage's weights, without biases."""
        return [[p for p in stage.parameters() if p.ndim > 1] for stage in self.stages]

    def layers(self, *kinds: type[nn.Module]) -> list[Any]:
        """Each stage's one layer, of these kinds; a ValueError where it has other weights.

        Only activations are known to lie between: what the formulas below assume.
        """
        kinds = kinds or (nn.Linear,)
        found = []
        for level, stage in enumerate(self.stages, start=1):
            owners = [m for m in stage.modules() if list(m.parameters(recurse=False))]
            if len(owners) != 1 or not isinstance(owners[0], kinds):
                wanted = " or ".join(kind.__name__ for kind in kinds)
                held = ", ".join(type(m).__name__ for m in owners) or "no layer with weights"
                raise ValueError(
                    f"this predictor needs one {wanted} layer per stage; stage {level} holds {held}"
                )
            found.append(owners[0])
        return found

    def until(self, end: float) -> Tensor:
        """The score 1 - level/end: falls with depth, and is positive just where level < end."""
        return 1 - torch.arange(1, len(self.stages) + 1, dtype=torch.float64) / end


def make_task(network: Network, images: Tensor, labels: Tensor, seed: int) -> Task:
    """Check the arguments; the weights' memory is shared, gradients, buffers and mode are not."""
    seed = checked("seed", seed, int, low=0)
    if images.shape[1:] != network.image_shape or len(images) < 2:
        expected = ", ".join(str(n) for n in network.image_shape)
        raise ValueError(f"images must be (n >= 2, {expected}), got {tuple(images.shape)}")
    if not images.is_floating_point() or not images.isfinite().all():
        raise ValueError(f"images must be floating point, without NaN or inf; got {images.dtype}")
    if labels.shape != images.shape[:1] or labels.is_floating_point():
        raise ValueError(
            f"labels must be {len(images)} whole numbers, one per image; "
            f"got {tuple(labels.shape)} of {labels.dtype}"
        )
    shared: dict[int, Any] = {id(p): nn.Parameter(p.detach()) for p in network.parameters()}
    own = copy.deepcopy(network, shared).eval()
    like = next(own.parameters(), images)
    images, labels = images.detach().to(like), labels.to(like.device).long()
    with torch.no_grad():
        classes = own(images[:1]).shape[1]
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(f"labels must lie in 0 … {classes - 1}, got {low} … {high}")
    return Task(own.stages, images, labels, classes, seed, network.stem)


def correlation_depth(
    task: Task, *, sigma_w2: float | None = None, sigma_b2: float | None = None
) -> Tensor:
    """`until` 6 ξ_c, with ξ_c the mean-field correlation depth of the network's variances.

    A variance that is not given is estimated, as the mean over all stages: σ_w² is their weights'
    mean square times the fan-in, σ_b² their biases' mean square, 0 where there are none.

    Source: arXiv:1611.01232; of convolutions arXiv:1806.05393.
    """
    layers = task.layers(nn.Linear, nn.Conv2d)
    biases = [_mean_square(layer.bias) for layer in layers if layer.bias is not None]
    if sigma_w2 is None:
        sigma_w2 = fmean(layer.weight[0].numel() * _mean_square(layer.weight) for layer in layers)
    if sigma_b2 is None:
        sigma_b2 = fmean(biases or [0.0])
    kinds = {type(activation_of(stage) or nn.Identity()) for stage in task.stages}
    names = [name for name in ACTIVATIONS if {type(activation_module(name))} == kinds]
    if not names:
        found = ", ".join(sorted(kind.__name__ for kind in kinds))
        raise ValueError(f"mean field knows one of {', '.join(ACTIVATIONS)}; got {found}")
    return task.until(6 * meanfield.correlation_depth(sigma_w2, sigma_b2, activation=names[0]))


def _mean_square(values: Tensor) -> float:
    return float(values.detach().double().square().mean())


def gradient_ratio(task: Task, *, batch_size: int = 128) -> Tensor:
    """-|ln(‖∂L/∂W_1‖ / ‖∂L/∂W_l‖)| of the first and the last stage's weights: at most 0.

    Source: the trainability of arXiv:1611.01232: gradients neither vanish nor explode.
    """
    scores = []
    task = task.batch(batch_size)
    first, *_ = weights = task.weights()
    for level, (loss, _) in enumerate(task.losses()):
        gradients = torch.autograd.grad(loss, first + weights[level], retain_graph=True)
        ratio = _norm(gradients[: len(first)]) / _norm(gradients[len(first) :])
        scores.append(-ratio.log().abs())
    return torch.stack(scores)


def _norm(tensors: tuple[Tensor, ...]) -> Tensor:
    # in float64, where the squares of vanishing gradients still are numbers
    return torch.cat([tensor.flatten() for tensor in tensors]).double().norm()


@torch.no_grad()
def naswot(task: Task, *, batch_size: int = 128) -> Tensor:
    """ln|K_H|, K_H the number of units in which the binary codes of two images agree.

    A unit's bit is the sign of its pre-activation, as for ReLU, and is read from its output: every
    activation here keeps the sign. All units of all stages up to the depth count. -inf where K_H is
    singular, as it is with more images than units + 1.

    Source: Mellor et al. 2021, arXiv:2006.04647.
    """
    task = task.batch(batch_size)
    kernel = torch.zeros(len(task.images), len(task.images), dtype=torch.float64)
    scores = []
    for features in task.features():
        signs = (features > 0).cpu().double() * 2 - 1
        # agreements less disagreements is the codes' product as ±1, and their sum the width
        kernel += (signs @ signs.T + signs.shape[1]) / 2
        values, rounding = _spectrum(kernel)
        scores.append(values.where(values > rounding, 0).log().sum())
    return torch.stack(scores)


def snip(task: Task, *, batch_size: int = 128) -> Tensor:
    """Σ |w ∂L/∂w| over all weights, the linear head's included.

    Source: Lee et al. 2019, arXiv:1810.02340: the connection sensitivity before it is normalised.
    """
    scores, weights = [], []
    task = task.batch(batch_size)
    for stage, (loss, linear_head) in zip(task.weights(), task.losses(), strict=True):
        weights += stage
        gradients = torch.autograd.grad(loss, [*weights, linear_head], retain_graph=True)
        pairs = zip([*weights, linear_head], gradients, strict=True)
        sums = [(w.detach() * g).abs().sum(dtype=torch.float64) for w, g in pairs]
        scores.append(torch.stack(sums).sum())
    return torch.stack(scores)


@torch.no_grad()
def synflow(task: Task) -> Tensor:
    """Return ln Σ θ ∂R/∂θ with R = 1ᵀ |V| |W_l| … |W_1| 1 and V the linear head.

    Images and labels are not read. As in the paper's formula, activations and biases are left
    out. R is linear in each of its l + 1
    factors, so that each adds R to the sum (Euler), and no gradient is needed. R is carried as its
    logarithm: it grows beyond every float.

    Source: Tanaka et al. 2020, arXiv:2006.05467.
    """
    flow = torch.ones(1, task.images[0].numel(), dtype=torch.float64, device=task.images.device)
    logarithm, scores = 0.0, []
    for level, layer in enumerate(task.layers(), start=1):
        flow = flow @ layer.weight.double().abs().T
        total = float(flow.sum())
        logarithm += math.log(total) if total else -math.inf
        flow = flow / total
        last = float((flow @ task.linear_head(flow).abs().T).sum())
        scores.append(logarithm + math.log((level + 1) * last) if total else -math.inf)
    return torch.tensor(scores, dtype=torch.float64)


def ntk_condition(task: Task, *, batch_size: int = 32) -> Tensor:
    """-ln κ, κ = λ_max/λ_min of the neural tangent kernel Θ = J Jᵀ (n, n) of the sum of the logits.

    J holds the gradient with respect to all parameters, the linear head's included, image by image.
    One output stands for all, as in a wide network, where each has the same kernel. A Linear layer
    adds (inputs · inputs′ + 1) (slopes · slopes′) to Θ, with slopes by its pre-activations, so that
    no Jacobian is written down. λ_min counts as no smaller than its rounding error.

    Source: Chen et al. 2021, arXiv:2102.11535.
    """
    task = task.batch(batch_size)
    scores = []
    with recorded_calls(task.layers()) as calls:  # shared by all predictors of the task
        for features in task.features():
            total = (features @ task.linear_head(features).T).sum()
            kernel = task.classes * gram(features)
            kernel = reduce(torch.add, linear_grams(total, calls), kernel)
            scores.append(-_log_condition(kernel))
    return torch.stack(scores)


def _log_condition(kernel: Tensor) -> Tensor:
    if not kernel.isfinite().all():
        return kernel.new_tensor(math.nan)
    values, rounding = _spectrum(kernel)
    return (values[-1] / values[0].clamp(min=rounding)).log()


def _spectrum(kernel: Tensor) -> tuple[Tensor, float]:
    """A kernel's eigenvalues, rising, and how far rounding moves them."""
    values = torch.linalg.eigvalsh(kernel)
    return values, len(values) * torch.finfo(values.dtype).eps * float(values[-1])


def random(task: Task) -> Tensor:
    """Uniform in [0, 1), from the seed and the network's weights: what knowing nothing scores."""
    weights = next(task.stages.parameters()).detach().cpu().double().numpy()
    generator = task.generator(f"network {zlib.crc32(weights.tobytes())}")
    return torch.rand(len(task.stages), generator=generator, dtype=torch.float64)
