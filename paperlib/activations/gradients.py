"""The gradient of every sample alone, of any model, and the empirical tangent kernel they make."""

import warnings
from collections import Counter
from collections.abc import Collection, Iterator
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map

from paperlib.activations.arguments import called_with_parameters
from paperlib.activations.factors import (
    FACTORED,
    Call,
    Dense,
    Gradients,
    bias_gradients,
    gradients,
    joined,
    recorded_calls,
    slopes_of,
    weight_gradients,
)
from paperlib.activations.goals import Goal, goal_of, outputs_in
from paperlib.activations.guard import plain_module, untouched
from paperlib.activations.inputs import Inputs, runner
from paperlib.activations.tracing import ProbeError, run_once
from paperlib.core.checks import LARGEST_SEED, checked

CHUNK = 64  # samples that are differentiated at a time


class SampleGradients:
    """The gradients of n samples with respect to every parameter that learns.

        found = per_sample_gradients(model, images)
        found.gram()  # (n, n), the empirical neural tangent kernel

    Weights of Linear layers and convolutions are held as factors where these are smaller.
    """

    def __init__(self, parts: dict[str, Gradients]) -> None:
        self._parts = parts

    @property
    def names(self) -> list[str]:
        """The dotted names of the parameters, in the order of the matrix."""
        return list(self._parts)

    def matrix(self) -> Tensor:
        """Return all gradients, (n, numbers in the parameters): for small models."""
        return torch.cat([part.rows() for part in self._parts.values()], 1)

    def gram(self) -> Tensor:
        """Return all products of two samples' gradients, (n, n) in float64, without the matrix."""
        return reduce(torch.add, self.grams().values())

    def grams(self) -> dict[str, Tensor]:
        """Return what each parameter adds to these products, (n, n) in float64, by its name."""
        return {name: part.gram() for name, part in self._parts.items()}

    def held(self) -> dict[str, int]:
        """Return how many numbers are held of each parameter's gradients, by its name."""
        return {name: part.held for name, part in self._parts.items()}

    def squared_norms(self) -> dict[str, Tensor]:
        """Return the squared length of each sample's gradient, (n,) in float64, layer by layer."""
        found: dict[str, Tensor] = {}
        for name, part in self._parts.items():
            layer = name.rpartition(".")[0]
            found[layer] = found.get(layer, 0) + part.squared()
        return found


def per_sample_gradients(
    model: nn.Module,
    images: Any,
    labels: Tensor | None = None,
    *,
    cotangent: Tensor | None = None,
    chunk: int = CHUNK,
    seed: int = 0,
    only: Collection[str] | None = None,
) -> SampleGradients:
    """Return the gradient of each sample alone, with respect to every parameter that learns.

        per_sample_gradients(model, images, labels).squared_norms()  # {layer: (n,)}

    The model is in evaluation mode meanwhile and left as it was. Linear layers and convolutions are
    differentiated by their factors, which is tried on two samples first; all else by torch.func.

    Args:
        model: any module whose samples do not see each other.
        images: (n, *shape); or a dict or tuple of tensors with n samples each, its arguments.
        labels: (n,), whole numbers: the gradients are those of each sample's cross-entropy.
        cotangent: without labels, the gradients are those of Σ cotangent · outputs; of the shape of
            the outputs, for one sample or for all n. None draws one for all samples from the seed.
        chunk: samples at a time; fewer take less memory.
        seed: of the cotangent, and of the model's random numbers meanwhile.
        only: names of the parameters that count; None is all that learn.

    Raises:
        ProbeError: a batch norm that averages over samples, parameters none of which learns, labels
            or a cotangent of another shape, or a model that stops; names it.

    Source: the factors are those of Goodfellow 2015, arXiv:1510.01799.
    """
    model = plain_module(model)
    chunk = checked("chunk", chunk, int, low=1)
    seed = checked("seed", seed, int, low=0, high=LARGEST_SEED)
    _check_norms(model)
    inputs = Inputs.in_order(images, model).without_vectors()
    with untouched(model, seed):
        example = outputs_in(run_once(model, runner(model), inputs.part(0, 1), lambda *_: None))
        goal, targets = goal_of(example, inputs.train, labels, cotangent, seed)
        with torch.enable_grad():
            return SampleGradients(_Work(model, goal, only).parts(inputs, targets, chunk))


