import math
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from paperlib.meanfield import fixed_point_variance
from paperlib.networks import (
    LOGIT_SCALE,
    Network,
    Normalise,
    ResidualBlock,
    activation_module,
    cnn,
    initialise,
    mlp,
    residual_mlp,
    resnet,
    vgg16,
)
from paperlib.networks.kinds import STEM, VGG_LAYERS, stages_of, vgg_channels

SHAPE = (1, 6, 5)


def test_a_wide_mlp_keeps_its_width_and_gives_one_logit_per_class() -> None:
    network = mlp(SHAPE, depth=4, width=17, classes=7)
    activation = torch.rand(3, *SHAPE)
    for stage in network.stages:
        activation = stage(activation)
        assert activation.shape == (3, 17)
    assert network(torch.rand(3, *SHAPE)).shape == (3, 7)
    assert network.stem == 0
    assert len(network.stages) == stages_of("mlp", 4)


def test_a_wide_mlp_is_as_wide_as_its_images_unless_told_otherwise() -> None:
    assert mlp(SHAPE, depth=2).stages[1].linear.weight.shape == (30, 30)


def test_a_shrinking_mlp_falls_linearly_from_pixels_to_classes() -> None:
    network = mlp((1, 28, 28), depth=9, shape="shrinking")
    widths = [stage.linear.out_features for stage in network.stages]
    assert widths[-1] == 10
    steps = [a - b for a, b in zip([784, *widths], widths, strict=False)]
    assert max(steps) - min(steps) <= 1  # linear but for rounding


def test_the_shrinking_heads_logits_are_the_scaled_tanh_outputs() -> None:
    network = mlp(SHAPE, depth=3, shape="shrinking")
    images = torch.rand(4, *SHAPE)
    assert torch.equal(network(images), LOGIT_SCALE * network.stages(images))


def test_a_residual_mlp_is_its_formula() -> None:
    network = residual_mlp(SHAPE, depth=2, width=7, classes=3).double()
    images = torch.rand(4, *SHAPE, dtype=torch.float64)
    x = torch.tanh(nn.functional.linear(images.flatten(1), *network.stages[0].linear.parameters()))
    for stage in network.stages[1:]:
        (a, b), (c, d) = (stage.block.body[n].parameters() for n in (0, 2))
        x = torch.tanh(x + torch.tanh(x @ a.T + b) @ c.T + d)
    torch.testing.assert_close(network.stages(images), x)
    assert network(images).shape == (4, 3)
    assert (network.stem, len(network.stages)) == (1, 3)
    assert residual_mlp(SHAPE, depth=1).stages[1].block.body[2].weight.shape == (30, 30)


@pytest.mark.parametrize(("name", "at_one"), [
    ("tanh", math.tanh(1)), ("erf", math.erf(1)), ("relu", 1.0), ("linear", 1.0),
    ("gelu", 0.5 * (1 + math.erf(1 / math.sqrt(2)))),
])  # fmt: skip
def test_activations_are_the_functions_they_are_called_after(name: str, at_one: float) -> None:
    assert float(activation_module(name)(torch.tensor(1.0))) == pytest.approx(at_one, abs=1e-6)


def test_initialised_weights_have_the_asked_for_variances_in_stages_and_head() -> None:
    network = mlp((1, 20, 20), depth=2)
    initialise(network, sigma_w2=1.7, sigma_b2=0.05, seed=0)
    linears = [m for m in network.modules() if isinstance(m, nn.Linear)]
    assert len(linears) == 4
    for linear in linears[:3]:
        variance = 1.7 / linear.in_features
        n = linear.weight.numel()  # the sample variance's own deviation is variance·√(2/n)
        assert float(linear.weight.detach().var()) == pytest.approx(
            variance, abs=5 * variance * (2 / n) ** 0.5
        )
        assert abs(float(linear.weight.detach().mean())) < 5 * (variance / n) ** 0.5
    biases = torch.cat([linear.bias for linear in linears])
    assert float(biases.detach().var()) == pytest.approx(0.05, rel=5 * (2 / len(biases)) ** 0.5)


