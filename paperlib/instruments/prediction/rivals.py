"""What others say of whether an untrained model trains: one score for any nn.Module.

    scores = rival_scores(model, images, labels, seed=0)
    scores["grad_cosine"].score  # higher: more likely to train
    scores["grad_cosine"].seconds

Each is its paper's formula on the model as it is, its own last layer included. The model is in
evaluation mode, batch norms that never saw a batch have the statistics of the images, and it is
left exactly as it was. Scores of two rivals cannot be compared. All are finite: infinity becomes
the largest or lowest float64, and a score that is not defined the lowest.
"""

import copy
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from paperlib.activations.guard import plain_module, take_statistics, untouched
from paperlib.activations.inputs import Inputs, runner
from paperlib.activations.kernels import sample_grams
from paperlib.activations.looking import look, places, samples_that_fit
from paperlib.activations.losses import Loss, Parameters
from paperlib.core.checks import checked
from paperlib.core.progress import clock_of
from paperlib.core.seeds import random_numbers
from paperlib.instruments.probe import grams
from paperlib.instruments.probe.lessons import weights_by_name
from paperlib.instruments.probe.signals import signals
from paperlib.instruments.probe.vitals import check_labels
from paperlib.networks import Erf

MEMORY = 2**30  # bytes, about
QUOTIENT = 1e-5  # MetaInit's ε, which keeps the quotient finite
RATES = {"sgd": 0.1, "adam": 1e-3}  # GradInit's η
TRAINED = 0.75  # of the images, that the mean predictor is fitted to
LOWEST = torch.finfo(torch.float64).min


@dataclass(frozen=True)
class Judged:
    """What a rival says of a model, and what it took to say it.

    Attributes:
        score: finite; higher: more likely to train.
        seconds: CPU time; wall-clock time on a GPU.
    """

    score: float
    seconds: float


@dataclass(frozen=True)
class Subject:
    """A model, images and labels to judge it by."""

    model: nn.Module
    images: Any
    labels: Tensor
    seed: int = 0
    size: int = 64  # samples that run at a time

    def batch(self, count: int) -> "Subject":
        """The same with at most so many of the images, chosen at random."""
        generator = random_numbers("batch", self.seed)
        order = torch.randperm(len(self.labels), generator=generator)[:count]
        images = tree_map(lambda value: value[order.to(value.device)], self.images)
        return replace(self, images=images, labels=self.labels[order.to(self.labels.device)])

    def part(self, some: slice) -> "Subject":
        """The same with some of the images."""
        images = tree_map(lambda value: value[some], self.images)
        return replace(self, images=images, labels=self.labels[some])

    def loss(self) -> Loss:
        """The mean cross-entropy, as a function of the parameters."""
        options: dict[str, Any] = {"seed": self.seed, "batch_size": self.size}
        return Loss(self.model, self.images, self.labels, **options)

    def kernel(self, labels: Tensor | None = None) -> Tensor:
        """The products of all parameters' gradients, (n, n)."""
        options: dict[str, Any] = {"memory": MEMORY, "seed": self.seed}
        return reduce(torch.add, sample_grams(self.model, self.images, labels, **options).values())


def rival_scores(
    model: nn.Module,
    images: Any,
    labels: Tensor,
    *,
    names: Iterable[str] | None = None,
    seed: int = 0,
    batch_norm: str = "auto",
) -> dict[str, Judged]:
    """Return what rivals say of a model, and the time that each took.

    Args:
        model: any module whose outputs are (n, classes).
        images: (n, *shape); or a dict or tuple of tensors, as for `probe`.
        labels: (n,), whole numbers.
        names: of RIVALS; None is all.
        seed: of which images each one reads, and of random cotangents.
        batch_norm: as for `probe`.

    Raises:
        ValueError: no such rival, labels that do not fit, a model that stops; names it.
    """
    model = plain_module(model)
    names = [checked("names", name, str, choices=tuple(RIVALS)) for name in names or RIVALS]
    inputs = Inputs.in_order(images, model)
    check_labels(labels, inputs.train)
    with untouched(model, seed):
        size = samples_that_fit(model, inputs, MEMORY)
        take_statistics(model, runner(model), inputs.batches(size), batch_norm)
        subject = Subject(model, inputs.values, labels, seed, size)
        return {name: _judged(RIVALS[name], subject) for name in names}


