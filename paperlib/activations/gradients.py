"""The gradient of every sample alone, of any model, and the empirical tangent kernel they make."""

import warnings
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial, reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vmap
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils._pytree import tree_map

from paperlib.activations.arguments import called_with_parameters
from paperlib.activations.factors import (
    FACTORED,
    NORMS,
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
) -> SampleGradients:
    """Return the gradient of each sample alone, with respect to every parameter that learns.

        per_sample_gradients(model, images, labels).squared_norms()  # {layer: (n,)}

    The model is in evaluation mode meanwhile and left as it was. Linear layers, convolutions and
    norms are differentiated by their factors, which is tried on two samples first; all else by
    torch.func.

    Args:
        model: any module whose samples do not see each other.
        images: (n, *shape); or a dict or tuple of tensors with n samples each, its arguments.
        labels: (n,), whole numbers: the gradients are those of each sample's cross-entropy.
        cotangent: without labels, the gradients are those of Σ cotangent · outputs; of the shape of
            the outputs, for one sample or for all n. None draws one for all samples from the seed.
        chunk: samples at a time; fewer take less memory.
        seed: of the cotangent, and of the model's random numbers meanwhile.

    Raises:
        ProbeError: a batch norm that averages over samples, parameters none of which learns, labels
            or a cotangent of another shape, or a model that stops; names it.

    Source: the factors are those of Goodfellow 2015, arXiv:1510.01799.
    """
    chunk = checked("chunk", chunk, int, low=1)
    return Differentiated(model, images, [(labels, cotangent)], seed=seed).gradients(chunk=chunk)[0]