class _Work:
    """One model, differentiated sample by sample."""

    def __init__(self, model: nn.Module, goal: Goal, only: Collection[str] | None) -> None:
        self.model, self.goal, self.run = model, goal, runner(model)
        self.learning = {
            name: parameter
            for name, parameter in model.named_parameters()
            if parameter.requires_grad and (only is None or name in only)
        }
        if not self.learning:
            raise ProbeError(
                "no parameter of the model learns; set requires_grad of those whose gradients are "
                "wanted"
            )
        self.names = {id(parameter): name for name, parameter in self.learning.items()}
        self.layers = self._factored_layers()

    def parts(self, inputs: Inputs, targets: Tensor, chunk: int) -> dict[str, Gradients]:
        """The gradients with respect to each parameter, in the model's order."""
        self._check_layers(inputs.few(2), targets[torch.arange(2) % len(targets)])
        found: dict[str, list[Gradients]] = {name: [] for name in self.learning}
        for first in range(0, inputs.train, chunk):
            end = min(first + chunk, inputs.train)
            values, wanted = inputs.part(first, end), targets[first:end]
            for name, piece in (*self._by_factors(values, wanted), *self._rest(values, wanted)):
                found[name].append(piece)
        return {name: joined(pieces) for name, pieces in found.items()}

    def _factored_layers(self) -> list[Any]:
        """Layers whose gradients have factors and whose parameters belong to them alone."""
        modules = list(self.model.modules())
        owners = Counter(id(p) for m in modules for p in m._parameters.values() if p is not None)
        return [
            module
            for module in modules
            if type(module) in FACTORED
            and module._parameters.get("weight") is not None
            and all(owners[id(p)] == 1 and id(p) in self.names for p in module.parameters())
        ]

    def _check_layers(self, two: Any, targets: Tensor) -> None:
        """Keep the layers whose factors give the gradients that two samples have alone.

        Others are used without being called, or count samples along another axis.
        """
        true = self._in_turn(two, targets)
        right: list[Any] = []
        for layer, calls, slopes in self._recorded(two, targets):
            if all(len(call.inputs) == len(s) == 2 for call, s in zip(calls, slopes, strict=True)):
                pieces = self._of_layer(layer, calls, slopes, 2)
                if all(_agree(piece.rows(), true[name]) for name, piece in pieces):
                    right.append(layer)
        self.layers = right

    def _recorded(
        self, values: Any, targets: Tensor
    ) -> Iterator[tuple[Any, list[Call], list[Tensor]]]:
        """Each factored layer, its calls, and their slopes."""
        with recorded_calls(self.layers) as calls:
            total = self._total(values, targets)
        slopes = slopes_of(total, calls)
        for layer in self.layers:
            own = [number for number, call in enumerate(calls) if call.layer is layer]
            yield layer, [calls[number] for number in own], [slopes[number] for number in own]

    def _by_factors(self, values: Any, targets: Tensor) -> Iterator[tuple[str, Gradients]]:
        """The gradients with respect to the parameters of factored layers, by name."""
        if self.layers:
            for recorded in self._recorded(values, targets):
                yield from self._of_layer(*recorded, len(targets))

    def _of_layer(
        self, layer: Any, calls: list[Call], slopes: list[Tensor], count: int
    ) -> Iterator[tuple[str, Gradients]]:
        for parameter in layer.parameters():
            if not calls:
                found: Gradients = Dense(parameter.new_zeros(count, parameter.numel()))
            elif parameter is layer.weight:
                found = weight_gradients(layer, calls, slopes)
            else:
                found = bias_gradients(layer, slopes)
            yield self.names[id(parameter)], found

    def _rest(self, values: Any, targets: Tensor) -> Iterator[tuple[str, Gradients]]:
        """The gradients with respect to all other parameters, by name: those of all samples at
        once or, where torch has no rule for that, in turn."""
        done = {self.names[id(p)] for layer in self.layers for p in layer.parameters()}
        rest = {name: p.detach() for name, p in self.learning.items() if name not in done}
        if not rest:
            return
        try:
            with warnings.catch_warnings():  # of operations that vmap takes one sample at a time
                warnings.filterwarnings("ignore", message="There is a performance drop")
                found = vmap(grad(self._of_one), in_dims=(None, 0, 0), randomness="different")(
                    rest, values, targets
                )
        except (RuntimeError, ValueError, TypeError):
            found = self._in_turn(values, targets)
        for name in rest:
            yield name, Dense(found[name].detach().reshape(len(targets), -1))

    def _of_one(self, parameters: dict[str, Tensor], sample: Any, target: Tensor) -> Tensor:
        """What is differentiated of a sample without its axis, for other parameters."""
        values = tree_map(lambda value: value[None], sample)
        result = called_with_parameters(self.model, parameters, values)
        return self.goal(outputs_in(result), target[None])

    def _in_turn(self, values: Any, targets: Tensor) -> dict[str, Tensor]:
        """The gradients (n, numbers) of sample after sample, by autograd."""
        found: dict[str, list[Tensor]] = {name: [] for name in self.learning}
        for number in range(len(targets)):
            total = self._total(_sample(values, number), targets[number : number + 1])
            rows = gradients(total, list(self.learning.values()))
            for name, row in zip(self.learning, rows, strict=True):
                found[name].append(row.flatten())
        return {name: torch.stack(rows) for name, rows in found.items()}

    def _total(self, values: Any, targets: Tensor) -> Tensor:
        return self.goal(outputs_in(self.run(values)), targets)


def _sample(values: Any, number: int) -> Any:
    """The arguments of one sample, with its axis."""
    return tree_map(lambda value: value[number : number + 1].clone(), values)


def _agree(found: Tensor, true: Tensor) -> bool:
    """Whether gradients are equal but for rounding."""
    tolerance = 10 * torch.finfo(true.dtype).eps ** 0.5
    return bool((found - true).norm() <= tolerance * true.norm())


def _check_norms(model: nn.Module) -> None:
    for name, module in model.named_modules():
        if isinstance(module, _BatchNorm) and (module.training or module.running_mean is None):
            raise ProbeError(
                f"the batch norm {name!r} averages over the batch, so that no sample has a "
                "gradient of its own; call model.eval() first, or use a norm over one sample"
            )