def _judged(rule: Callable[[Subject], float], subject: Subject) -> Judged:
    clock = clock_of(next(subject.model.parameters()).device.type)
    begin = clock()
    score = rule(subject)
    finite = LOWEST if math.isnan(score) else min(max(score, LOWEST), -LOWEST)
    return Judged(finite, clock() - begin)


def grad_cosine(subject: Subject, *, batch_size: int = 64) -> float:
    """Return 1/n² Σ_ij cos(∇L_i, ∇L_j) of the samples' losses L_i, by all parameters.

    Source: Yang et al. 2022, arXiv:2210.05956, GradCosine, which is made large.
    """
    batch = subject.batch(batch_size)
    return float(grams.cosines(batch.kernel(batch.labels)).mean())


def gradient_quotient(subject: Subject, *, batch_size: int = 64) -> float:
    """Return −1/N Σ |(g − Hg) / (g ± ε) − 1| over the N weights, g and H the loss's derivatives.

    ε = 1e-5 has the sign of g. The images and labels are those given, not random ones.

    Source: Dauphin & Schoenholz 2019, MetaInit, equation 1, which is made small.
    """
    loss = subject.batch(batch_size).loss()
    slopes = loss.gradient()
    products = loss.curvature_along(slopes)
    total, count = 0.0, 0
    for name in _weights(subject.model, slopes):
        g, product = slopes[name].double(), products[name].double()
        sign = torch.where(g >= 0, 1.0, -1.0)
        total += float(((g - product) / (g + QUOTIENT * sign) - 1).abs().sum())
        count += g.numel()
    return -total / max(1, count)


