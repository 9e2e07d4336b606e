import math

import pytest
import torch
from test_windows import SHAPE, STAGES, normal, stage_of
from torch import nn
from torch.func import stack_module_state

from paperlib import r_squared
from paperlib.cascade import convolutions
from paperlib.cascade.convolutions import Chain, CircularInverse, ConvolutionInverse
from paperlib.cascade.linear import Inverse
from paperlib.cascade.regression import Moments, Samples
from paperlib.cascade.windows import Window, window_of


def inverse_for(name: str, *, published: bool = False) -> tuple[nn.Sequential, ConvolutionInverse]:
    stage = stage_of(name)
    after = tuple(stage(normal(1, *SHAPE)).shape[1:])
    window = window_of(list(stage), output_shape=after, input_shape=SHAPE)
    assert window is not None
    return stage, ConvolutionInverse(window, after, SHAPE, published=published).double()


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("name", STAGES)
def test_inverses_together_make_what_each_makes_alone(name: str, published: bool) -> None:
    stage, first = inverse_for(name, published=published)
    inverses = [first, inverse_for(name, published=published)[1]]
    codes = stage(normal(6, *SHAPE)).unflatten(0, (2, 3))
    parameters, _ = stack_module_state(inverses)  # type: ignore[arg-type]
    made = first.together(parameters, codes.double())
    alone = torch.stack([one(own) for one, own in zip(inverses, codes.double(), strict=True)])
    torch.testing.assert_close(made, alone, rtol=0, atol=1e-12)


def solved(inverse: Inverse, outputs: torch.Tensor, inputs: torch.Tensor, resolution: float):
    with torch.no_grad():
        samples = Samples([(outputs, inputs)], len(outputs), resolution=resolution)
        inverse.solve(samples, Moments(torch.float64))
    return inverse


# --- transposed convolutions


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("name", STAGES)
def test_an_inverse_gives_back_the_inputs_shape(name: str, published: bool) -> None:
    stage, inverse = inverse_for(name, published=published)
    assert inverse(stage(normal(3, *SHAPE))).shape == (3, *SHAPE)


def test_the_published_inverse_has_the_stages_kernel_and_stride() -> None:
    _, inverse = inverse_for("oblong", published=True)
    assert inverse.transposed.kernel_size == (2, 5)
    assert inverse.transposed.stride == (1, 3)
    assert inverse.transposed.bias.shape == (2,)
    assert inverse.bias is None


@pytest.mark.parametrize("name", STAGES)
def test_what_is_cut_off_a_published_inverse_need_not_be_computed(name: str) -> None:
    stage, inverse = inverse_for(name, published=True)
    codes = stage(normal(3, *SHAPE))
    whole = nn.functional.pad(inverse.transposed(codes), inverse.margins)
    torch.testing.assert_close(inverse(codes), whole)


def test_the_cut_of_the_papers_own_convolutions_is_a_transposed_convolutions_padding() -> None:
    same = ConvolutionInverse(
        Window((3, 3), (1, 1), (1, 1), (1, 1)), (4, 7, 7), (4, 7, 7), published=True
    )
    halved = ConvolutionInverse(
        Window((3, 3), (2, 2), (1, 1), (1, 1)), (4, 7, 7), (4, 14, 14), published=True
    )
    assert (same.cut, halved.cut) == (((1, 1), (0, 0)), ((1, 1), (1, 1)))


@pytest.mark.parametrize("activation", [None, nn.Tanh(), nn.ReLU()])
@pytest.mark.parametrize("name", STAGES)
def test_gradients_of_a_published_inverse_are_those_of_the_mean_squared_error(
    name: str, activation: nn.Module | None
) -> None:
    stage, inverse = inverse_for(name, published=True)
    inverse.activation = activation
    check_gradients(inverse, stage(normal(5, *SHAPE)), SHAPE)


@pytest.mark.parametrize("activations", [(nn.Tanh(), nn.Tanh()), (nn.Tanh(), None), (None, None)])
def test_gradients_go_through_a_chain(activations: tuple[nn.Module | None, ...]) -> None:
    stage, _ = inverse_for("padded")
    window = window_of([stage[0]], output_shape=(3, *SHAPE[1:]), input_shape=(3, *SHAPE[1:]))
    assert window is not None
    shape = (3, *SHAPE[1:])
    links = [ConvolutionInverse(window, shape, shape, a, published=True) for a in activations]
    chain = Chain([Chain(links[:1]), links[1]]).double()
    assert all(link.by_hand for link in chain.links)
    check_gradients(chain, normal(5, *shape), shape)


