import math

import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge
from torch import nn

from paperlib import Cascade, fitting, load_dataset, r_squared
from paperlib.fitting import Moments, fit_adam, fit_ridge
from paperlib.inverses import LinearInverse
from paperlib.networks import initialise, mlp


def normal(*shape: int, seed: int = 0, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


@pytest.mark.parametrize("resolution", [1e-6, 1e-3, 1.0])
@pytest.mark.parametrize(("samples", "features"), [(200, 30), (20, 30), (300, 140)])
def test_the_solution_is_scikit_learns_ridge(
    samples: int, features: int, resolution: float
) -> None:
    x, y = normal(samples, features) + 3, normal(samples, 4, seed=1)
    moments = Moments(torch.float64)
    moments.update(x, y)
    weight, bias = moments.solve(resolution)
    oracle = Ridge(alpha=resolution * samples).fit(x.numpy(), y.numpy())
    np.testing.assert_allclose(weight.numpy(), oracle.coef_, rtol=0, atol=1e-8)
    np.testing.assert_allclose(bias.numpy(), oracle.intercept_, rtol=0, atol=1e-8)


def test_chunks_of_any_size_give_the_moments_of_the_whole() -> None:
    x, y = normal(101, 9) * 5 + 100, normal(101, 3, seed=1)
    whole, parts = Moments(torch.float64), Moments(torch.float64)
    whole.update(x, y)
    for a, b in zip(x.split([1, 60, 3, 37]), y.split([1, 60, 3, 37]), strict=True):
        parts.update(a, b)
    for name in ("scatter", "cross", "mean_x", "mean_y"):
        torch.testing.assert_close(
            getattr(parts, name), getattr(whole, name), rtol=1e-12, atol=1e-9
        )
    assert parts.count == whole.count == 101
    np.testing.assert_allclose(whole.scatter.numpy() / 100, np.cov(x.numpy().T), rtol=1e-10)


def test_moments_do_not_change_their_samples() -> None:
    x, y = normal(10, 4), normal(10, 2, seed=1)
    before = x.clone(), y.clone()
    moments = Moments(torch.float64)
    moments.update(x, y)
    moments.solve(0.1)
    moments.solve(0.1)  # nor does solving change the moments
    assert torch.equal(x, before[0])
    assert torch.equal(y, before[1])
    assert torch.equal(moments.solve(0.1)[0], moments.solve(0.1)[0])


@pytest.mark.parametrize("width", [3, 127, 200, 513])
def test_the_gram_matrix_by_halves_is_the_gram_matrix(width: int) -> None:
    x = normal(40, width)
    torch.testing.assert_close(fitting._gram(x), x.T @ x)


def test_rank_deficient_samples_without_a_penalty_get_the_solution_of_least_norm() -> None:
    x = normal(50, 3) @ normal(3, 8, seed=2)  # rank 3 in 8 features
    y = normal(50, 2, seed=1)
    moments = Moments(torch.float64)
    moments.update(x, y)
    moments.scatter -= 1e-9 * torch.eye(8)  # what rounding does in float32: no longer definite
    weight, _ = moments.solve(0.0)
    centred = (x - x.mean(0)).numpy()
    oracle = np.linalg.pinv(centred, rcond=1e-6) @ (y - y.mean(0)).numpy()
    np.testing.assert_allclose(weight.numpy(), oracle.T, atol=1e-6)


def test_ridge_recovers_the_true_inverse_of_a_linear_stage_without_noise() -> None:
    stage = nn.Linear(20, 20).double()
    with torch.no_grad():
        stage.weight.copy_(torch.linalg.qr(normal(20, 20))[0])
    images = normal(200, 20)
    inverse = LinearInverse((20,), (20,)).double()
    fit_ridge([stage], [inverse], images, resolution=1e-12)
    torch.testing.assert_close(inverse.linear.weight, stage.weight.T, rtol=0, atol=1e-8)
    torch.testing.assert_close(inverse(stage(images)), images, rtol=0, atol=1e-8)


def test_a_component_at_the_resolution_comes_back_by_half() -> None:
    # ridge shrinks a component of variance v by v/(v+λ)
    x = normal(100_000, 2) * torch.tensor([1.0, 0.1], dtype=torch.float64)
    moments = Moments(torch.float64)
    moments.update(x, x)
    weight, _ = moments.solve(0.01)
    expected = torch.tensor([1 / 1.01, 0.5], dtype=torch.float64)
    torch.testing.assert_close(weight.diagonal(), expected, rtol=0, atol=0.01)


def test_long_training_by_adam_approaches_the_closed_form_from_above() -> None:
    network = mlp((1, 4, 4), depth=2, activation="erf")
    initialise(network, sigma_w2=1.5, sigma_b2=0.1, seed=0)
    images = torch.rand(256, 1, 4, 4, generator=torch.Generator().manual_seed(0))
    closed, trained = ([LinearInverse((16,), s) for s in ((1, 4, 4), (16,))] for _ in range(2))
    fit_ridge(network.stages, closed, images, resolution=1e-6)
    fit_adam(network.stages, trained, images, steps=3000, batch_size=256)
    activations = images
    with torch.no_grad():
        for stage, best, other in zip(network.stages, closed, trained, strict=True):
            codes = stage(activations)
            least, reached = ((c(codes) - activations).square().mean() for c in (best, other))
            assert least <= reached <= 1.2 * least + 1e-4
            activations = codes


def plain_adam(
    stages: nn.Sequential, inverses: list[LinearInverse], images: torch.Tensor, batches: list
) -> None:
    """The published loop: every batch through the network, one optimiser per stage."""
    optimisers = [torch.optim.Adam(inverse.parameters()) for inverse in inverses]
    for batch in batches:
        before = images[batch]
        for stage, inverse, optimiser in zip(stages, inverses, optimisers, strict=True):
            after = stage(before).detach()
            optimiser.zero_grad()
            nn.functional.mse_loss(inverse(after), before).backward()
            optimiser.step()
            before = after


@pytest.mark.parametrize("stack", [1, 2, 8])
def test_adam_is_the_published_loop_stacked_or_not(
    stack: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = mlp((1, 5, 5), depth=5, width=25)
    initialise(network, sigma_w2=1.7, sigma_b2=0.05, seed=0)
    images = torch.rand(70, 1, 5, 5, generator=torch.Generator().manual_seed(0))
    shapes = [(1, 5, 5)] + [(25,)] * 4

    def fresh() -> list[LinearInverse]:
        torch.manual_seed(0)
        return [LinearInverse((25,), shape, nn.Tanh()) for shape in shapes]

    ours, plain = fresh(), fresh()
    monkeypatch.setattr(fitting, "STACK_ON_CPU", stack)
    fit_adam(network.stages, ours, images, steps=12, batch_size=16, seed=5)
    plain_adam(network.stages, plain, images, fitting._batches(70, 16, 12, 5))
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
    initialise(network, sigma_w2=1e36, sigma_b2=0.0, seed=0)
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


def test_moments_of_rounded_activations_do_not_change_the_curve() -> None:
    rounded, single = fitted_r_squared("int8"), fitted_r_squared("float32")
    assert not torch.equal(rounded, single)  # so the rounding did take place
    torch.testing.assert_close(rounded, single, rtol=0, atol=1e-3)


def test_single_precision_moments_are_enough_for_the_default_resolution() -> None:
    single, double = fitted_r_squared("float32"), fitted_r_squared("float64")
    torch.testing.assert_close(single, double, rtol=0, atol=1e-4)


def test_activations_of_a_wide_range_are_not_rounded() -> None:
    x = normal(300, 20, dtype=torch.float32) * 50
    rounded, single = Moments(rounding=1e-3 / 20), Moments()
    for moments in (rounded, single):
        moments.update(x, x)
    assert torch.equal(rounded.scatter, single.scatter)


def test_rounding_adds_the_variance_of_its_unit() -> None:
    x = normal(20_000, 200, dtype=torch.float32)
    scatter, cross = fitting._rounded_products(x, x)
    assert torch.equal(scatter, cross)
    added = (scatter.double() - x.double().T @ x.double()).diagonal() / 20_000
    expected = (x.abs().amax(0).double() / 127).square() / 12
    assert float(added.mean()) == pytest.approx(float(expected.mean()), abs=3e-5)


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
    with pytest.raises(ValueError, match=r"arithmetic must be auto, .*; got 'int4'"):
        fit_ridge([stage], [inverse], torch.rand(3, 2), arithmetic="int4")
