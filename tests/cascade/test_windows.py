import itertools

import pytest
import torch
from torch import nn

from paperlib.cascade.windows import Window, transposed_window_of, window_of

STAGES = {
    "plain": [nn.Conv2d(2, 3, 3)],
    "padded": [nn.Conv2d(2, 3, 3, padding=1)],
    "same": [nn.Conv2d(2, 3, 4, padding="same")],
    "strided": [nn.Conv2d(2, 3, 3, stride=2, padding=1)],
    "oblong": [nn.Conv2d(2, 3, (2, 5), stride=(1, 3), padding=(0, 2))],
    "wide stride": [nn.Conv2d(2, 3, 2, stride=3)],
    "even kernel": [nn.Conv2d(2, 3, 4, stride=2, padding=1)],
    "dilated": [nn.Conv2d(2, 3, 3, dilation=2, padding=2)],
    "one by one": [nn.Conv2d(2, 3, 1)],
    "max-pool": [nn.MaxPool2d(2)],
    "overlapping pool": [nn.MaxPool2d(3, stride=2, padding=1)],
    "average": [nn.AvgPool2d(2)],
    "adaptive": [nn.AdaptiveAvgPool2d((3, 4))],
    "pad before": [nn.ZeroPad2d((1, 0, 2, 1)), nn.Conv2d(2, 3, 3, stride=2)],
    "pad behind": [nn.Conv2d(2, 3, 3), nn.CircularPad2d(1)],
    "chain": [nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Conv2d(3, 2, 2), nn.MaxPool2d(2)],
}
SHAPE = (2, 9, 8)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def stage_of(name: str) -> nn.Sequential:
    torch.manual_seed(0)
    stage = nn.Sequential(*STAGES[name]).double()
    for parameter in stage.parameters():
        nn.init.normal_(parameter)
    return stage.requires_grad_(False)


@pytest.mark.parametrize("name", STAGES)
def test_a_window_says_which_pixels_an_output_reads(name: str) -> None:
    stage, images = stage_of(name), normal(1, *SHAPE).requires_grad_()
    outputs = stage(images)
    window = window_of(list(stage), output_shape=outputs.shape[1:], input_shape=SHAPE)
    assert window is not None
    border = 1 if name == "pad behind" else 0  # there an output repeats one from the other side
    for row in range(border, outputs.shape[2] - border):
        for column in range(border, outputs.shape[3] - border):
            value = outputs[0, :, row, column].square().sum()
            (slopes,) = torch.autograd.grad(value, images, retain_graph=True)
            read = slopes[0].abs().sum(0).nonzero()
            for axis, place in enumerate((row, column)):
                first = window.stride[axis] * place - window.offset[axis]
                last = first + window.reach[axis] - 1
                seen = read[:, axis].unique().tolist()
                assert first <= seen[0] <= seen[-1] <= last
                if not any(isinstance(layer, nn.MaxPool2d) for layer in stage):
                    every = range(first, last + 1, window.dilation[axis])
                    assert seen == [pixel for pixel in every if 0 <= pixel < SHAPE[1 + axis]]


@pytest.mark.parametrize(("layers", "shape"), [
    ([nn.Conv1d(2, 3, 4, stride=3, padding=2)], (2, 11)),
    ([nn.ConstantPad1d((2, 1), 0.0), nn.Conv1d(2, 3, 3, stride=2)], (2, 9)),
    ([nn.Conv1d(2, 3, 3, padding="same"), nn.AvgPool1d(2)], (2, 8)),
    ([nn.AdaptiveAvgPool1d(3)], (2, 9)),
    ([nn.Conv3d(1, 2, (1, 3, 2), stride=(2, 1, 2), padding=(0, 2, 1))], (1, 4, 3, 5)),
    ([nn.ConstantPad3d((1, 0, 0, 2, 3, 0), 0.0), nn.Conv3d(1, 2, 3)], (1, 4, 3, 3)),
    ([nn.AvgPool3d(2), nn.Conv3d(1, 2, 2)], (1, 4, 6, 5)),
], ids=str)  # fmt: skip
def test_a_window_has_as_many_axes_as_the_field(layers: list[nn.Module], shape: tuple) -> None:
    stage, inputs = nn.Sequential(*layers).double(), normal(1, *shape).requires_grad_()
    outputs = stage(inputs)
    window = window_of(layers, output_shape=outputs.shape[1:], input_shape=shape)
    assert window is not None
    for place in itertools.product(*map(range, outputs.shape[2:])):
        value = outputs[(0, slice(None), *place)].square().sum()
        (slopes,) = torch.autograd.grad(value, inputs, retain_graph=True)
        read = slopes[0].abs().sum(0).nonzero()
        for axis, at in enumerate(place):
            first = window.stride[axis] * at - window.offset[axis]
            every = range(first, first + window.reach[axis], window.dilation[axis])
            if len(read):  # else padding alone
                inside = [pixel for pixel in every if 0 <= pixel < shape[1 + axis]]
                assert read[:, axis].unique().tolist() == inside


