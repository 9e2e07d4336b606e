import pytest
import torch
from torch import nn

from paperlib.cascade.convolutions import Chain, CircularInverse, ConvolutionInverse
from paperlib.cascade.inverses import activation_of, bounds_of, has_unit, inverse_of
from paperlib.cascade.linear import Inverse, LinearInverse, Reshape
from paperlib.networks import Normalise, ResidualBlock

SHAPE = (2, 6, 5)


def inverse(stage: nn.Module, shape: tuple[int, ...] = SHAPE, **options: object) -> Inverse:
    with torch.no_grad():
        after = stage(torch.rand(1, *shape)).shape[1:]
    settings = {"output_shape": after, "input_shape": shape, "activation": None, **options}
    found = inverse_of(stage, "stage 4", **settings)
    with torch.no_grad():
        assert found(torch.rand(3, *after)).shape == (3, *shape)
    return found


def circular(kernel: int = 3, channels: int = 2) -> nn.Conv2d:
    return nn.Conv2d(2, channels, kernel, padding="same", padding_mode="circular")


def block(**padding: object) -> ResidualBlock:
    return ResidualBlock(
        nn.Sequential(nn.Conv2d(2, 2, 3, **padding), nn.Tanh(), nn.Conv2d(2, 2, 5, padding=2))
    )


def test_a_stages_activation_is_the_one_that_it_ends_in() -> None:
    assert isinstance(activation_of(nn.Sequential(nn.Linear(2, 2), nn.ReLU())), nn.ReLU)
    assert isinstance(activation_of(nn.Tanh()), nn.Tanh)
    assert activation_of(nn.Linear(2, 2)) is None
    assert activation_of(nn.Sequential(nn.Tanh(), nn.Linear(2, 2))) is None
    assert activation_of(ResidualBlock(nn.Sequential(nn.Linear(2, 2), nn.Tanh()))) is None


def test_bounded_activations_have_a_unit_and_unbounded_ones_none() -> None:
    assert has_unit(nn.Sequential(nn.Linear(2, 2), nn.Tanh()), before=False)
    assert not has_unit(nn.Sequential(nn.Tanh(), nn.Linear(2, 2)), before=True)
    assert not has_unit(nn.Sequential(nn.Linear(2, 2), nn.ReLU()), before=True)


def test_pooling_and_reshaping_keep_the_unit_and_the_bound() -> None:
    for stage in (nn.MaxPool2d(2), nn.Flatten(), nn.Sequential(nn.AvgPool2d(2), nn.Flatten())):
        assert has_unit(stage, before=True)
        assert not has_unit(stage, before=False)
        tanh, relu = nn.Tanh(), nn.ReLU()
        assert bounds_of([tanh, stage, relu, stage]) == [tanh, tanh, tanh, relu, relu]
        assert bounds_of([stage, tanh]) == [tanh, tanh, tanh]
    assert bounds_of([nn.Flatten()]) == [None, None]


def test_a_residual_block_has_the_unit_of_its_activation_but_no_bound() -> None:
    assert has_unit(block(), before=False)
    assert bounds_of([nn.Tanh(), block()])[-1] is None
    relu = ResidualBlock(nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU()))
    assert not has_unit(relu, before=True)


@pytest.mark.parametrize("stage", [
    nn.Flatten(), nn.Identity(), nn.Dropout().eval(), nn.Sequential(nn.Identity(), nn.Flatten()),
    nn.AdaptiveAvgPool2d((6, 5)), nn.Sequential(nn.AdaptiveAvgPool2d((6, 5)), nn.Flatten()),
], ids=str)  # fmt: skip
@pytest.mark.parametrize("published", [True, False])
def test_what_only_rearranges_is_reshaped_back(stage: nn.Module, published: bool) -> None:
    assert isinstance(inverse(stage, published=published), Reshape)


@pytest.mark.parametrize("published", [True, False])
def test_a_linear_layer_has_a_linear_inverse(published: bool) -> None:
    found = inverse(
        nn.Sequential(nn.Flatten(), nn.Linear(60, 7), nn.Tanh()),
        activation=nn.Tanh(),
        published=published,
    )
    assert isinstance(found, LinearInverse)
    assert isinstance(found.activation, nn.Tanh)


