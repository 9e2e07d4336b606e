"""A trial: short trainings on a probe's samples, in units of the parameters' own lengths.

    found = trial(model, inputs, labels)
    found["trial_accuracy"]  # on samples that it has not learnt from, at the best of a few rates

Each training begins with the same weights and takes the same batches. No scaling of a ReLU layer
against its successor changes anything, nor does any unit of the gradients: see `Lars`.
"""

import copy
import math

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from paperlib.activations.goals import outputs_in
from paperlib.activations.inputs import Inputs, runner
from paperlib.instruments.probe.lessons import units_of
from paperlib.training import train
from paperlib.training.lars import Lars

RATES = (3e-3, 1e-2, 3e-2)  # of each parameter's length, in a step
STEPS = 60  # of each training
LAST = 10  # of them, over which its loss is the mean
BATCH = 32  # samples in a step
JUDGED = 1 / 3  # of the samples, that it does not learn from
DEAREST = 1e12  # floating-point operations of all trainings; a dearer trial is not made


def trial(model: nn.Module, inputs: Inputs, labels: Tensor, *, seed: int) -> dict[str, float]:
    """Return what a model has learnt after a few short trainings.

    Cost: 180 steps of 32 samples, and a forward pass of a third of the samples for each rate.

    Args:
        model: any module in evaluation mode; copies of it learn.
        inputs: the samples, none held out; a third of them, the last, judge what was learnt.
        labels: (n,), whole numbers.
        seed: of the batches.

    Returns:
        `trial_accuracy`, the best share of the judging samples that a training is right about at
        its end; `trial_loss`, the least mean loss of the last ten steps, left out where all
        diverge; nothing where the trainings would take more than `DEAREST`, or where the model
        cannot be copied.

    Raises:
        StopsLearning: the model stops in training mode, with the reason.
    """
    inputs = inputs.without_vectors()
    if operations(model, inputs) > DEAREST or not _can_be_copied(model):
        return {}
    labels = labels.to(inputs.device)
    learn = len(labels) - max(1, round(JUDGED * len(labels)))
    units, accuracies, losses = units_of(model), [0.0], [math.inf]
    for rate in RATES:
        network = copy.deepcopy(model).train()
        named = {name: p for name, p in network.named_parameters() if p.requires_grad}
        optimiser = Lars(named, rate, lengths={name: units[name] ** 0.5 for name in named})
        try:
            with torch.enable_grad():
                curve = train(
                    _OnSamples(network, inputs),
                    (torch.arange(learn, device=labels.device), labels[:learn]),
                    optimiser=optimiser, steps=STEPS, batch_size=BATCH, seed=seed,
                )  # fmt: skip
        except Exception as error:  # whatever somebody's module does in training mode
            raise StopsLearning(f"{type(error).__name__}: {' '.join(str(error).split())}") from None
        if len(curve) == STEPS and all(map(math.isfinite, curve)):
            losses.append(sum(curve[-LAST:]) / LAST)
            accuracies.append(_accuracy(network.eval(), inputs, labels, learn))
    return {"trial_accuracy": max(accuracies), "trial_loss": min(losses)}


class StopsLearning(Exception):
    """A model works in evaluation mode and stops in training mode."""


def _can_be_copied(model: nn.Module) -> bool:
    try:
        copy.deepcopy(model)
    except Exception:  # whatever somebody's module holds
        return False
    return True


def operations(model: nn.Module, inputs: Inputs) -> float:
    """Return about how many floating-point operations a trial takes: three of a forward pass for
    each sample of each step, and of every parameter one where nothing is counted."""
    counter = FlopCounterMode(display=False)
    with counter, torch.no_grad():
        runner(model)(inputs.few(2))
    forward = counter.get_total_flops() / 2
    least = 2 * sum(p.numel() for p in model.parameters())
    return 3.0 * max(forward, least) * BATCH * STEPS * len(RATES)


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
