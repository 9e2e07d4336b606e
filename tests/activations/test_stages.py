"""A chain of stages run one after the other: against the same modules called as a whole."""

import pytest
import torch
from torch import Tensor, nn

from paperlib.activations.stages import FixedStage, of_stages, output_of, walk


@pytest.fixture
def stages() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Flatten(),
        nn.Sequential(nn.Linear(6, 5), nn.Dropout(), nn.ReLU(inplace=True)),
        nn.ReLU6(inplace=True),
        nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Tanh()),
    )


IMAGES = torch.linspace(-1, 1, 42).view(7, 1, 2, 3)


def test_a_level_is_the_output_of_so_many_stages(stages: nn.Sequential) -> None:
    found = of_stages(stages, IMAGES)
    assert list(found) == [1, 2, 3, 4]
    stages.eval()
    for level, activations in found.items():
        torch.testing.assert_close(activations, stages[:level](IMAGES), rtol=0, atol=0)


def test_parts_of_the_images_give_the_same_and_only_wanted_levels_are_returned(
    stages: nn.Sequential,
) -> None:
    whole, parts = (of_stages(stages, IMAGES, {3, 1}, batch_size=size) for size in (None, 2))
    assert list(whole) == list(parts) == [1, 3]
    for level, activations in whole.items():
        torch.testing.assert_close(activations, parts[level])
    torch.testing.assert_close(output_of(stages[:3], IMAGES), whole[3], rtol=0, atol=0)
    assert output_of([], IMAGES) is IMAGES


def test_no_stage_runs_behind_the_deepest_wanted_level(stages: nn.Sequential) -> None:
    stages.append(nn.Linear(99, 1))  # would raise
    assert list(of_stages(stages, IMAGES, [4])) == [4]


@pytest.mark.parametrize("abandoned", [False, True])
def test_modes_statistics_and_images_are_as_they_were(
    stages: nn.Sequential, abandoned: bool
) -> None:
    stages[1][1].eval()
    modes = [module.training for module in stages.modules()]
    before, images = [b.clone() for b in stages.buffers()], IMAGES.clone()
    walked = walk(stages, images)
    for _ in range(2 if abandoned else 4):
        next(walked)
        assert [module.training for module in stages.modules()] == modes
    assert all(map(torch.equal, before, stages.buffers()))
    assert torch.equal(images, IMAGES)


def test_an_activation_stays_as_it_is_when_the_next_stage_writes_in_place() -> None:
    stages = [nn.Linear(3, 3), nn.ReLU(inplace=True)]
    first, second = of_stages(stages, torch.randn(5, 3)).values()
    assert (first < 0).any()
    torch.testing.assert_close(second, first.relu())


def test_a_walk_takes_gradients_where_torch_does(stages: nn.Sequential) -> None:
    *_, last = walk(stages, IMAGES)
    assert last.requires_grad
    assert not of_stages(stages, IMAGES)[4].requires_grad


def test_a_stage_in_half_precision_returns_float32_and_takes_any_precision() -> None:
    stage = FixedStage(nn.Linear(3, 2).bfloat16())
    outputs: Tensor = stage(torch.rand(4, 3, dtype=torch.float64))
    assert output_of([stage], torch.ones(4, 3)).dtype == torch.float32
    assert outputs.dtype == torch.float32
