"""Whether a model sees samples one by one, and the same each time: two things to know first."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from paperlib.activations.guard import same_numbers, seed_all
from paperlib.activations.inputs import Inputs
from paperlib.activations.looking import visit
from paperlib.activations.tracing import Stage

LOOKED_AT = 8  # samples of one batch
EXACT = 1e-4  # of the activations' size, below which two runs are the same; of half precision 0.02
EXACT_IN_HALF = 0.02

Found = dict[int, Tensor]  # activations (n, numbers) by the number of the stage


class Mixed(NamedTuple):
    """Samples of a batch that influence each other: which, and the first layer where they do."""

    which: str
    layer: str

    def __str__(self) -> str:
        what = f"samples of a batch influence each other from layer {self.layer!r} on"
        return f"{self.which}: {what}" if self.which else what


def first_of_all(
    model: nn.Module, inputs: Inputs, stages: Sequence[Stage], devices: Sequence[int] = ()
) -> tuple[list[str], Mixed | None]:
    """Return in words whether a run draws random numbers, and whether samples influence each other.

    Batch norms that average over a batch are left out of it: they are meant to.

    Args:
        model: in the mode in which it is to run, see `guard.untouched`.
        inputs: its arguments, of more samples than are looked at.
        stages: where its samples are compared.
        devices: GPUs whose random numbers are the same in two runs.
    """
    count = min(LOOKED_AT, len(inputs.source) - 1)
    here = inputs.pick(range(count))
    middle = count // 2  # some see only samples before them, others only those after
    changed = inputs.pick([count if place == middle else place for place in range(count)])
    exact = EXACT_IN_HALF if inputs.source.dtype.itemsize < 4 else EXACT
    with _no_batch_norms(model):
        first: Found = {}
        with same_numbers(devices):
            _run(model, here, stages, lambda number, value: first.__setitem__(number, value))
        with same_numbers(devices):
            other = _differences(model, changed, stages, first)
        with same_numbers(devices):
            seed_all(1, devices)  # any but that of the runs before
            again = _differences(model, here, stages, first)
    sizes = {number: float(value.norm()) for number, value in first.items()}
    mixed = _mixed(other, sizes, stages, exact, middle)
    return _random(again, sizes, stages, exact), mixed


def _run(
    model: nn.Module, values: Any, stages: Sequence[Stage], take: Callable[[int, Tensor], None]
) -> None:
    """Give finite activations (n, numbers) to a function, by the number of the stage."""

    def taken(number: int, value: Tensor) -> None:
        if value.isfinite().all():
            take(number, value.flatten(1).float().clone())

    visit(model, values, dict(enumerate(stages)), taken)


def _differences(
    model: nn.Module, values: Any, stages: Sequence[Stage], first: Found
) -> dict[int, Tensor]:
    """How far each sample's activations are from those of the first run, by stage."""
    found: dict[int, Tensor] = {}

    def take(number: int, value: Tensor) -> None:
        if number in first:
            found[number] = (value - first[number]).norm(dim=1).cpu()

    _run(model, values, stages, take)
    return found


def _random(
    again: Found, sizes: dict[int, float], stages: Sequence[Stage], exact: float
) -> list[str]:
    for number in sorted(again):
        differs = float(again[number].norm()) / max(sizes[number], 1e-30)
        if differs > exact:
            return [
                f"forward() draws random numbers: two runs of the same images differ by "
                f"{differs:.0%} of their size at layer {stages[number].name!r}; below, both "
                "neighbours get the same"
            ]
    return []


def _mixed(
    other: Found, sizes: dict[int, float], stages: Sequence[Stage], exact: float, sample: int
) -> Mixed | None:
    """The first stage, or the output, where samples changed with another one."""
    mixed: dict[int, int] = {}
    for number in sorted(other):
        rows = other[number].clone()
        rows[sample] = 0
        if float(rows.max()) > exact * sizes[number] / len(rows) ** 0.5:
            mixed[number] = int(rows.argmax())
    if not mixed:
        return None
    begin, last = min(mixed), len(stages) - 1
    row, name = mixed.get(last, mixed[begin]), stages[begin].name
    where = "the output" if last in mixed else f"layer {name!r}"
    return Mixed(f"row {row} of {where} depends on sample {sample}", name)


@contextmanager
def _no_batch_norms(model: nn.Module) -> Iterator[None]:
    """A model whose batch norms that average over the batch pass on what they get."""
    norms = [
        module
        for module in model.modules()
        if isinstance(module, _BatchNorm) and (module.running_mean is None or module.training)
    ]
    for norm in norms:
        vars(norm)["forward"] = lambda x: x
    try:
        yield
    finally:
        for norm in norms:
            vars(norm).pop("forward", None)
