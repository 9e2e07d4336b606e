"""Residual blocks of other packages: recognised by one run, and what is known of them."""

import pytest
import torch
from torch import nn

from paperlib.activations.stages import FixedStage
from paperlib.cascade.convolutions import Chain, ConvolutionInverse
from paperlib.cascade.foreign import ForeignBlock, recognised
from paperlib.cascade.inverses import activation_of, bounds_of, has_unit, inverse_of
from paperlib.cascade.linear import Inverse, LinearInverse
from paperlib.cascade.transposed import TransposedInverse
from paperlib.core.vision import torchvision
from paperlib.networks import ResidualBlock

SHAPE = (4, 8, 6)
BasicBlock = torchvision.models.resnet.BasicBlock
Bottleneck = torchvision.models.resnet.Bottleneck


class Skipped(nn.Module):
    """x + layers(x), made anew by `after` and cut to the size of layers(x)."""

    def __init__(self, *layers: nn.Module, after=lambda x: x) -> None:
        super().__init__()
        self.after = after
        self.last_first = nn.ModuleList(layers[::-1])  # their order says nothing

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = x
        for layer in reversed(self.last_first):
            y = layer(y)
        cut = [slice(None)] * 2 + [
            slice((a - b) // 2, (a - b) // 2 + b)
            for a, b in zip(x.shape[2:], y.shape[2:], strict=True)
        ]
        return self.after(x[tuple(cut)] + y)


class Enlarged(nn.Module):
    """A block that doubles the sides of its input, along both of its paths."""

    def __init__(self) -> None:
        super().__init__()
        self.spread = nn.ConvTranspose2d(4, 4, 2, stride=2)
        self.convolution = nn.Conv2d(4, 4, 3, padding=1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        short = nn.functional.interpolate(x, scale_factor=2)
        return short + self.convolution(torch.relu(self.spread(x)))


class Squeezed(nn.Module):
    """Squeeze and excitation: a path within the path, which the walk back must not follow."""

    def __init__(self) -> None:
        super().__init__()
        self.squeeze = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Sigmoid())
        self.first, self.second = nn.Conv2d(4, 4, 3, padding=1), nn.Conv2d(4, 4, 5, padding=2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.second(torch.tanh(self.first(x)))
        return x + y * self.squeeze(y)


def downsampled(inner: type[nn.Module] = BasicBlock) -> nn.Module:
    wide = 8 * inner.expansion
    down = nn.Sequential(nn.Conv2d(4, wide, 1, stride=2), nn.BatchNorm2d(wide))
    return inner(4, 8, stride=2, downsample=down)


def found(stage: nn.Module, shape: tuple[int, ...] = SHAPE) -> nn.Module:
    torch.manual_seed(0)
    return recognised(stage, FixedStage(stage), torch.rand(1, *shape))


def inverse(
    stage: nn.Module, shape: tuple[int, ...] = SHAPE, *, published: bool, bound=None
) -> Inverse:
    block = found(stage, shape)
    assert isinstance(block, ForeignBlock)
    with torch.no_grad():
        after = FixedStage(block)(torch.rand(2, *shape)).shape[1:]
        made = inverse_of(
            FixedStage(block), "stage 4", output_shape=after, input_shape=shape, activation=bound,
            published=published,
        )  # fmt: skip
        assert made(torch.rand(3, *after)).shape == (3, *shape)
    return made


@pytest.mark.parametrize("stage", [
    nn.Conv2d(4, 4, 3), nn.Sequential(nn.Sequential(nn.Conv2d(4, 4, 3)), nn.Tanh()),
    ResidualBlock(nn.Sequential(nn.Conv2d(4, 4, 3, padding=1))),
    torchvision.ops.SqueezeExcitation(4, 2), torchvision.models.densenet._DenseLayer(4, 4, 2, 0.0),
], ids=lambda stage: type(stage).__name__)  # fmt: skip
def test_what_adds_no_skip_of_its_own_stays_as_it_is(stage: nn.Module) -> None:
    assert found(stage) is stage


def test_a_recognised_block_is_the_same_function_and_left_as_it_was() -> None:
    block = downsampled().train()
    before = {name: value.clone() for name, value in block.state_dict().items()}
    images = torch.rand(5, *SHAPE)
    kept = images.clone()
    made = recognised(block, FixedStage(block), images[:1])
    assert isinstance(made, ForeignBlock)
    assert recognised(made, FixedStage(made), images[:1]) is made
    assert torch.equal(images, kept)
    assert block.training
    assert all(torch.equal(before[name], value) for name, value in block.state_dict().items())
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in block.modules())
    assert torch.equal(made.eval()(images), block.eval()(images))


@pytest.mark.parametrize(("stage", "kernels"), [
    (BasicBlock(4, 4), [(3, 3), (3, 3)]),
    (downsampled(), [(3, 3), (3, 3)]),
    (downsampled(Bottleneck), [(1, 1), (3, 3), (1, 1)]),
    (Skipped(nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, (5, 3))), [(3, 3), (5, 3)]),
    (Squeezed(), [(3, 3), (5, 5)]),
    (Skipped(nn.Conv2d(4, 4, 3), nn.Upsample((8, 6))), []),
    (Enlarged(), [(2, 2), (3, 3)]),
], ids=["basic", "strided", "bottleneck", "cut", "squeezed", "upsampled", "enlarged"])  # fmt: skip
def test_the_path_of_a_block_is_its_convolutions_without_the_skip(
    stage: nn.Module, kernels: list[tuple[int, int]]
) -> None:
    block = found(stage)
    assert isinstance(block, ForeignBlock)
    assert [layer.kernel_size for layer, _ in block.path] == kernels