def check_gradients(inverse: Inverse, codes: torch.Tensor, shape: tuple[int, ...]) -> None:
    """Compare with autograd, twice: the second batch replaces the first one's gradients."""
    for seed in (0, 1):
        inputs = torch.rand(len(codes), *shape, generator=torch.Generator().manual_seed(seed))
        inverse.differentiate(codes, inputs.double())
        loss = (inverse(codes) - inputs).square().mean()
        expected = torch.autograd.grad(loss, list(inverse.parameters()))
        for parameter, gradient in zip(inverse.parameters(), expected, strict=True):
            torch.testing.assert_close(parameter.grad, gradient)


@pytest.mark.parametrize("published", [True, False])
@pytest.mark.parametrize("name", STAGES)
def test_the_adjoint_is_the_transposed_matrix(name: str, published: bool) -> None:
    stage, inverse = inverse_for(name, published=published)
    check_adjoint(inverse, stage(normal(3, *SHAPE)), normal(4, *SHAPE))


@torch.no_grad()
def check_adjoint(inverse: Inverse, codes: torch.Tensor, rows: torch.Tensor) -> None:
    linear = inverse(codes) - inverse(torch.zeros_like(codes))
    found = inverse.adjoint(rows).flatten(1) @ codes.flatten(1).T
    torch.testing.assert_close(found, rows.flatten(1) @ linear.flatten(1).T)


def blocks_inside(inverse: ConvolutionInverse) -> torch.Tensor:
    """Which pixels belong to a block of stride × stride that lies within the image."""
    sides = []
    for size, stride, offset in zip(
        SHAPE[1:], inverse.window.stride, inverse.window.offset, strict=True
    ):
        first = [pixel - (pixel + offset) % stride for pixel in range(size)]
        sides.append(torch.tensor([0 <= start <= size - stride for start in first]))
    return sides[0][:, None] & sides[1]


@pytest.mark.parametrize("name", STAGES)
def test_the_closed_form_is_the_dense_least_squares_solution(name: str) -> None:
    """The same transposed convolution, fitted entry by entry without neighbourhoods or phases."""
    stage, inverse = inverse_for(name)
    inputs = normal(12, *SHAPE)
    outputs, resolution = stage(inputs), 0.05
    solved(inverse, outputs, inputs, resolution)
    codes, pixels = outputs - outputs.mean(0), inputs - inputs.mean(0)
    inside = blocks_inside(inverse)
    samples = len(inputs) * int(inside.sum()) / math.prod(inverse.window.stride)
    kernel = inverse.transposed.weight
    units = torch.eye(kernel.numel(), dtype=torch.float64).view(-1, *kernel.shape)
    seen = [
        nn.functional.conv_transpose2d(codes, unit, stride=inverse.window.stride) for unit in units
    ]
    features = torch.stack(
        [nn.functional.pad(one, inverse.margins)[:, :, inside].flatten() for one in seen], 1
    )
    covariance = features.T @ features / samples + resolution * torch.eye(len(units)).double()
    expected = torch.linalg.solve(covariance, features.T @ pixels[:, :, inside].flatten() / samples)
    torch.testing.assert_close(kernel.detach().flatten(), expected, rtol=0, atol=1e-10)
    mean = inverse(outputs.mean(0, keepdim=True))[0]
    torch.testing.assert_close(mean.detach(), inputs.mean(0), rtol=0, atol=1e-12)


def test_a_few_positions_stand_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    stage, inverse = inverse_for("strided")
    inputs = normal(200, *SHAPE)
    solved(inverse, stage(inputs), inputs, 0.05)
    every = inverse.transposed.weight.detach().clone()
    monkeypatch.setattr(convolutions, "SAMPLES", 1000)
    monkeypatch.setattr(convolutions, "CHUNK", 300)
    chosen = list(inverse._samples(200, torch.device("cpu")))
    assert [len(images) for images, _, _ in chosen] == [300, 300, 300, 100]
    pairs = {pair for part in chosen for pair in zip(*(x.tolist() for x in part), strict=True)}
    assert len(pairs) > 900
    assert {image for image, _, _ in pairs} == set(range(200))
    solved(inverse, stage(inputs), inputs, 0.05)
    some = inverse.transposed.weight.detach().clone()
    assert not torch.equal(some, every)
    assert float((some - every).norm() / every.norm()) < 0.2
    solved(inverse, stage(inputs), inputs, 0.05)
    assert torch.equal(inverse.transposed.weight, some)