class Differentiated:
    """A model that is differentiated sample by sample, for several goals by one forward pass.

    Args:
        model, images, seed: as for `per_sample_gradients`.
        goals: labels and a cotangent for each, as for `per_sample_gradients`.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Any,
        goals: Sequence[tuple[Tensor | None, Tensor | None]],
        *,
        seed: int = 0,
    ) -> None:
        self.model = plain_module(model)
        self._seed = checked("seed", seed, int, low=0, high=LARGEST_SEED)
        _check_norms(self.model)
        self._inputs = Inputs.in_order(images, self.model).without_vectors()
        self._run = runner(self.model)
        named = self.model.named_parameters()
        self._learning = {name: p for name, p in named if p.requires_grad}
        count = self._inputs.train
        with untouched(self.model, self._seed):
            example = run_once(self.model, self._run, self._inputs.part(0, 1), lambda *_: None)
            self._goals = [
                goal_of(outputs_in(example), count, labels, cotangent, self._seed)
                for labels, cotangent in goals
            ]
            if not self._learning:
                raise ProbeError(
                    "no parameter of the model learns; set requires_grad of those whose gradients "
                    "are wanted"
                )
            self._names = {id(parameter): name for name, parameter in self._learning.items()}
            with torch.enable_grad():
                self._layers, self.held = self._right_layers()

    def gradients(
        self,
        *,
        chunk: int = CHUNK,
        only: Collection[str] | None = None,
        count: int | None = None,
    ) -> list[SampleGradients]:
        """Return the gradients for each goal.

        Args:
            chunk: samples at a time; fewer take less memory.
            only: names of the parameters that count; None is all that learn.
            count: how many of the samples count, the first ones; None is all.
        """
        count = self._inputs.train if count is None else count
        wanted = [name for name in self._learning if only is None or name in only]
        layers = [layer for layer in self._layers if set(self._named(layer)) <= set(wanted)]
        factored = {name for layer in layers for name in self._named(layer)}
        rest = {name: self._learning[name].detach() for name in wanted if name not in factored}
        pieces: dict[str, list[list[Gradients]]] = {
            name: [[] for _ in self._goals] for name in wanted
        }
        with untouched(self.model, self._seed), torch.enable_grad():
            for first in range(0, count, chunk):
                end = min(first + chunk, count)
                values = self._inputs.part(first, end)
                targets = [some[first:end] for _, some in self._goals]
                for name, found in (
                    *self._by_factors(layers, values, targets),
                    *self._rest(rest, values, targets),
                ):
                    for goal, piece in enumerate(found):
                        pieces[name][goal].append(piece)
        whole = {name: joined(pieces.pop(name)) for name in wanted}
        return [
            SampleGradients({name: found[goal] for name, found in whole.items()})
            for goal in range(len(self._goals))
        ]

    def _named(self, layer: nn.Module) -> list[str]:
        return [self._names[id(parameter)] for parameter in layer.parameters()]

    def _factored_layers(self) -> list[Any]:
        """Layers whose gradients have factors and whose parameters belong to them alone."""
        modules = list(self.model.modules())
        owners = Counter(id(p) for m in modules for p in m._parameters.values() if p is not None)
        return [
            module
            for module in modules
            if type(module) in (*FACTORED, *NORMS)
            and module._parameters.get("weight") is not None
            and all(owners[id(p)] == 1 and id(p) in self._names for p in module.parameters())
        ]

    def _right_layers(self) -> tuple[list[Any], dict[str, float]]:
        """The layers whose factors give the gradients that two samples have alone, and how many
        numbers are held of one sample's gradient, by parameter.

        Other layers are used without being called, or count samples along another axis.
        """
        two = self._inputs.few(2)
        places = torch.arange(2) % self._inputs.train
        targets = [self._goals[0][1][places]]
        true = self._in_turn(self._goals[0][0], two, targets[0])
        held = {name: float(parameter.numel()) for name, parameter in self._learning.items()}
        right: list[Any] = []
        for layer, calls, slopes in self._recorded(self._factored_layers(), two, targets):
            pairs = zip(calls, slopes[0], strict=True)
            if all(len(call.inputs) == len(s) == 2 for call, s in pairs):
                pieces = {name: found[0] for name, found in self._of_layer(layer, calls, slopes, 2)}
                if all(_agree(piece.rows(), true[name]) for name, piece in pieces.items()):
                    right.append(layer)
                    held |= {name: piece.held / 2 for name, piece in pieces.items()}
        return right, held

    def _recorded(
        self, layers: Sequence[Any], values: Any, targets: Sequence[Tensor]
    ) -> Iterator[tuple[Any, list[Call], list[list[Tensor]]]]:
        """Each of these layers, its calls, and their slopes for every goal that has a target."""
        with recorded_calls(layers) as calls:
            outputs = outputs_in(self._run(values))
        slopes = [
            slopes_of(goal(outputs, some), calls)
            for (goal, _), some in zip(self._goals, targets, strict=False)
        ]
        for layer in layers:
            own = [number for number, call in enumerate(calls) if call.layer is layer]
            yield layer, [calls[n] for n in own], [[some[n] for n in own] for some in slopes]

    def _by_factors(
        self, layers: Sequence[Any], values: Any, targets: Sequence[Tensor]
    ) -> Iterator[tuple[str, list[Gradients]]]:
        """The gradients with respect to the parameters of factored layers, by name and goal."""
        if layers:
            for recorded in self._recorded(layers, values, targets):
                yield from self._of_layer(*recorded, len(targets[0]))

    def _of_layer(
        self, layer: Any, calls: list[Call], slopes: list[list[Tensor]], count: int
    ) -> Iterator[tuple[str, list[Gradients]]]:
        for parameter in layer.parameters():
            if not calls:
                nothing = parameter.new_zeros(count, parameter.numel())
                found: list[Gradients] = [Dense(nothing) for _ in slopes]
            elif parameter is layer.weight:
                found = weight_gradients(layer, calls, slopes)
            else:
                found = [bias_gradients(layer, some) for some in slopes]
            yield self._names[id(parameter)], found

    def _rest(
        self, parameters: dict[str, Tensor], values: Any, targets: Sequence[Tensor]
    ) -> Iterator[tuple[str, list[Gradients]]]:
        """The gradients with respect to other parameters, by name and goal: those of all samples
        at once or, where torch has no rule for that, in turn."""
        if not parameters:
            return
        by_goal = []
        for (goal, _), some in zip(self._goals, targets, strict=True):
            of_one = partial(self._of_one, goal)
            try:
                with (
                    warnings.catch_warnings()
                ):  # of operations that vmap takes one sample at a time
                    warnings.filterwarnings("ignore", message="There is a performance drop")
                    found = vmap(grad(of_one), in_dims=(None, 0, 0), randomness="different")(
                        parameters, values, some
                    )
            except (RuntimeError, ValueError, TypeError):
                found = self._in_turn(goal, values, some)
            by_goal.append(found)
        for name in parameters:
            yield (
                name,
                [Dense(found[name].detach().reshape(len(targets[0]), -1)) for found in by_goal],
            )

    def _of_one(
        self, goal: Goal, parameters: dict[str, Tensor], sample: Any, target: Tensor
    ) -> Tensor:
        """What is differentiated of a sample without its axis, for other parameters."""
        values = tree_map(lambda value: value[None], sample)
        result = called_with_parameters(self.model, parameters, values)
        return goal(outputs_in(result), target[None])

    def _in_turn(self, goal: Goal, values: Any, targets: Tensor) -> dict[str, Tensor]:
        """The gradients (n, numbers) of sample after sample, by autograd."""
        found: dict[str, list[Tensor]] = {name: [] for name in self._learning}
        for number in range(len(targets)):
            outputs = outputs_in(self._run(_sample(values, number)))
            total = goal(outputs, targets[number : number + 1])
            rows = gradients(total, list(self._learning.values()))
            for name, row in zip(self._learning, rows, strict=True):
                found[name].append(row.flatten())
        return {name: torch.stack(rows) for name, rows in found.items()}


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