@pytest.mark.parametrize(("after", "kind"), [
    (torch.tanh, nn.Tanh), (torch.relu, nn.ReLU), (nn.ReLU(inplace=True), nn.ReLU),
    (lambda x: x, type(None)), (lambda x: 2 * torch.tanh(x), type(None)),
])  # fmt: skip
def test_a_block_is_bounded_by_what_it_ends_in(after, kind: type) -> None:
    block = found(Skipped(nn.Conv2d(4, 4, 1), nn.ReLU(), after=after))
    assert isinstance(activation_of(block), kind)
    assert isinstance(bounds_of([nn.ReLU(), block])[-1], kind)


def test_a_block_has_a_unit_if_tanh_is_anywhere_in_it() -> None:
    tanh = Skipped(nn.Conv2d(4, 4, 1), nn.Tanh(), nn.Conv2d(4, 4, 1))
    assert has_unit(found(tanh), before=False)
    assert not has_unit(found(BasicBlock(4, 4)), before=True)


def test_the_published_inverse_of_a_foreign_block_has_its_convolutions_and_their_bounds() -> None:
    block = Skipped(nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 5, padding=2))
    made = inverse(block, published=True, bound=nn.ReLU())
    assert isinstance(made, Chain)
    assert [part.transposed.kernel_size for part in made.inverses] == [(5, 5), (3, 3)]
    assert [type(part.activation) for part in made.inverses] == [nn.Tanh, nn.ReLU]
    strided = inverse(downsampled(), published=True)
    assert [part.transposed.stride for part in strided.inverses] == [(1, 1), (2, 2)]
    assert strided.affine


def test_where_the_convolutions_do_not_follow_one_another_there_is_one_of_the_nearest() -> None:
    stage = Skipped(nn.Conv2d(4, 4, 3), nn.Upsample((8, 6)))
    made = inverse(stage, published=True, bound=nn.Tanh())
    assert isinstance(made, ConvolutionInverse)
    assert isinstance(made.activation, nn.Tanh)
    assert (made.transposed.kernel_size, made.bias) == ((3, 3), None)


@pytest.mark.parametrize(("stage", "kernel", "stride"), [
    (BasicBlock(4, 4), (3, 3), (1, 1)),
    (downsampled(), (6, 6), (2, 2)),
], ids=["basic", "strided"])  # fmt: skip
def test_the_closed_form_of_a_foreign_block_reads_the_nearest_positions(
    stage: nn.Module, kernel: tuple[int, int], stride: tuple[int, int]
) -> None:
    made = inverse(stage, published=False)
    assert isinstance(made, ConvolutionInverse)
    assert (made.transposed.kernel_size, made.transposed.stride) == (kernel, stride)