@pytest.mark.parametrize("stage", [
    nn.Sequential(circular(), nn.Tanh()),
    nn.Sequential(circular(2), nn.Tanh()),
    nn.Sequential(nn.CircularPad2d(1), nn.Conv2d(2, 3, 3), nn.ReLU()),
    nn.Conv2d(2, 4, 1),
    ResidualBlock(nn.Sequential(circular(), nn.Tanh(), circular())),
    nn.Sequential(circular(channels=3), nn.BatchNorm2d(3), nn.ReLU()).eval(),
    nn.Softmax2d(),
], ids=str)  # fmt: skip
def test_what_commutes_with_shifts_has_a_circular_inverse(stage: nn.Module) -> None:
    assert isinstance(inverse(stage), CircularInverse)


@pytest.mark.parametrize("stage", [
    nn.Sequential(nn.Conv2d(2, 3, 3, padding=1), nn.Tanh()),
    nn.Sequential(nn.Conv2d(2, 3, 3), nn.Tanh(), nn.CircularPad2d(1)),  # as in the published code
    nn.Conv2d(2, 3, 3, stride=2, padding=1, padding_mode="circular"),
    nn.MaxPool2d(2),
    nn.AvgPool2d(2),
    nn.AdaptiveMaxPool2d((3, 1)),
    nn.CircularPad2d(1),
    nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.ReLU(), nn.MaxPool2d(2)).eval(),
    nn.Sequential(Normalise((0.5, 0.4), (0.2, 0.1)), nn.Conv2d(2, 3, 3, padding=1), nn.ReLU()),
    ResidualBlock(nn.Sequential(nn.Conv2d(2, 2, 3, padding=1), nn.Tanh())),
    block(padding=1),
], ids=str)  # fmt: skip
def test_what_reads_in_windows_has_a_transposed_convolution(stage: nn.Module) -> None:
    assert isinstance(inverse(stage), ConvolutionInverse)


@pytest.mark.parametrize("stage", [
    nn.Sequential(circular(), nn.Tanh()), nn.MaxPool2d(2), nn.Conv2d(2, 3, 3, stride=2)
], ids=str)  # fmt: skip
def test_the_published_inverse_is_a_transposed_convolution_of_the_same_kernel(
    stage: nn.Module,
) -> None:
    found = inverse(stage, published=True, activation=nn.Tanh())
    layer = next(m for m in stage.modules() if hasattr(m, "stride"))
    assert isinstance(found, ConvolutionInverse)
    assert isinstance(found.activation, nn.Tanh)
    kernel = layer.kernel_size
    assert found.transposed.kernel_size == ((kernel, kernel) if isinstance(kernel, int) else kernel)


def test_the_published_inverse_of_a_residual_block_has_its_convolutions_and_activation() -> None:
    found = inverse(block(padding=1), published=True)
    assert isinstance(found, Chain)
    assert [part.transposed.kernel_size for part in found.inverses] == [(5, 5), (3, 3)]
    assert all(isinstance(part.activation, nn.Tanh) for part in found.inverses)
    relu = ResidualBlock(nn.Sequential(nn.Conv2d(2, 2, 1), nn.ReLU(), nn.Conv2d(2, 2, 1)))
    parts = inverse(relu, published=True).inverses
    assert [part.activation for part in parts] == [None, None]


@pytest.mark.parametrize("stage", [
    nn.LSTM(3, 3), nn.Sequential(nn.Linear(3, 3), nn.Linear(3, 3)), nn.ReLU()
])  # fmt: skip
def test_a_stage_without_a_known_inverse_is_named(stage: nn.Module) -> None:
    with pytest.raises(ValueError, match="no inverse is known for stage 4"):
        inverse_of(stage, "stage 4", output_shape=(3,), input_shape=(3,), activation=None)


@pytest.mark.parametrize(("stage", "kinds"), [
    (nn.Upsample(scale_factor=2), "Upsample"),
    (nn.AdaptiveAvgPool2d(4), "AdaptiveAvgPool2d"),
    (nn.AdaptiveAvgPool2d((5, 6)), "AdaptiveAvgPool2d"),
    (nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten(), nn.Linear(36, 4)), "Conv2d, Linear"),
    (nn.Sequential(nn.Conv2d(2, 3, 3), nn.Flatten()), "Conv2d"),
])  # fmt: skip
def test_an_image_stage_without_a_known_inverse_is_named(stage: nn.Module, kinds: str) -> None:
    with pytest.raises(ValueError, match=rf"for stage 4, which holds {kinds} and maps .*\(2, 6, 5"):
        inverse(stage)


def test_modules_of_an_unknown_container_are_not_taken_to_be_in_order() -> None:
    class Wrapped(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last, self.first = nn.MaxPool2d(2), nn.Conv2d(2, 2, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(self.first(x))

    with pytest.raises(ValueError, match="which holds MaxPool2d, Conv2d"):
        inverse(nn.Sequential(Wrapped()))
