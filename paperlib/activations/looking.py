"""The activations of any model by stage: `look`, and what a probe of many images is made of."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from paperlib.activations.arguments import runner
from paperlib.activations.calls import Called
from paperlib.activations.flow import tensors_in
from paperlib.activations.guard import plain_module, untouched
from paperlib.activations.inputs import Inputs
from paperlib.activations.tracing import Layers, ProbeError, Stage, read_once, run_once, stages_of
from paperlib.core.checks import LARGEST_SEED, checked

BATCH = 64  # images that run through the model at a time


def look(
    model: nn.Module,
    images: Any,
    layers: Layers = "auto",
    *,
    seed: int = 0,
    batch_size: int = BATCH,
) -> list[tuple[Stage, Tensor]]:
    """Return what every stage of a model makes of images, in the order in which stages end.

        for stage, activation in look(model, images):
            print(stage.name, activation.shape)

    All is computed before the first pair is returned, and nothing of the model changes: it runs in
    evaluation mode, without gradients, and gets its modes, buffers, hooks and random numbers back.

    Args:
        model: any module; a compiled one is looked at as it was before.
        images: (n, *shape); or a dict or tuple of tensors with n samples each, the model's
            arguments. They go to the model's device and take its precision.
        layers: "auto", the stages of a network of this package and otherwise every place where all
            paths from the input to the output meet; dotted names (`relu#2` is the second call of
            `relu`); or a function of name and module that picks layers. Fewer take less memory.
        seed: of the model's random numbers meanwhile.
        batch_size: images that run through the model at a time.

    Returns:
        pairs of a stage, with its `name` and `shape`, and its activations (n, *shape), detached, on
        the model's device.

    Raises:
        ProbeError: no such layer, or images that the model does not take; names the layer.
    """
    model = plain_module(model)
    seed = checked("seed", seed, int, low=0, high=LARGEST_SEED)
    batch_size = checked("batch_size", batch_size, int, low=1)
    with untouched(model, seed):
        inputs = Inputs.in_order(images, model)
        count, found = inputs.train, dict[int, Tensor]()
        stages = stages_in(model, inputs, layers)
        for first in range(0, count, batch_size):
            end = min(first + batch_size, count)

            def take(number: int, value: Tensor, first: int = first, end: int = end) -> None:
                if number not in found:
                    found[number] = value.new_empty(count, *value.shape[1:])
                found[number][first:end] = value  # a copy: later layers may write into it

            visit(model, inputs.part(first, end), dict(enumerate(stages)), take)
    return [(stage, found[number]) for number, stage in enumerate(stages)]


def features(model: nn.Module, images: Any, *, seed: int = 0) -> list[Tensor]:
    """Return what the stages in front of a model's head make of images, each (n, numbers).

    Example:
        >>> import torch
        >>> from paperlib.activations import features
        >>> model = torch.nn.Sequential(
        ...     torch.nn.Linear(8, 6), torch.nn.Tanh(), torch.nn.Linear(6, 3)
        ... )
        >>> [tuple(values.shape) for values in features(model, torch.rand(5, 8))]
        [(5, 6)]

    Args:
        model, images, seed: as for `look`. A last stage with fewer numbers than the one before it
            is the head, but in networks of this package, whose stages have none.
    """
    found = [values.flatten(1) for _, values in look(model, images, seed=seed)]
    sizes = [values.shape[1] for values in found]
    headed = len(found) > 1 and sizes[-1] < sizes[-2] and places(model, "auto") == "auto"
    return found[: len(found) - headed]


def places(model: nn.Module, layers: Layers) -> Layers:
    """Return where to look: for "auto", a model's own `stage_names` if it has them."""
    return (
        getattr(model, "stage_names", layers)
        if isinstance(layers, str) and layers == "auto"
        else layers
    )


def stages_in(
    model: nn.Module, inputs: Inputs, layers: Layers, *, operations: bool = False
) -> list[Stage]:
    """Return the stages at which a model is looked at, see `tracing.stages_of`.

    Args:
        model: in the mode in which it is to run, see `guard.untouched`.
        inputs: its arguments, of which a few samples run.
        layers: where to look, as for `look`.
        operations: also between the operations of stages that hold many weights, as a probe does.
    """
    two, three, changed = map(inputs.pick, ((0, 1), (0, 1, 2), (0, 3, 2)))
    return stages_of(
        model,
        runner(model),
        (two, three),
        inputs.source_of(two),
        places(model, layers),
        operations=operations,
        changed=changed,
    )


def samples_that_fit(model: nn.Module, inputs: Inputs, memory: float) -> int:
    """Return how many samples may run at a time: half the memory, as two of them say.

    Args:
        model: in the mode in which it is to run, see `guard.untouched`.
        inputs: its arguments.
        memory: in bytes, for the outputs of all layers.
    """
    two = inputs.few(2)
    numbers = 0

    def record(layer: str, call: int, outputs: Any) -> None:
        nonlocal numbers
        numbers += sum(tensor.numel() for tensor in tensors_in(outputs))

    run_once(model, runner(model), two, record)
    return int(min(BATCH, max(2, memory / 2 / (4 * max(1, numbers / 2)))))


@torch.no_grad()
def visit(
    model: nn.Module,
    values: Any,
    stages: Mapping[int, Stage],
    take: Callable[[int, Tensor], None],
) -> None:
    """Run a model once, and call `take(number, activation)` whenever one of the stages ends.

    Args:
        model: in the mode in which it is to run, see `guard.untouched`.
        values: its arguments for n samples.
        stages: by number.
        take: is given (n, *shape) as the layer returned it; what it wants to have later it copies.

    Raises:
        ProbeError: the model stopped, or did not come by all stages; names the layer.
    """

    def taken(number: int, value: Tensor) -> None:
        take(number, stages[number].samples(value))

    visit_whole(model, values, stages, taken)


def visit_whole(
    model: nn.Module,
    values: Any,
    stages: Mapping[int, Stage],
    take: Callable[[int, Tensor], Callable[[], None] | None],
) -> Any:
    """Do as `visit` with the tensors themselves, as layers returned them; return the result.

    What `take` returns is called once autograd has seen the tensor.
    """
    wanted: dict[Any, list[int]] = {}
    for number, stage in stages.items():
        wanted.setdefault(stage.operation or Called(stage.layer, stage.call), []).append(number)
    missing = set(stages)

    def told(key: Any, outputs: Any) -> list[Callable[[], None]]:
        tensors = list(tensors_in(outputs))
        missing.difference_update(wanted[key])
        found = [take(number, tensors[stages[number].place]) for number in wanted[key]]
        return [each for each in found if each is not None]

    result = read_once(model, runner(model), values, wanted, told)
    if missing:
        name = stages[min(missing)].name
        raise ProbeError(f"layer {name!r} was called for some images and not for others")
    return result