def test_many_channels_are_read_from_one_position() -> None:
    made = inverse(BasicBlock(130, 130), (130, 4, 4), published=False)
    assert made.transposed.kernel_size == (1, 1)


def test_a_cut_border_moves_the_neighbourhood_with_it() -> None:
    """What a pixel is predicted from lies around the place where the skip has put it."""
    stage = Skipped(nn.Conv2d(4, 4, 3), nn.Tanh(), nn.Conv2d(4, 4, 3))
    made = inverse(stage, (4, 16, 14), published=False)
    with torch.no_grad():
        made.transposed.weight.fill_(1)
        made.bias.zero_()
        codes = torch.zeros(1, 4, 12, 10)
        codes[0, 0, 1, 0] = 1  # position (1, 0) of what is left is the pixel (3, 2)
        where = made(codes)[0, 0].nonzero()
    assert [tuple(where[:, axis].unique().tolist()) for axis in (0, 1)] == [(2, 3, 4), (1, 2, 3)]


def test_a_block_that_enlarges_is_read_by_a_convolution() -> None:
    ridge = inverse(Enlarged(), published=False)
    assert isinstance(ridge, TransposedInverse)
    assert (ridge.convolution.kernel_size, ridge.convolution.stride) == ((6, 6), (2, 2))
    adam = inverse(Enlarged(), published=True)
    assert [type(part) for part in adam.inverses] == [ConvolutionInverse, TransposedInverse]


@pytest.mark.parametrize(("shape", "layers"), [
    ((4, 9), [nn.Conv1d(4, 4, 3, padding=1), nn.Tanh(), nn.Conv1d(4, 4, 3, padding=1)]),
    ((2, 4, 4, 3), [nn.Conv3d(2, 2, 3, padding=1), nn.Tanh(), nn.Conv3d(2, 2, 1)]),
])  # fmt: skip
def test_blocks_along_one_and_three_axes_are_inverted(
    shape: tuple[int, ...], layers: list[nn.Module]
) -> None:
    ridge, adam = (inverse(Skipped(*layers), shape, published=p) for p in (False, True))
    assert isinstance(ridge, ConvolutionInverse)
    assert ridge.transposed.kernel_size == (3,) * (len(shape) - 1)
    assert [part.transposed.kernel_size for part in adam.inverses] == [
        layer.kernel_size for layer in (layers[2], layers[0])
    ]


@pytest.mark.parametrize("shape", [(6,), (5, 6)])
def test_blocks_of_linear_layers_on_vectors_and_tokens_are_inverted(shape: tuple[int, ...]) -> None:
    layers = [nn.LayerNorm(6), nn.Linear(6, 9), nn.Tanh(), nn.Linear(9, 6)]
    assert isinstance(inverse(Skipped(*layers), shape, published=False), LinearInverse)
    adam = inverse(Skipped(*layers), shape, published=True)
    parts = [(part.linear.in_features, part.linear.out_features) for part in adam.inverses]
    tokens = 5 if len(shape) == 2 else 1
    assert parts == [(6 * tokens, 9 * tokens), (9 * tokens, 6 * tokens)]


def test_tokens_of_too_many_numbers_are_named() -> None:
    with pytest.raises(ValueError, match="no inverse is known for stage 4, which holds"):
        inverse(Skipped(nn.LayerNorm(64), nn.GELU()), (200, 64), published=False)


def test_a_block_whose_path_is_not_known_and_that_is_wider_one_way_only_is_named() -> None:
    class Turned(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.convolution = nn.Sequential(nn.Conv2d(4, 4, 1), nn.LeakyReLU())

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x + self.convolution(x)).transpose(2, 3)

    block = found(nn.Sequential(Turned(), nn.LocalResponseNorm(2)))
    assert isinstance(block, ForeignBlock)
    with pytest.raises(ValueError, match=r"which holds Conv2d, LocalResponseNorm and maps"):
        inverse_of(
            FixedStage(block), "stage 4", output_shape=(4, 6, 8), input_shape=SHAPE, activation=None
        )
