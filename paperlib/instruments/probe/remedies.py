"""Initialisations that would help: what is known of activations, and gains taken from the images.

    changes = changes_of(model, patient)
    losses = {
        change.rule: loss_after(change.apply(copy.deepcopy(model)), patient) for change in changes
    }

Only weights that look drawn at random are changed. Which initialisation is best is decided by what
each one learns in a short training by Adam at 1e-3, the optimiser that one takes without a thought.
"""

import copy
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from paperlib.activations.inputs import Inputs
from paperlib.activations.tuning import looks_drawn, unit_variance, weights_of
from paperlib.core.seeds import random_numbers
from paperlib.instruments.probe.examination import SAMPLES, Examination
from paperlib.instruments.probe.sizes import activation_after, fitting_for
from paperlib.instruments.probe.trial import ShortTraining, operations

AS_IS, KNOWN, LAYERS, LSUV = "as it is", "known gains", "layer by layer", "LSUV"
RULES = (AS_IS, KNOWN, LAYERS, LSUV)
RATE, STEPS, FEWEST = 1e-3, 100, 30  # of Adam; where steps are dear they are fewer
DEAREST = 1.7e11  # floating-point operations of all trainings: seconds, on one core
AHEAD = 0.1  # of what a model has itself learnt by then, that another rule must be ahead
LEARNT = 0.05  # of the loss of guessing; less is nothing learnt


@dataclass(frozen=True, eq=False)
class Change:
    """What is done to a model's parameters.

    Attributes:
        rule: one of RULES, or "one factor".
        drawn: weights that take the place of others, orthonormal, by name.
        factors: of weights, by name, after that.
        zeroed: names of biases that become 0.
    """

    rule: str = AS_IS
    drawn: Mapping[str, Tensor] = field(default_factory=dict)
    factors: Mapping[str, float] = field(default_factory=dict)
    zeroed: tuple[str, ...] = ()

    @torch.no_grad()
    def apply(self, model: nn.Module) -> nn.Module:
        """Change the model in place, and return it."""
        named = dict(model.named_parameters())
        for name, weight in self.drawn.items():
            named[name].copy_(weight)
        for name, factor in self.factors.items():
            named[name].mul_(factor)
        for name in self.zeroed:
            named[name].zero_()
        return model


@dataclass(frozen=True)
class Patient:
    """What a probe hands on of a model and its samples.

    Attributes:
        values: the model's arguments, see `Inputs`.
        labels: of the samples.
        fits: σ_w² of weights as they are and as the activation behind them needs it, by name.
        stuck: σ_w² for weights that are all one number, or zeros that never move, by name.
        seed: of the model's random numbers, and of the batches.
    """

    values: object
    labels: Tensor
    fits: Mapping[str, tuple[float, float]]
    stuck: Mapping[str, float]
    seed: int


def patient_of(found: Examination, values: object, labels: Tensor, *, seed: int) -> Patient:
    """Return what changes need of an examination."""
    fits: dict[str, tuple[float, float]] = {}
    stuck: dict[str, float] = {}
    for weight in found.weights:
        after = activation_after(found, weight.node)
        fit = None if after is None else fitting_for(after)
        if weight.same_rows or (weight.rms == 0 and not weight.gradient > 0):
            stuck[weight.parameter] = 1.0 if fit is None else fit.sigma_w2
        elif fit is not None and weight.rms > 0:
            fits[weight.parameter] = weight.sigma_w2, fit.sigma_w2
    return Patient(values, labels, fits, stuck, seed)


def changes_of(model: nn.Module, patient: Patient) -> Iterator[Change]:
    """Yield the initialisations to try: none, known gains, and outputs of variance 1 layer by
    layer, from the weights as they are and from orthonormal ones.

    Sources: see `sizes.fitting_for`; Mishkin and Matas 2016, arXiv:1511.06422 (LSUV).
    """
    yield Change()
    free = {n: w for n, w in weights_of(model).items() if w.requires_grad and looks_drawn(w)}
    known = {
        name: math.sqrt(wanted / now)
        for name, (now, wanted) in patient.fits.items()
        if name in free
    }
    drawn = {  # an orthonormal matrix has the variance 1 / its longer side
        name: math.sqrt(wanted * max(1.0, len(free[name]) / free[name][0].numel()))
        for name, wanted in patient.stuck.items()
        if name in free
    }
    if known or drawn:
        factors = known | drawn
        yield Change(KNOWN, _orthonormal(free, drawn), factors, _biases(model, list(factors)))
    for rule, anew in ((LAYERS, {}), (LSUV, _orthonormal(free, free))):
        begin = Change(rule, anew).apply(copy.deepcopy(model))
        inputs = Inputs.in_order(patient.values, begin)
        some = inputs.part(0, min(SAMPLES, inputs.train))
        found = unit_variance(begin, some, free, seed=patient.seed)
        if found:
            yield Change(rule, anew, found, _biases(model, list(found)))


def _orthonormal(weights: Mapping[str, Tensor], names: Iterable[str]) -> dict[str, Tensor]:
    """Orthonormal weights of the same shapes."""
    return {
        name: nn.init.orthogonal_(
            torch.empty(weights[name].shape), generator=random_numbers(f"draw {name}", 0)
        )
        for name in names
    }


def _biases(model: nn.Module, weights: Sequence[str]) -> tuple[str, ...]:
    """Names of the biases beside these weights that learn."""
    learning = {name for name, p in model.named_parameters() if p.requires_grad}
    names = [name.removesuffix("weight") + "bias" for name in weights]
    return tuple(name for name in names if name in learning)


def steps_for(model: nn.Module, patient: Patient) -> int:
    """Return how many steps the short training of each change may have; 0 where that is too few."""
    inputs = Inputs.in_order(patient.values, model).without_vectors()
    steps = min(STEPS, int(DEAREST / operations(model, inputs, len(RULES))))
    return steps if steps >= FEWEST else 0


def loss_after(network: nn.Module, patient: Patient, steps: int = STEPS) -> float:
    """Return the loss that a network comes to in a short training; infinite if it diverges."""
    inputs = Inputs.in_order(patient.values, network).without_vectors()
    learning = [p for p in network.parameters() if p.requires_grad]
    optimiser = torch.optim.Adam(learning, RATE, fused=all(p.is_floating_point() for p in learning))
    labels = patient.labels.to(inputs.device)
    training = ShortTraining(network, inputs, labels, optimiser, patient.seed)
    training.go(steps)
    return training.loss


def guessing(labels: Tensor) -> float:
    """Return the loss of a model that knows how frequent labels are, and nothing else."""
    shares = labels.bincount().double() / len(labels)
    return float(torch.special.entr(shares).sum())


def best_of(losses: Mapping[str, float], guess: float) -> str | None:
    """Return the rule whose loss is least; that of no change where none is clearly ahead of it;
    None where no rule has made the model learn.

    Args:
        losses: after a short training, by rule; AS_IS is among them.
        guess: the loss of guessing.
    """
    best = min(losses, key=lambda rule: losses[rule])
    if losses[best] > (1 - LEARNT) * guess:
        return None
    learnt = max(0.0, guess - losses[AS_IS])
    return best if losses[best] < losses[AS_IS] - AHEAD * learnt else AS_IS