@pytest.mark.parametrize("samples", [20_000, 150])
@pytest.mark.parametrize("name", ["padded", "strided", "max-pool", "oblong"])
def test_chunks_of_images_are_solved_as_the_whole(
    name: str, samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(convolutions, "SAMPLES", samples)
    stage, whole = inverse_for(name)
    _, parts = inverse_for(name)
    inputs = normal(12, *SHAPE) + normal(*SHAPE, seed=1)  # every position has its own mean
    outputs = stage(inputs)
    solved(whole, outputs, inputs, 0.05)
    chunks = list(zip(outputs.split([5, 1, 6]), inputs.split([5, 1, 6]), strict=True))
    parts.solve(Samples(chunks, 12, resolution=0.05), Moments(torch.float64))
    for one, other in zip(parts.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=1e-10)


def test_a_stage_that_rearranges_pixels_is_inverted_exactly() -> None:
    stage = nn.Sequential(nn.Conv2d(2, 8, 2, stride=2)).double().requires_grad_(False)
    stage[0].weight.copy_(torch.linalg.qr(normal(8, 8))[0].view(8, 2, 2, 2))
    inputs = normal(50, 2, 6, 8)
    window = window_of(list(stage), output_shape=(8, 3, 4), input_shape=(2, 6, 8))
    inverse = ConvolutionInverse(window, (8, 3, 4), (2, 6, 8)).double()
    solved(inverse, stage(inputs), inputs, 1e-12)
    torch.testing.assert_close(inverse(stage(inputs)), inputs, rtol=0, atol=1e-8)


def test_an_image_too_small_for_a_whole_block_is_inverted() -> None:
    stage = nn.Sequential(nn.Conv2d(1, 1, 3, stride=4, padding=2)).double().requires_grad_(False)
    inputs = normal(60, 1, 2, 2)
    after = tuple(stage(inputs).shape[1:])
    window = window_of(list(stage), output_shape=after, input_shape=(1, 2, 2))
    inverse = solved(
        ConvolutionInverse(window, after, (1, 2, 2)).double(), stage(inputs), inputs, 1e-9
    )
    assert 0 < float(r_squared(inputs, inverse(stage(inputs)))) <= 1


# --- circular convolutions


def circulant(convolution: nn.Conv2d, shape: tuple[int, ...]) -> torch.Tensor:
    """The matrix of a convolution with circular padding, entry by entry from its definition."""
    channels, h, w = shape
    weight = convolution.weight.detach()
    rows, columns = convolution.kernel_size
    matrix = torch.zeros(weight.shape[0], h, w, channels, h, w, dtype=weight.dtype)
    for y in range(h):
        for x in range(w):
            for row in range(rows):
                for column in range(columns):
                    source = (y + row - (rows - 1) // 2) % h, (x + column - (columns - 1) // 2) % w
                    matrix[:, y, x, :, *source] += weight[:, :, row, column]
    return matrix.view(-1, channels * h * w)


def periodic(size: tuple[int, int], channels: int = 2, kernel: int = 3) -> nn.Conv2d:
    """A circular convolution that is well conditioned."""
    stage = nn.Conv2d(channels, channels, kernel, padding="same", padding_mode="circular").double()
    middle = (kernel - 1) // 2
    with torch.no_grad():
        stage.weight.copy_(0.05 * normal(*stage.weight.shape))
        stage.weight[:, :, middle, middle] += torch.eye(channels)
    return stage.requires_grad_(False)


@pytest.mark.parametrize("kernel", [1, 2, 3])
@pytest.mark.parametrize("size", [(3, 4), (5, 3), (4, 4)])
def test_circular_padding_makes_the_circulant_matrix(size: tuple[int, int], kernel: int) -> None:
    stage = periodic(size, kernel=kernel)
    images = normal(3, 2, *size)
    expected = images.flatten(1) @ circulant(stage, (2, *size)).T
    found = stage(images) - stage.bias[:, None, None]
    torch.testing.assert_close(found.flatten(1), expected)


@pytest.mark.parametrize("size", [(3, 4), (5, 3), (4, 4), (1, 1), (1, 6)])
def test_a_circular_inverse_is_an_ordinary_convolution(size: tuple[int, int]) -> None:
    inverse = CircularInverse((3, *size), (2, *size)).double().requires_grad_(False)
    nn.init.normal_(inverse.bias)
    codes = normal(4, 3, *size)
    torch.testing.assert_close(inverse(codes), inverse.convolution(codes) + inverse.bias)
    check_adjoint(inverse, codes, normal(5, 2, *size))


@pytest.mark.parametrize("size", [(3, 4), (5, 3), (4, 4), (1, 1)])
def test_a_circular_stage_without_noise_is_inverted_by_the_inverse_circulant_matrix(
    size: tuple[int, int],
) -> None:
    stage = periodic(size)
    inputs = normal(200, 2, *size)
    inverse = CircularInverse((2, *size), (2, *size)).double()
    solved(inverse, stage(inputs), inputs, 1e-13)
    found = circulant(inverse.convolution, (2, *size))
    expected = torch.linalg.inv(circulant(stage, (2, *size)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-8)
    torch.testing.assert_close(inverse(stage(inputs)), inputs, rtol=0, atol=1e-8)


def test_a_circular_inverse_is_the_ridge_regression_over_all_positions() -> None:
    size, resolution = (3, 4), 0.2
    stage = nn.Sequential(periodic(size), nn.Tanh())
    inputs = normal(40, 2, *size) + normal(2, *size, seed=1)  # every position has its own mean
    outputs = stage(inputs)
    inverse = CircularInverse((2, *size), (2, *size)).double()
    solved(inverse, outputs, inputs, resolution)
    codes, pixels = outputs - outputs.mean(0), inputs - inputs.mean(0)
    kernel = inverse.convolution.weight
    units = torch.eye(kernel.numel(), dtype=torch.float64).view(-1, *kernel.shape)
    seen = []
    for unit in units:
        inverse.convolution.weight.data.copy_(unit)
        seen.append(inverse.convolution(codes).detach().flatten())
    features, samples = torch.stack(seen, 1), 40 * math.prod(size)
    covariance = features.T @ features / samples + resolution * torch.eye(len(units)).double()
    expected = torch.linalg.solve(covariance, features.T @ pixels.flatten() / samples)
    solved(inverse, outputs, inputs, resolution)
    torch.testing.assert_close(kernel.detach().flatten(), expected, rtol=0, atol=1e-10)
    mean = inverse(outputs.mean(0, keepdim=True))[0]
    torch.testing.assert_close(mean.detach(), inputs.mean(0), rtol=0, atol=1e-12)


# --- what all have in common


def test_a_stage_that_lost_everything_gives_the_mean_input() -> None:
    inputs = normal(30, 2, 4, 4)
    nothing = torch.zeros(30, 3, 4, 4, dtype=torch.float64)
    window = Window((3, 3), (1, 1), (1, 1), (1, 1))
    for inverse in (
        ConvolutionInverse(window, (3, 4, 4), (2, 4, 4)).double(),
        CircularInverse((3, 4, 4), (2, 4, 4)).double(),
    ):
        solved(inverse, nothing, inputs, 1e-5)
        expected = inputs.mean(0).expand_as(inputs)
        torch.testing.assert_close(inverse(nothing).detach(), expected)


@pytest.mark.parametrize("circular", [True, False])
def test_the_closed_form_with_an_activation_fits_what_comes_before_it(circular: bool) -> None:
    stage = periodic((4, 4))
    before = 0.5 * normal(100, 2, 4, 4)
    inputs = torch.tanh(before)
    window = Window((5, 5), (1, 1), (1, 1), (2, 2))
    shapes = (2, 4, 4), (2, 4, 4)
    inverse = (
        CircularInverse(*shapes, nn.Tanh())
        if circular
        else ConvolutionInverse(window, *shapes, nn.Tanh())
    ).double()
    assert not inverse.affine
    solved(inverse, stage(inputs), inputs, 1e-6)
    found = inverse(stage(inputs)).detach()
    assert float(found.abs().max()) < 1
    assert float(r_squared(inputs, found)) > 0.9


def test_a_chain_applies_its_parts_in_turn() -> None:
    parts = [inverse_for(name)[1] for name in ("padded", "one by one")]
    parts[0] = ConvolutionInverse(
        Window((3, 3), (1, 1), (1, 1), (1, 1)), (3, 9, 8), (3, 9, 8), published=True
    ).double()
    chain = Chain(parts)
    codes = normal(2, 3, 9, 8)
    torch.testing.assert_close(chain(codes), parts[1](parts[0](codes)))
    check_adjoint(chain, codes, normal(4, *SHAPE))
    assert chain.affine
    bounded = ConvolutionInverse(
        Window((1, 1), (1, 1), (1, 1), (0, 0)), (2, 9, 8), SHAPE, nn.Tanh(), published=True
    )
    assert not Chain([*parts, bounded]).affine
