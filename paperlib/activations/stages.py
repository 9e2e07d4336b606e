"""Stages, one after the other: the one place where the package runs a network in parts."""

from collections.abc import Collection, Iterable, Iterator

import torch
from torch import Tensor, nn


class FixedStage(nn.Module):
    """A stage as a fixed function: in evaluation mode, its input untouched, float32 at least."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage
        self.dtype = next((p.dtype for p in stage.parameters()), None)
        self.in_place = any(getattr(module, "inplace", False) for module in stage.modules())

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.dtype is None else x.to(self.dtype)
        modes = [(module, module.training) for module in self.stage.modules()]
        try:
            self.stage.eval()
            outputs = self.stage(x.clone() if self.in_place else x)
        finally:
            for module, mode in modes:
                module.training = mode
        return outputs.to(torch.promote_types(outputs.dtype, torch.float32))


def walk(stages: Iterable[nn.Module], images: Tensor) -> Iterator[Tensor]:
    """Yield the output of every stage in turn, each made from the one before.

    The stages run in evaluation mode and are in their own mode between two outputs. Where torch
    takes gradients, all outputs are in one graph.

    Args:
        stages: one after the other.
        images: (n, *image_shape), left as they are.
    """
    for stage in stages:
        fixed = stage if isinstance(stage, FixedStage) else FixedStage(stage)
        images = fixed(images)
        yield images


@torch.no_grad()
def of_stages(
    stages: Iterable[nn.Module],
    images: Tensor,
    levels: Collection[int] | None = None,
    *,
    batch_size: int | None = None,
) -> dict[int, Tensor]:
    """Return the activations (n, *shape) of images by level; level l is the output of l stages.

        of_stages(network.stages, images, [2, 5])  # {2: …, 5: …}

    Args:
        stages: one after the other, run in evaluation mode and as far as the deepest level only.
        images: (n, *image_shape).
        levels: from 1 to the number of stages; None is all of them.
        batch_size: images that run at a time, None all of them; fewer take less memory.
    """
    stages = list(stages)
    levels = range(1, len(stages) + 1) if levels is None else levels
    parts: dict[int, list[Tensor]] = {level: [] for level in sorted(levels)}
    deepest = max(parts, default=0)
    for some in images.split(batch_size or max(1, len(images))):
        for level, activations in enumerate(walk(stages[:deepest], some), start=1):
            if level in parts:
                parts[level].append(activations)
    return {
        level: found[0] if len(found) == 1 else torch.cat(found) for level, found in parts.items()
    }


@torch.no_grad()
def output_of(stages: Iterable[nn.Module], images: Tensor) -> Tensor:
    """Return what comes out behind the last of these stages, (n, *shape); see `walk`.

    Without stages that is what goes in.
    """
    outputs = images
    for made in walk(stages, images):
        outputs = made
    return outputs