def gradinit(subject: Subject, *, optimiser: str, batch_size: int = 128) -> float:
    """Return −L(S̃, θ − η A[∇L(S, θ)]), A the identity for SGD (η = 0.1), the sign for Adam (1e-3).

    S̃ shares half of its images with S. The constraint on the gradient's norm, which the paper's
    search obeys, plays no part in a score.

    Source: Zhu et al. 2021, GradInit, arXiv:2102.08098, equation 1.
    """
    batch = subject.batch(batch_size * 3 // 2)
    third = max(1, len(batch.labels) // 3)
    loss = batch.part(slice(2 * third)).loss()
    slopes, rate = loss.gradient(), RATES[optimiser]
    steps = slopes if optimiser == "sgd" else {name: g.sign() for name, g in slopes.items()}
    after = {name: p - rate * steps[name] for name, p in loss.parameters.items()}
    return -batch.part(slice(third, None)).loss().value(after)


def tangent_condition(subject: Subject, *, batch_size: int = 64) -> float:
    """Return −ln κ, κ = λ_max/λ_min of the tangent kernel of one random output.

    Source: Xiao, Pennington & Schoenholz 2020, arXiv:1912.13053.
    """
    return -grams.log_condition(subject.batch(batch_size).kernel(), centre=False)


def mean_predictor(subject: Subject, *, batch_size: int = 256) -> float:
    """Return the accuracy of P(Θ) Y = Θ(test, train) Θ(train, train)⁻¹ Y on held-out images.

    Θ is the tangent kernel of one random output, Y are one-hot labels less their mean.

    Source: Xiao, Pennington & Schoenholz 2020, arXiv:1912.13053: what training to the end predicts
    on average.
    """
    batch = subject.batch(batch_size)
    kernel = batch.kernel()
    labels = batch.labels.to(kernel.device)
    train = max(1, min(len(labels) - 1, int(TRAINED * len(labels))))
    classes, place = labels.unique(return_inverse=True)
    targets = nn.functional.one_hot(place[:train], len(classes)).to(kernel)
    solved = torch.linalg.pinv(kernel[:train, :train], hermitian=True) @ (targets - targets.mean(0))
    said = (kernel[train:, :train] @ solved).argmax(1)
    return float((said == place[train:]).double().mean())


def naswot(subject: Subject, *, batch_size: int = 128) -> float:
    """Return ln|K|, K the number of units in which the binary codes of two images agree.

    A unit's bit says whether it returns more than its activation does at 0. Units are those of all
    activation layers; in a model that has none, those of its stages.

    Source: Mellor et al. 2021, arXiv:2006.04647.
    """
    batch, model = subject.batch(batch_size), subject.model
    names = [name for name, module in model.named_modules() if is_activation(module)]
    modules = dict(model.named_modules())
    kernel = torch.zeros(len(batch.labels), len(batch.labels), dtype=torch.float64)
    for stage, values in look(model, batch.images, names or places(model, "auto")):
        at_zero = float(modules[stage.layer](values.new_zeros(1, 1)).max()) if names else 0.0
        signs = (values.flatten(1) > at_zero).cpu().double() * 2 - 1
        kernel += (signs @ signs.T + signs.shape[1]) / 2
    found = torch.linalg.eigvalsh(kernel)
    rounding = len(found) * torch.finfo(found.dtype).eps * float(found[-1])
    return float(found.where(found > rounding, 0).log().sum())


def snip(subject: Subject, *, batch_size: int = 128) -> float:
    """Return Σ |w ∂L/∂w| over all weights.

    Source: Lee et al. 2019, arXiv:1810.02340: the connection sensitivity before it is normalised.
    """
    loss = subject.batch(batch_size).loss()
    slopes, values = loss.gradient(), loss.parameters
    names = _weights(subject.model, slopes)
    return sum(float((values[n] * slopes[n]).abs().sum(dtype=torch.float64)) for n in names)


def synflow(subject: Subject) -> float:
    """Return ln Σ θ ∂R/∂θ, R the sum of the outputs for an image of ones of a copy whose weights
    are positive.

    As in the paper's formula, activations and biases are left out; activations that are no layers
    stay. In float64, since R grows beyond every float32.

    Source: Tanaka et al. 2020, arXiv:2006.05467.
    """
    positive = copy.deepcopy(subject.model).double()
    for parent in list(positive.modules()):
        for name, child in list(parent.named_children()):
            if is_activation(child):
                setattr(parent, name, nn.Identity())
    with torch.no_grad():
        for name, parameter in positive.named_parameters():
            parameter.copy_(parameter.abs() * ("bias" not in name.rpartition(".")[2]))
    ones = tree_map(
        lambda value: torch.ones_like(value[:1]) if value.is_floating_point() else value[:1],
        subject.images,
    )
    with torch.no_grad():
        shape = Inputs.in_order(ones, positive).few(1)
        outputs = runner(positive)(shape)
    loss = Loss(positive, ones, cotangent=torch.ones(outputs.shape[1:]))
    slopes, values = loss.gradient(), loss.parameters
    total = sum(float((values[name] * slopes[name]).sum()) for name in slopes)
    return math.log(total) if total > 0 else LOWEST


def gradient_ratio(subject: Subject, *, batch_size: int = 128) -> float:
    """Return −|ln(‖∂L/∂W_first‖ / ‖∂L/∂W_last‖)|, of the first and the last weights that learn.

    Source: the trainability of arXiv:1611.01232: gradients neither vanish nor explode.
    """
    slopes = subject.batch(batch_size).loss().gradient()
    names = _weights(subject.model, slopes)
    first, last = (float(slopes[name].double().norm()) for name in (names[0], names[-1]))
    return -abs(math.log(first / last)) if first > 0 and last > 0 else LOWEST


def smallest_of_three(numbers: Mapping[str, float]) -> float:
    """Return min(smallest R², gain, 1/gain) of `signals`' numbers; 0 where nothing comes back."""
    kept, gain = numbers["r_squared_smallest"], numbers["gain"]
    return min(kept, gain, 1 / gain) if gain > 0 else min(kept, 0.0)


def is_activation(module: nn.Module) -> bool:
    """Whether a layer is a function of each number alone, without children: ReLU, tanh, …"""
    told = type(module).__module__ == "torch.nn.modules.activation"
    mixing = isinstance(module, nn.Softmax | nn.Softmin | nn.LogSoftmax | nn.Softmax2d | nn.GLU)
    return isinstance(module, Erf) or (told and not mixing and not list(module.children()))


def _weights(model: nn.Module, slopes: Parameters) -> list[str]:
    return [name for name in weights_by_name(model) if name in slopes]


def _of_signals(subject: Subject) -> float:
    found = signals(subject.model, subject.images, seed=subject.seed, batch_norm="running")
    return smallest_of_three(found.numbers)


RIVALS: dict[str, Callable[[Subject], float]] = {
    "grad_cosine": grad_cosine,
    "gradient_quotient": gradient_quotient,
    "gradinit_sgd": lambda subject: gradinit(subject, optimiser="sgd"),
    "gradinit_adam": lambda subject: gradinit(subject, optimiser="adam"),
    "tangent_condition": tangent_condition,
    "mean_predictor": mean_predictor,
    "naswot": naswot,
    "snip": snip,
    "synflow": synflow,
    "gradient_ratio": gradient_ratio,
    "smallest_of_three": _of_signals,
}
