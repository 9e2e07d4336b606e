"""Residual blocks of other packages: modules whose forward adds a skip, found by running them."""

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from paperlib.activations.flow import Operation, between
from paperlib.activations.tracing import ProbeError, recorded
from paperlib.cascade.windows import CONVOLUTIONS, TRANSPOSED
from paperlib.networks import Erf, ResidualBlock

_WEIGHTED = (nn.Linear, *CONVOLUTIONS, *TRANSPOSED)
_BOUNDED: dict[str, type[nn.Module]] = {"tanh": nn.Tanh, "erf": Erf, "sigmoid": nn.Sigmoid}
_ENDS = _BOUNDED | {"relu": nn.ReLU}  # operations by their names in torch

Path = tuple[tuple[nn.Module, type[nn.Module] | None], ...]


class ForeignBlock(nn.Module):
    """A stage that adds a skip in a way of its own, and what one run of it says.

    Attributes:
        stage: the module itself.
        path: its convolutions or Linear layers without the skip, from the input to the output, if
            they run one after the other, and what bounded the input of each; empty otherwise.
        has_unit: whether tanh, erf or sigmoid is among its operations.
    """

    def __init__(self, stage: nn.Module, path: Path, operations: list[str]) -> None:
        super().__init__()
        self.stage = stage
        self.path = path
        self.has_unit = any(name in _BOUNDED for name in operations)
        self._ends_in = _ENDS.get(operations[-1])

    @property
    def ends_in(self) -> nn.Module | None:
        """The activation that it ends in: tanh, erf, sigmoid or ReLU."""
        return self._ends_in() if self._ends_in else None

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.stage(x)
        return result


@torch.no_grad()
def recognised(stage: nn.Module, fixed: nn.Module, example: Tensor) -> nn.Module:
    """Return the stage, as a ForeignBlock where that is what it is.

    Args:
        stage: any; one of Sequentials and our own blocks is returned as it is, and not run.
        fixed: the same as a function that leaves its input as it was.
        example: an input, (1, *shape).
    """
    parts = list(stage.modules())
    known = all(isinstance(part, nn.Sequential) for part in parts if any(part.children()))
    if known or any(isinstance(part, ResidualBlock | ForeignBlock) for part in parts):
        return stage
    example = example.clone()
    try:
        calls, flow, sink = recorded(fixed, fixed, example, example)
    except ProbeError:
        return stage
    used = between(flow.operations, {}, 0, sink)
    names = [operation.name.rstrip("_") for operation in used]
    if not any(name == "add" and len(o.parents) > 1 for name, o in zip(names, used, strict=True)):
        return stage
    modules = dict(fixed.named_modules())
    weighted = [call for call in calls if isinstance(modules[call.layer], _WEIGHTED)]
    layers = {call.node: modules[call.layer] for call in weighted}
    shapes = {call.node: call.shape for call in weighted}
    fitting = [
        [(layers[node], bound) for node, bound in chain]
        for chain in (list(_chain(flow.operations, layers, node))[::-1] for node in layers)
        if _fits(chain, layers, shapes, example) and shapes[chain[-1][0]] == calls[-1].shape
    ]
    longest: list[tuple[nn.Module, type[nn.Module] | None]] = max(fitting, key=len, default=[])
    return ForeignBlock(stage, tuple(longest), names)


def _chain(
    operations: list[Operation], layers: dict[int, nn.Module], node: int
) -> Iterator[tuple[int, type[nn.Module] | None]]:
    """The layers from one back to the input, and what bounded the input of each, as far as no
    paths meet."""
    begin, bound = node, None
    while len(operations[node].parents) == 1:
        (node,) = operations[node].parents
        bound = bound or _BOUNDED.get(operations[node].name.rstrip("_"))
        if node in layers or node == 0:
            yield begin, bound
            begin, bound = node, None


def _fits(
    chain: list[tuple[int, type[nn.Module] | None]],
    layers: dict[int, nn.Module],
    shapes: dict[int, tuple[int, ...]],
    example: Tensor,
) -> bool:
    """Whether the layers alone, one after the other, make the shapes that they made in the run."""
    for node, _ in chain:
        weight = next(layers[node].parameters())
        try:
            example = layers[node](example.to(weight.dtype))
        except RuntimeError:
            return False
        if tuple(example.shape) != shapes[node]:
            return False
    return bool(chain)
