import math
from itertools import pairwise

import pytest
import torch
from torch import nn

from paperlib import Cascade, load_dataset, r_squared
from paperlib.cascade import fitting
from paperlib.cascade.fitting import arithmetic_of, fit_adam, fit_ridge
from paperlib.cascade.inverses import inverse_of
from paperlib.cascade.linear import LinearInverse
from paperlib.networks import ResidualBlock, cnn, initialise, mlp


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def test_ridge_recovers_the_true_inverse_of_a_linear_stage_without_noise() -> None:
    stage = nn.Linear(20, 20).double()
    with torch.no_grad():
        stage.weight.copy_(torch.linalg.qr(normal(20, 20))[0])
    images = normal(200, 20)
    inverse = LinearInverse((20,), (20,)).double()
    fit_ridge([stage], [inverse], images, resolution=1e-12)
    torch.testing.assert_close(inverse.linear.weight, stage.weight.T, rtol=0, atol=1e-8)
    torch.testing.assert_close(inverse(stage(images)), images, rtol=0, atol=1e-8)


@pytest.mark.slow
def test_long_training_by_adam_approaches_the_closed_form_from_above() -> None:
    network = mlp((1, 4, 4), depth=2, activation="erf")
    initialise(network, sigma_w2=1.5, sigma_b2=0.1, seed=0)
    images = torch.rand(256, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    torch.manual_seed(0)  # of the inverses' first weights
    closed, trained = ([LinearInverse((16,), s) for s in ((1, 4, 4), (16,))] for _ in range(2))
    fit_ridge(network.stages, closed, images, resolution=1e-6)
    fit_adam(network.stages, trained, images, steps=6000, batch_size=256)
    activations = images
    with torch.no_grad():
        for stage, best, other in zip(network.stages, closed, trained, strict=True):
            codes = stage(activations)
            least, reached = ((c(codes) - activations).square().mean() for c in (best, other))
            assert least <= reached <= 1.1 * least
            activations = codes


def plain_adam(
    stages: nn.Sequential, inverses: list[LinearInverse], images: torch.Tensor, batches: list
) -> None:
    """The published loop: every batch through the network, one optimiser per stage."""
    optimisers = [torch.optim.Adam([*x.parameters(), torch.zeros(1)]) for x in inverses]
    for batch in batches:
        before = images[batch]
        for stage, inverse, optimiser in zip(stages, inverses, optimisers, strict=True):
            after = stage(before).detach()
            if any(True for _ in inverse.parameters()):
                optimiser.zero_grad()
                nn.functional.mse_loss(inverse(after), before).backward()
                optimiser.step()
            before = after


def fully_connected() -> tuple[nn.Sequential, list[nn.Module]]:
    network = mlp((1, 5, 5), depth=5, width=25)
    initialise(network, sigma_w2=1.7, sigma_b2=0.05, seed=0)
    torch.manual_seed(0)
    shapes = [(1, 5, 5)] + [(25,)] * 4
    return network.stages, [LinearInverse((25,), shape, nn.Tanh()) for shape in shapes]


def convolutional() -> tuple[nn.Sequential, list[nn.Module]]:
    """Stages and inverses of one shape, of which not all can be stacked."""
    kernels = (3, 3, 5, 5, 3)
    stages = nn.Sequential(
        *(
            nn.Sequential(nn.Conv2d(1, 1, k, padding="same", padding_mode="circular"), nn.Tanh())
            for k in kernels
        ),
        ResidualBlock(nn.Sequential(nn.Conv2d(1, 1, 1), nn.Tanh(), nn.Conv2d(1, 1, 1))),
        nn.Flatten(),
        nn.Linear(25, 25),
    )
    initialise(stages, sigma_w2=1.7, sigma_b2=0.05, seed=0)
    torch.manual_seed(0)
    shapes = [(1, 5, 5)] * 7 + [(25,)] * 2
    settings = {"activation": nn.Tanh(), "published": True}
    return stages, [
        inverse_of(stage, "stage", output_shape=after, input_shape=before, **settings)
        for stage, (before, after) in zip(stages, pairwise(shapes), strict=True)
    ]


@pytest.mark.parametrize("stack", [1, 2, 8])
@pytest.mark.parametrize("kind", [fully_connected, convolutional])
def test_adam_is_the_published_loop_stacked_or_not(
    kind, stack: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    stages, ours = kind()
    plain = kind()[1]
    images = torch.rand(70, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    monkeypatch.setattr(fitting, "STACK_ON_CPU", stack)
    fit_adam(stages, ours, images, steps=12, batch_size=16, seed=5)
    plain_adam(stages, plain, images, fitting._batches(70, 16, 12, 5))
    for one, other in zip(ours, plain, strict=True):
        for name, value in one.state_dict().items():
            torch.testing.assert_close(value, other.state_dict()[name], rtol=0, atol=2e-6)


def test_an_epoch_shows_every_image_once_and_the_next_in_another_order() -> None:
    batches = fitting._batches(100, 30, None, 0)
    assert [len(batch) for batch in batches] == [30, 30, 30, 10]
    assert sorted(torch.cat(batches).tolist()) == list(range(100))
    longer = fitting._batches(100, 30, 8, 0)
    assert torch.equal(torch.cat(longer[:4]), torch.cat(batches))
    assert not torch.equal(torch.cat(longer[4:]), torch.cat(batches))
    assert sorted(torch.cat(longer[4:]).tolist()) == list(range(100))


def test_progress_counts_every_stage() -> None:
    network = mlp((1, 3, 3), depth=7)
    images = torch.rand(20, 1, 3, 3)
    for fit in (fit_ridge, fit_adam):
        inverses = [LinearInverse((9,), s) for s in [(1, 3, 3)] + [(9,)] * 6]
        told: list[int] = []
        fit(network.stages, inverses, images, progress=told.append)
        assert sum(told) == 7


@pytest.mark.parametrize("fit", [fit_ridge, fit_adam])
def test_overflowing_activations_are_an_error_that_names_the_stage(fit) -> None:
    network = mlp((1, 3, 3), depth=3, activation="linear")
    initialise(network, sigma_w2=1.0, sigma_b2=0.0, seed=0)
    network.stages[0].linear.weight.data *= 1e18
    inverses = [LinearInverse((9,), s) for s in [(1, 3, 3)] + [(9,)] * 2]
    with pytest.raises(ValueError, match="activations after stage 1 overflow"):
        fit(network.stages, inverses, torch.rand(20, 1, 3, 3))


@pytest.mark.parametrize("images", [
    torch.zeros(50, 1, 3, 3), torch.rand(1, 1, 3, 3).expand(50, 1, 3, 3), torch.rand(3, 1, 3, 3)
], ids=["black", "all alike", "fewer than features"])  # fmt: skip
def test_rank_deficient_images_give_finite_inverses(images: torch.Tensor) -> None:
    network = mlp((1, 3, 3), depth=3)
    initialise(network, sigma_w2=1e6, sigma_b2=0.05, seed=0)
    inverses = [LinearInverse((9,), s) for s in [(1, 3, 3)] + [(9,)] * 2]
    fit_ridge(network.stages, inverses, images)
    for inverse in inverses:
        assert all(p.isfinite().all() for p in inverse.parameters())
    assert math.isfinite(float(inverses[0](network.stages[0](images)).detach().sum()))


def fitted_r_squared(arithmetic: str, activation: str = "tanh") -> torch.Tensor:
    network = mlp((1, 28, 28), depth=12, activation=activation)
    initialise(network, sigma_w2=2.5, sigma_b2=0.05, seed=0)
    data = load_dataset("digits")
    train, test = data.floats("train"), data.floats("test")
    cascade = Cascade.for_network(network, train[:1]).fit(train, arithmetic=arithmetic)
    return r_squared(test, cascade.reconstruct(test))


@pytest.mark.slow
def test_the_precision_of_the_moments_depends_on_the_resolution_and_on_no_processor() -> None:
    images = torch.zeros(1)
    assert arithmetic_of(images, 1e-3) == "float32"
    assert arithmetic_of(images, 3e-6) == "float64"
    assert arithmetic_of(images.double(), 1e-3) == "float64"
    assert torch.equal(fitted_r_squared("auto"), fitted_r_squared("float32"))


@pytest.mark.slow
def test_single_precision_moments_are_enough_for_the_default_resolution() -> None:
    single, double = fitted_r_squared("float32"), fitted_r_squared("float64")
    torch.testing.assert_close(single, double, rtol=0, atol=1e-4)


def test_rescaling_a_layer_of_a_relu_network_changes_no_picture() -> None:
    data = load_dataset("digits", limit=300)
    train, test = data.floats("train"), data.floats("test")
    pictures = []
    for factor in (1.0, 1000.0):
        network = mlp((1, 28, 28), depth=4, activation="relu", width=100)
        initialise(network, sigma_w2=2.0, sigma_b2=0.1, seed=0)
        with torch.no_grad():
            for parameter in network.stages[1].parameters():
                parameter.mul_(factor)
            network.stages[2].linear.weight.div_(factor)  # the later stages see the same
        pictures.append(Cascade.for_network(network, train[:1]).fit(train).reconstruct(test))
    torch.testing.assert_close(pictures[0], pictures[1], rtol=0, atol=2e-3)


def test_a_tanh_networks_resolution_is_absolute() -> None:
    # a signal far below the resolution is lost, however small the whole activation is
    x = torch.rand(500, 6, generator=torch.Generator().manual_seed(0))
    faint = nn.Sequential(nn.Linear(6, 6), nn.Tanh())
    with torch.no_grad():
        faint[0].weight.copy_(1e-3 * torch.eye(6))
        faint[0].bias.zero_()
    inverse = LinearInverse((6,), (6,))
    fit_ridge([faint], [inverse], x, resolution=1e-3)
    assert float(r_squared(x, inverse(faint(x)).detach())) < 0.02


def test_rescaling_a_convolution_of_a_relu_network_changes_no_picture() -> None:
    train, pictures = load_dataset("digits", limit=100).floats("train"), []
    for factor in (1.0, 1000.0):
        network = cnn((1, 28, 28), depth=2, channels=8, activation="relu")
        initialise(network, sigma_w2=2.0, sigma_b2=0.1, seed=0)
        with torch.no_grad():
            for parameter in network.stages[1].parameters():
                parameter.mul_(factor)
            network.stages[2].convolution.weight.div_(factor)  # the later stages see the same
        cascade = Cascade.for_network(network, train[:1]).fit(train, resolution=1e-3)
        pictures.append(cascade.reconstruct(train))
    torch.testing.assert_close(pictures[0], pictures[1], rtol=0, atol=2e-3)


def test_a_dead_relu_stage_gives_finite_inverses() -> None:
    dead = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    with torch.no_grad():
        dead[0].bias.fill_(-100)
    inverse = LinearInverse((4,), (4,))
    images = torch.rand(50, 4)
    fit_ridge([dead], [inverse], images)
    torch.testing.assert_close(inverse(torch.zeros(1, 4))[0], images.mean(0))


def test_an_unknown_arithmetic_is_named() -> None:
    stage, inverse = nn.Linear(2, 2), LinearInverse((2,), (2,))
    with pytest.raises(ValueError, match=r"arithmetic must be one of auto, .*; got 'int4'"):
        fit_ridge([stage], [inverse], torch.rand(3, 2), arithmetic="int4")


class Watched(nn.Module):
    """A stage that counts its samples, and the most numbers that it has taken or given at once."""

    def __init__(self, stage: nn.Module) -> None:
        super().__init__()
        self.stage = stage
        self.samples = self.most = 0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        outputs = self.stage(x)
        self.samples += len(x) if len(x) > 1 else 0  # one alone only tells the size
        self.most = max(self.most, x.numel(), outputs.numel())
        return outputs


def photographic() -> tuple[list[nn.Module], list[nn.Module]]:
    """Stages as of VGG, whose first levels are the largest, and their inverses."""
    torch.manual_seed(0)
    stages = [
        nn.Sequential(nn.Conv2d(1, 6, 3, padding=1), nn.ReLU()),
        nn.Sequential(nn.Conv2d(6, 6, 3, padding=1), nn.ReLU()),
        nn.MaxPool2d(2),
        nn.Sequential(nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()),
        nn.Flatten(),
        nn.Sequential(nn.Linear(72, 20), nn.ReLU()),
    ]
    shapes = [(1, 6, 6), (6, 6, 6), (6, 6, 6), (6, 3, 3), (8, 3, 3), (72,), (20,)]
    inverses = [
        inverse_of(stage, "stage", output_shape=after, input_shape=before, activation=None)
        for stage, (before, after) in zip(stages, pairwise(shapes), strict=True)
    ]
    return stages, inverses


@pytest.mark.parametrize("fit", [fit_ridge, fit_adam])
@pytest.mark.parametrize(("held", "passes"), [
    (216 * 60, [1, 1, 1, 1, 1, 1]),  # every level is held
    (72 * 60, [3, 2, 1, 1, 1, 1]),  # the third and all after it
    (0, [6, 5, 4, 3, 2, 1]),  # none: each is made anew from the images
])  # fmt: skip
def test_levels_that_cannot_be_held_are_made_anew_in_chunks(
    fit, held: int, passes: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    images = torch.rand(60, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    stages, plain = photographic()
    fit(stages, plain, images)
    stages, ours = photographic()
    watched = [Watched(stage) for stage in stages]
    monkeypatch.setattr(fitting, "HELD", held)
    monkeypatch.setattr(fitting, "AT_ONCE", 216 * 7)
    fit(watched, ours, images)
    for one, other in zip(ours, plain, strict=True):
        for name, value in one.state_dict().items():
            torch.testing.assert_close(value, other.state_dict()[name], rtol=1e-3, atol=1e-4)
    if fit is fit_ridge:  # the other one makes a batch of samples at each step
        assert [stage.samples for stage in watched] == [60 * times for times in passes]
        assert max(stage.most for stage in watched) <= max(216 * 7, held)


@pytest.mark.parametrize("fit", [fit_ridge, fit_adam])
def test_fitted_inverses_stay_and_the_others_are_fitted_as_ever(fit) -> None:
    images = torch.rand(60, 1, 6, 6, generator=torch.Generator().manual_seed(1))
    stages, whole = photographic()
    fit(stages, whole, images)
    _, rest = photographic()
    told: list[int] = []
    before = {name: value.clone() for name, value in rest[1].state_dict().items()}
    fit(stages, rest, images, fitted=3, progress=told.append)
    assert sum(told) == 3
    assert all(torch.equal(before[name], v) for name, v in rest[1].state_dict().items())
    for one, other in zip(rest[3:], whole[3:], strict=True):
        assert all(torch.equal(v, other.state_dict()[n]) for n, v in one.state_dict().items())