def test_a_convolutions_fan_in_is_channels_times_kernel_area() -> None:
    convolution = nn.Conv2d(16, 64, 3)
    initialise(convolution, sigma_w2=2.0, sigma_b2=0.0, seed=1)
    n = convolution.weight.numel()
    assert float(convolution.weight.var()) == pytest.approx(2 / 144, rel=5 * (2 / n) ** 0.5)
    assert torch.equal(convolution.bias, torch.zeros(64))


def test_the_seed_alone_decides_the_weights() -> None:
    first, second, other = (mlp(SHAPE, depth=3) for _ in range(3))
    before = torch.get_rng_state()
    initialise(first, sigma_w2=1.0, sigma_b2=0.1, seed=3)
    assert torch.equal(torch.get_rng_state(), before)
    torch.manual_seed(99)
    initialise(second, sigma_w2=1.0, sigma_b2=0.1, seed=3)
    initialise(other, sigma_w2=1.0, sigma_b2=0.1, seed=4)
    for a, b, c in zip(*(n.parameters() for n in (first, second, other)), strict=True):
        assert torch.equal(a, b)
        assert not torch.equal(a, c)


def test_wide_networks_follow_the_mean_field_variance() -> None:
    network = mlp((1, 30, 30), depth=30)
    initialise(network, sigma_w2=2.5, sigma_b2=0.05, seed=0)
    with torch.no_grad():
        before = network.stages[-1].linear(network.stages[:-1](torch.rand(50, 1, 30, 30)))
    expected = fixed_point_variance(2.5, 0.05)
    assert float(before.square().mean()) == pytest.approx(expected, rel=0.05)


@pytest.mark.parametrize("build", [cnn, resnet])
def test_a_convolutional_network_has_a_stem_of_three_stages(build) -> None:
    network = build((1, 28, 28), depth=2, channels=5)
    activation, sizes = torch.rand(3, 1, 28, 28), []
    for stage in network.stages:
        activation = stage(activation)
        sizes.append(tuple(activation.shape[1:]))
    assert sizes == [(5, 28, 28), (5, 14, 14), (5, 7, 7), (5, 7, 7), (5, 7, 7)]
    assert network.stem == STEM == 3
    assert len(network.stages) == stages_of(build.__name__, 2)
    assert network(torch.rand(3, 1, 28, 28)).shape == (3, 10)


@pytest.mark.parametrize("build", [cnn, resnet])
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 2, 1), (1, 5, 3), (3, 32, 32)])
@pytest.mark.parametrize("channels", [1, 4])
def test_convolutional_networks_take_images_of_any_size(build, shape, channels: int) -> None:
    network = build(shape, depth=2, channels=channels, classes=3)
    assert network(torch.rand(1, *shape)).shape == (1, 3)
    assert network.image_shape == shape


@pytest.mark.parametrize("build", [cnn, resnet])
@pytest.mark.parametrize("activation", ["tanh", "erf", "relu", "gelu", "linear"])
def test_stages_after_the_stem_and_the_logits_commute_with_shifts(build, activation: str) -> None:
    network = build((1, 20, 20), depth=2, channels=4, activation=activation)
    initialise(network, sigma_w2=1.5, sigma_b2=0.1, seed=0)
    codes = torch.rand(2, 4, 5, 5)
    deeper, shifted = network.stages[3:], codes.roll((1, 2), (2, 3))
    torch.testing.assert_close(deeper(shifted), deeper(codes).roll((1, 2), (2, 3)))
    torch.testing.assert_close(network.head(shifted), network.head(codes))


def test_a_residual_block_adds_its_body() -> None:
    network = resnet((1, 9, 9), depth=1, channels=3)
    block, codes = network.stages[3], torch.rand(2, 3, 3, 3)
    assert isinstance(block, ResidualBlock)
    first, activation, second = block.body
    torch.testing.assert_close(block(codes), codes + second(activation(first(codes))))


def published_layer(convolution: nn.Conv2d, codes: torch.Tensor) -> torch.Tensor:
    """As the authors' code has it: the convolution first, then the circular padding."""
    small = nn.functional.conv2d(codes, convolution.weight, convolution.bias)
    return torch.cat([small[..., -1:], small, small[..., :1]], 3)[:, :, [-1, *range(5), 0]]


