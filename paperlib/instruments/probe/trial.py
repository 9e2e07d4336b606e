"""A trial: short trainings on a probe's samples, in units of the parameters' own lengths.

    found = trial_of(model, inputs, labels, seed=0)
    found["trial_accuracy"]  # on samples that it has not learnt from, at the best of a few rates

Each training begins with the same weights and takes the same batches; after some steps the best go
on alone (successive halving, arXiv:1502.07943). No scaling of a ReLU layer against its successor
changes anything, nor does any unit of the gradients: see `Lars`.
"""

import copy
import itertools
import math

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.utils.flop_counter import FlopCounterMode

from paperlib.activations.goals import outputs_in
from paperlib.activations.inputs import Inputs, runner
from paperlib.instruments.probe.lessons import units_of
from paperlib.training import batches, train
from paperlib.training.lars import Lars

RATES = (3e-4, 1e-3, 3e-3, 1e-2, 3e-2)  # of each parameter's length, in a step
FIRST, KEPT, THEN = 16, 2, 50  # steps of each training; how many go on, and for how many more
STEPS = FIRST * len(RATES) + THEN * KEPT  # of all trainings
LAST = 10  # steps of a training over which its loss is the mean
BATCH = 32  # samples in a step
JUDGED = 1 / 3  # of the samples, that it does not learn from
DEAREST = 1e12  # floating-point operations of all trainings; a dearer trial is not made


def trial_of(model: nn.Module, inputs: Inputs, labels: Tensor, *, seed: int) -> dict[str, float]:
    """Return what a model has learnt after a few short trainings.

    Cost: 180 steps of 32 samples, and two forward passes of a third of the samples.

    Args:
        model: any module in evaluation mode; copies of it learn.
        inputs: the samples, none held out; a third of them, the last, judge what was learnt.
        labels: (n,), whole numbers.
        seed: of the batches.

    Returns:
        `trial_accuracy`, the best share of the judging samples that a training is right about at
        its end; `trial_loss`, the least mean loss of the last ten steps, infinite where all
        diverge; nothing where the trainings would take more than `DEAREST`, or where the model
        cannot be copied.

    Raises:
        StopsLearning: the model stops in training mode, with the reason.
    """
    inputs = inputs.without_vectors()
    if operations(model, inputs) > DEAREST:
        return {}
    try:
        networks = [copy.deepcopy(model) for _ in RATES]
    except Exception:  # whatever somebody's module holds
        return {}
    labels = labels.to(inputs.device)
    learn = len(labels) - max(1, round(JUDGED * len(labels)))
    lengths = {name: math.sqrt(unit) for name, unit in units_of(model).items()}
    trainings = [
        ShortTraining(
            network, inputs, labels[:learn], Lars(_learning(network), rate, lengths=lengths), seed
        )
        for network, rate in zip(networks, RATES, strict=True)
    ]
    try:
        for training in trainings:
            training.go(FIRST)
        trainings = sorted(trainings, key=lambda training: training.loss)[:KEPT]
        for training in trainings:
            training.go(THEN)
    except Exception as error:  # whatever somebody's module does in training mode
        raise StopsLearning(f"{type(error).__name__}: {' '.join(str(error).split())}") from None
    found = [training for training in trainings if math.isfinite(training.loss)]
    accuracies = [_accuracy(each.network.eval(), inputs, labels, learn) for each in found]
    losses = [training.loss for training in found]
    return {
        "trial_accuracy": max(accuracies, default=0.0),
        "trial_loss": min(losses, default=math.inf),
    }


class ShortTraining:
    """A training that goes on in parts.

    Attributes:
        network: a copy of the model.
        loss: the mean of the last steps; infinite once one was not finite.
    """

    def __init__(
        self, network: nn.Module, inputs: Inputs, labels: Tensor, optimiser: Optimizer, seed: int
    ) -> None:
        self.network, self.inputs, self.optimiser = network.train(), inputs, optimiser
        orders = (each.to(labels.device) for each in batches(len(labels), BATCH, seed))
        self.feed = ((numbers, labels[numbers]) for numbers in orders)
        self.loss = math.inf

    def go(self, steps: int) -> None:
        """Take some more steps."""
        with torch.enable_grad():
            curve = train(
                _OnSamples(self.network, self.inputs),
                itertools.islice(self.feed, steps),
                optimiser=self.optimiser,
            )
        finite = len(curve) == steps and all(map(math.isfinite, curve))
        self.loss = sum(curve[-LAST:]) / len(curve[-LAST:]) if finite else math.inf


class StopsLearning(Exception):
    """A model works in evaluation mode and stops in training mode."""


def _learning(network: nn.Module) -> dict[str, nn.Parameter]:
    return {name: p for name, p in network.named_parameters() if p.requires_grad}


def operations(model: nn.Module, inputs: Inputs, steps: int = STEPS) -> float:
    """Return about how many floating-point operations trainings take: three of a forward pass for
    each sample of each step, and of every parameter one where nothing is counted."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        runner(model)(inputs.few(2))
    forward = counter.get_total_flops() / 2
    least = 2 * sum(p.numel() for p in model.parameters())
    return 3.0 * max(forward, least) * BATCH * steps


class _OnSamples(nn.Module):
    """A model as a function of the samples' numbers."""

    def __init__(self, network: nn.Module, inputs: Inputs) -> None:
        super().__init__()
        self.network, self.inputs = network, inputs

    def forward(self, numbers: Tensor) -> Tensor:
        return outputs_in(runner(self.network)(self.inputs.pick(numbers)))


@torch.no_grad()
def _accuracy(network: nn.Module, inputs: Inputs, labels: Tensor, first: int) -> float:
    """The share of the samples from the first on that a network is right about."""
    right = 0.0
    for numbers in torch.arange(first, len(labels)).split(BATCH):
        outputs = _OnSamples(network, inputs)(numbers)
        good = (outputs.argmax(1) == labels[numbers]) & outputs.isfinite().all(1)
        right += float(good.sum())
    return right / (len(labels) - first)