@pytest.mark.parametrize(("layers", "shape"), [
    ([nn.ConvTranspose1d(2, 3, 3, stride=2, padding=1, output_padding=1)], (2, 5)),
    ([nn.ConvTranspose2d(2, 3, (2, 3), stride=(3, 2), dilation=(1, 2), padding=(0, 2))], (2, 4, 3)),
    ([nn.ConvTranspose1d(2, 3, 2, stride=2), nn.ConvTranspose1d(3, 2, 3, stride=3)], (2, 4)),
    ([nn.ConvTranspose3d(1, 2, 2, stride=2, padding=1)], (1, 3, 2, 3)),
], ids=str)  # fmt: skip
def test_a_transposed_window_says_which_outputs_an_input_is_written_to(
    layers: list[nn.Module], shape: tuple
) -> None:
    stage = nn.Sequential(*layers).double()
    window = transposed_window_of(layers, input_shape=shape)
    assert window is not None
    nothing = stage(torch.zeros(1, *shape, dtype=torch.float64))
    for place in itertools.product(*map(range, shape[1:])):
        one = torch.zeros(1, *shape, dtype=torch.float64)
        one[(0, slice(None), *place)] = 1
        written = (stage(one) - nothing)[0].abs().sum(0).nonzero()
        for axis, at in enumerate(place):
            first = window.stride[axis] * at - window.offset[axis]
            every = range(first, first + window.reach[axis], window.dilation[axis])
            inside = [pixel for pixel in every if 0 <= pixel < nothing.shape[2 + axis]]
            if len(written):
                assert written[:, axis].unique().tolist() == inside


@pytest.mark.parametrize("layers", [
    [], [nn.Conv1d(2, 3, 3)], [nn.ConvTranspose2d(2, 3, 3)],
    [nn.ConvTranspose1d(2, 3, 3), nn.MaxPool1d(2)],
], ids=["nothing", "convolution", "two axes", "pooled"])  # fmt: skip
def test_layers_that_are_not_all_transposed_have_no_transposed_window(
    layers: list[nn.Module],
) -> None:
    assert transposed_window_of(layers, input_shape=(2, 9)) is None


@pytest.mark.parametrize("layers", [
    [], [nn.Upsample(scale_factor=2)], [nn.Conv1d(2, 3, 3)], [nn.AdaptiveAvgPool2d(2)],
    [nn.AdaptiveAvgPool2d(3), nn.Conv2d(2, 2, 1)],
], ids=["nothing", "upsample", "one axis", "uneven", "adaptive and more"])  # fmt: skip
def test_layers_without_one_window_have_none(layers: list[nn.Module]) -> None:
    assert window_of(layers, output_shape=(2, 2, 2), input_shape=(2, 9, 9)) is None


def test_a_window_grows_to_whole_blocks() -> None:
    assert Window((3, 3), (2, 1), (1, 1), (1, 1)).in_blocks() == Window(
        (4, 3), (2, 1), (1, 1), (2, 1)
    )
    assert Window((2, 2), (2, 2), (1, 1), (0, 0)).in_blocks().kernel == (2, 2)
    assert Window((3, 3), (1, 1), (2, 2), (2, 2)).in_blocks() == Window(
        (5, 5), (1, 1), (1, 1), (2, 2)
    )