def test_a_published_cnn_convolves_before_it_pads() -> None:
    network = cnn((1, 28, 28), depth=2, channels=4, padding="published")
    codes = torch.rand(2, 4, 7, 7)
    expected = published_layer(network.stages[3].convolution, codes).tanh()
    torch.testing.assert_close(network.stages[3](codes), expected)
    assert network(torch.rand(3, 1, 28, 28)).shape == (3, 10)


def test_a_published_block_ends_in_its_activation() -> None:
    network = resnet((1, 28, 28), depth=2, channels=4, block="published")
    codes = torch.rand(2, 4, 7, 7)
    first, _, _, second, _ = network.stages[3].block.body
    inner = published_layer(first, codes).tanh()
    expected = (codes + published_layer(second, inner)).tanh()
    torch.testing.assert_close(network.stages[3](codes), expected)


def test_both_forms_of_a_network_have_the_same_weights() -> None:
    for build, forms in ((cnn, ("circular", "published")), (resnet, ("plain", "published"))):
        name = "padding" if build is cnn else "block"
        states = []
        for form in forms:
            network = build((1, 12, 12), depth=2, channels=3, **{name: form})
            initialise(network, sigma_w2=1.5, sigma_b2=0.1, seed=0)
            states.append(list(network.state_dict().values()))
        assert all(torch.equal(one, other) for one, other in zip(*states, strict=True))


@pytest.mark.parametrize("build", [partial(cnn, padding="published"),
                                   partial(resnet, block="published")])  # fmt: skip
def test_images_too_small_for_the_published_padding_are_refused(build) -> None:
    with pytest.raises(ValueError, match=r"at least 9×9.*got \(1, 8, 28\)"):
        build((1, 8, 28), depth=1)
    assert build((1, 9, 9), depth=1)(torch.rand(1, 1, 9, 9)).shape == (1, 10)


def test_all_convolutions_of_a_network_have_the_asked_for_variance() -> None:
    network = resnet((1, 28, 28), depth=2, channels=32)
    initialise(network, sigma_w2=1.3, sigma_b2=2e-5, seed=0)
    convolutions = [m for m in network.modules() if isinstance(m, nn.Conv2d)]
    assert len(convolutions) == 3 + 4 + 1
    for convolution in convolutions:
        n = convolution.weight.numel()
        expected = 1.3 / (convolution.in_channels * 9)
        found = float(convolution.weight.detach().var())
        assert found == pytest.approx(expected, rel=5 * (2 / n) ** 0.5)


def test_wide_convolutional_networks_follow_the_mean_field_variance_of_full_connections() -> None:
    network = cnn((1, 28, 28), depth=20, channels=128)
    initialise(network, sigma_w2=2.5, sigma_b2=0.05, seed=0)
    with torch.no_grad():
        before = network.stages[-1].convolution(network.stages[:-1](torch.rand(20, 1, 28, 28)))
    assert float(before.square().mean()) == pytest.approx(fixed_point_variance(2.5, 0.05), rel=0.05)


@pytest.mark.parametrize("build", [cnn, resnet])
@pytest.mark.parametrize(("arguments", "message"), [
    ({"depth": 0}, "depth must be >= 1, got 0"),
    ({"depth": 2, "channels": 0}, "channels must be >= 1, got 0"),
    ({"depth": 2, "channels": 2.5}, "channels must be a whole number, got 2.5"),
    ({"depth": 2, "classes": 0}, "classes must be"),
    ({"depth": 2, "activation": "tan"}, "activation must be one of .*; got 'tan'"),
])  # fmt: skip
def test_a_bad_argument_of_a_convolutional_network_is_named(
    build, arguments: dict, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        build(SHAPE, **arguments)
    with pytest.raises(ValueError, match=r"image_shape must be .* got \(28, 0, 28\)"):
        build((28, 0, 28), depth=1)


@pytest.mark.parametrize(("arguments", "message"), [
    ({"depth": 0}, "depth must be >= 1, got 0"),
    ({"depth": 2.5}, "depth must be a whole number, got 2.5"),
    ({"depth": 2, "width": -3}, "width must be >= 1, got -3"),
    ({"depth": 2, "classes": 0}, "classes must be"),
    ({"depth": 2, "shape": "round"}, "shape must be one of wide, shrinking; got 'round'"),
    ({"depth": 2, "activation": "tan"}, "activation must be one of .*; got 'tan'"),
    ({"depth": 2, "shape": "shrinking", "width": 5}, "width is given by the shape"),
])  # fmt: skip
def test_a_bad_argument_is_named(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        mlp(SHAPE, **arguments)


def test_a_bad_image_shape_is_shown() -> None:
    with pytest.raises(ValueError, match=r"image_shape must be .* got \(28, 28\)"):
        mlp((28, 28), depth=1)


@pytest.mark.parametrize("wrong", ["sigma_w2", "sigma_b2", "seed"])
def test_a_negative_variance_or_seed_is_refused(wrong: str) -> None:
    arguments = {"sigma_w2": 1.0, "sigma_b2": 0.1, "seed": 0, wrong: -1}
    with pytest.raises(ValueError, match=f"{wrong} must be >= 0, got -1"):
        initialise(mlp(SHAPE, depth=1), **arguments)


# --- VGG


def colour(count: int = 2, side: int = 32) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=torch.Generator().manual_seed(0))


def normalised(images: torch.Tensor) -> torch.Tensor:
    from paperlib.core.vision import torchvision

    return torchvision.transforms.functional.normalize(
        images, [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
    )


def published_features(letter: str, network: Network) -> nn.Sequential:
    """torchvision's own convolutional layers, with the network's numbers in their order."""
    from paperlib.core.vision import torchvision

    batch_norm = any(isinstance(layer, nn.BatchNorm2d) for layer in network.modules())
    layers = torchvision.models.vgg.cfgs[letter]
    features = torchvision.models.vgg.make_layers(layers, batch_norm=batch_norm)
    names, values = features.state_dict().keys(), network.state_dict().values()
    features.load_state_dict(dict(zip(names, values, strict=False)))
    return features.eval()


def test_pixels_are_normalised_channel_by_channel_by_constants() -> None:
    layer = Normalise((0.5, 0.2), (0.25, 0.1)).train()
    found = layer(torch.tensor([0.75, 0.0]).view(1, 2, 1, 1))
    torch.testing.assert_close(found.flatten(), torch.tensor([1.0, -2.0]))
    assert not layer.state_dict()  # so a state dict holds what torchvision's does


@torch.no_grad()
def test_level_10_of_vgg16_is_torchvisions_module_16_and_level_18_its_module_30() -> None:
    network = vgg16("random", image_shape=(3, 32, 32), classes=10).eval()
    features, images = published_features("D", network), colour()
    assert len(network.stages) == 22
    for level, module, shape in (
        (1, 1, (64, 32, 32)),
        (3, 4, (64, 16, 16)),
        (6, 9, (128, 8, 8)),
        (10, 16, (256, 4, 4)),
        (14, 23, (512, 2, 2)),
        (17, 29, (512, 2, 2)),
        (18, 30, (512, 1, 1)),
    ):
        found = network.stages[:level](images)
        assert found.shape[1:] == shape
        torch.testing.assert_close(found, features[: module + 1](normalised(images)))
    pools = [isinstance(stage, nn.MaxPool2d) for stage in network.stages]
    assert [level for level, pool in enumerate(pools, 1) if pool] == [3, 6, 10, 14, 18]
    widths = [stage.linear.out_features for stage in network.stages[19:]]
    assert widths == [4096, 4096, 10]


@pytest.mark.parametrize("layers", VGG_LAYERS)
def test_the_channels_of_a_vggs_levels_are_known_without_it(layers: int) -> None:
    network = vgg16("random", image_shape=(3, 32, 32), layers=layers, classes=10)
    width, found = 3, []
    for stage in network.stages:
        if isinstance(stage, nn.Flatten):
            break
        width = getattr(stage, "convolution", nn.Conv2d(1, width, 1)).out_channels
        found.append(width)
    assert tuple(found) == vgg_channels(layers)


@pytest.mark.parametrize(("layers", "letter", "levels"), [
    (11, "A", 17), (13, "B", 19), (19, "E", 25),
])  # fmt: skip
@torch.no_grad()
def test_other_depths_with_batch_norm_are_torchvisions(
    layers: int, letter: str, levels: int
) -> None:
    network = vgg16(
        "random", layers=layers, batch_norm=True, image_shape=(3, 32, 32), classes=10
    ).eval()
    for norm in (layer for layer in network.modules() if isinstance(layer, nn.BatchNorm2d)):
        norm.running_var.fill_(0.5)
    features, images = published_features(letter, network), colour()
    assert len(network.stages) == levels
    found = network.stages[: levels - 4](images)
    torch.testing.assert_close(found, features(normalised(images)))
    assert network(images).shape == (2, 10)


@pytest.mark.slow
def test_random_vgg_weights_are_those_of_he_and_of_their_seed() -> None:
    before = torch.get_rng_state()
    first, same, other = (
        vgg16("random", layers=11, image_shape=(3, 32, 32), classes=10, seed=seed)
        for seed in (3, 3, 4)
    )
    assert torch.equal(torch.get_rng_state(), before)
    for layer in first.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            n, fan_in = layer.weight.numel(), layer.weight[0].numel()
            variance = float(layer.weight.detach().var())
            assert variance == pytest.approx(2 / fan_in, rel=5 * (2 / n) ** 0.5)
            assert not layer.bias.any()
    weights = [network.stages[0].convolution.weight for network in (first, same, other)]
    assert torch.equal(weights[0], weights[1])
    assert not torch.equal(weights[0], weights[2])


@pytest.mark.slow
@torch.no_grad()
@pytest.mark.parametrize("side", [64, 100])
def test_weights_with_torchvisions_names_make_torchvisions_function(
    side: int, tmp_path: Path
) -> None:
    from paperlib.core.vision import torchvision

    theirs = torchvision.models.vgg11(num_classes=5).eval()
    torch.save(theirs.state_dict(), tmp_path / "own.pth")
    images = colour(side=side)
    ours = vgg16(tmp_path / "own.pth", layers=11, image_shape=(3, side, side)).eval()
    torch.testing.assert_close(ours(images), theirs(normalised(images)), rtol=1e-4, atol=1e-5)


@torch.no_grad()
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_a_vggs_own_state_dict_comes_back_with_its_classes(ending: str, tmp_path: Path) -> None:
    options = {"layers": 11, "batch_norm": True, "image_shape": (3, 40, 70)}
    saved = vgg16("random", classes=6, **options).eval()
    file = tmp_path / f"own.{ending}"
    (save_file if ending == "safetensors" else torch.save)(saved.state_dict(), file)
    again = vgg16(file, **options).eval()
    images = torch.rand(2, 3, 40, 70)
    assert torch.equal(again(images), saved(images))
    assert again(images).shape == (2, 6)


@pytest.mark.parametrize(("options", "message"), [
    ({"layers": 12}, "layers must be one of 11, 13, 16, 19; got 12"),
    ({"classes": 0}, "classes must be >= 1, got 0"),
    ({"image_shape": (3, 8, 8)}, r"sides >= 32, got \(3, 8, 8\); .* enlarge small images"),
    ({"image_shape": (1, 64, 64)}, r"takes colour images, .*got \(1, 64, 64\); repeat a grey"),
    ({"image_shape": (64, 64)}, r"image_shape must be .* got \(64, 64\)"),
])  # fmt: skip
def test_a_bad_argument_of_vgg_is_named(options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        vgg16(**{"weights": "random", **options})


def test_weights_of_another_vgg_are_refused_by_name(tmp_path: Path) -> None:
    for state in (nn.Linear(4, 3).state_dict(), {}):
        torch.save(state, tmp_path / "own.pth")
        with pytest.raises(ValueError, match=r"own\.pth does not fit: features\.0\.weight must be"):
            vgg16(tmp_path / "own.pth")
