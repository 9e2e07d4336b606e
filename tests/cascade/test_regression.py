import numpy as np
import pytest
import torch
from sklearn.linear_model import Ridge

from paperlib.cascade import regression
from paperlib.cascade.regression import Moments, Samples, Spectra


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


@pytest.mark.parametrize("sizes", [(30, 71), (1, 100), (3, 4)])
def test_moments_of_parts_add_up_to_those_of_all_and_stay_as_they_are(
    sizes: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(regression, "WIDE", 9)  # fewer samples than nine are kept as they are
    x, y = normal(sum(sizes), 9) * 5 + 100, normal(sum(sizes), 3, seed=1)
    whole, total = Moments(torch.float64), Moments(torch.float64)
    whole.update(x, y)
    parts = []
    for a, b in zip(x.split(sizes), y.split(sizes), strict=True):
        parts.append(Moments(torch.float64))
        parts[-1].update(a, b)
    before = [part.solve(0.1) for part in parts]
    for part in parts:
        total.add(part)
    exact = {"rtol": 1e-9, "atol": 1e-11}
    for found, expected in zip(total.solve(0.1), whole.solve(0.1), strict=True):
        torch.testing.assert_close(found, expected, **exact)
    for part, expected in zip(parts, before, strict=True):
        assert torch.equal(part.solve(0.1)[0], expected[0])


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
    torch.testing.assert_close(regression._gram(x), x.T @ x)


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


def test_a_component_at_the_resolution_comes_back_by_half() -> None:
    # ridge shrinks a component of variance v by v/(v+λ)
    x = normal(100_000, 2) * torch.tensor([1.0, 0.1], dtype=torch.float64)
    moments = Moments(torch.float64)
    moments.update(x, x)
    weight, _ = moments.solve(0.01)
    expected = torch.tensor([1 / 1.01, 0.5], dtype=torch.float64)
    torch.testing.assert_close(weight.diagonal(), expected, rtol=0, atol=0.01)


def shifts(fields: torch.Tensor) -> torch.Tensor:
    """Every field seen from every position: (n · h · w, channels · h · w)."""
    n, channels, h, w = fields.shape
    seen = [
        fields.roll((up, left), (2, 3)).flatten(2).mT for up in range(h) for left in range(w)
    ]  # at a position p: the value at p - (up, left)
    return torch.stack(seen, -1).reshape(n * h * w, channels * h * w)


@pytest.mark.parametrize("size", [(3, 4), (4, 3), (1, 1), (1, 5), (2, 2)])
def test_a_regression_by_frequencies_is_the_one_on_all_positions(size: tuple[int, int]) -> None:
    y, x = normal(90, 2, *size), normal(90, 3, *size, seed=1)
    x[:, 0] += y.roll(1, 3)[:, 1]
    spectra = Spectra(torch.float64)
    spectra.update(y, x)
    kernel = torch.fft.irfft2(spectra.solve(0.3), s=size)
    features, targets = shifts(y), x.permute(0, 2, 3, 1).reshape(-1, 3)
    covariance = features.T @ features / len(features) + 0.3 * torch.eye(features.shape[1]).double()
    expected = torch.linalg.solve(covariance, features.T @ targets / len(features)).T
    torch.testing.assert_close(kernel.flatten(1), expected, rtol=0, atol=1e-10)


def test_spectra_of_chunks_are_those_of_the_whole() -> None:
    y, x = normal(20, 2, 3, 3), normal(20, 1, 3, 3, seed=1)
    whole, parts = Spectra(torch.float64), Spectra(torch.float64)
    whole.update(y, x)
    for a, b in zip(y.split([1, 7, 12]), x.split([1, 7, 12]), strict=True):
        parts.update(a, b)
    torch.testing.assert_close(parts.solve(0.1), whole.solve(0.1), rtol=0, atol=1e-12)
    torch.testing.assert_close(parts.solve(0.1), parts.solve(0.1), rtol=0, atol=0)


def test_frequencies_without_full_rank_get_the_solution_of_least_norm() -> None:
    y = normal(50, 2, 3, 3) @ torch.ones(3, 3, dtype=torch.float64)  # constant along rows
    spectra = Spectra(torch.float64)
    spectra.update(y, y)
    spectra.scatter -= 1e-9 * torch.eye(2)  # what rounding does in float32: no longer definite
    kernel = torch.fft.irfft2(spectra.solve(0.0), s=(3, 3))
    assert kernel.isfinite().all()
    assert float(kernel.abs().max()) < 1.1


@pytest.mark.parametrize("samples", [1, 39, 40, 41, 90])
def test_few_samples_of_many_features_have_the_same_solution(
    samples: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = normal(samples, 40), normal(samples, 3, seed=1)
    solutions = []
    for wide in (10**9, 40):
        monkeypatch.setattr(regression, "WIDE", wide)
        moments = Moments(torch.float64)
        for a, b in zip(x.split(13), y.split(13), strict=True):
            moments.update(a, b)
        solutions.append(moments.solve(0.1))
        assert bool(moments.count) == (wide > 40 or samples >= 40)  # multiplied or not
    for products, direct in zip(*solutions, strict=True):
        torch.testing.assert_close(direct, products, rtol=0, atol=1e-10)


def test_a_relative_resolution_is_in_units_of_the_outputs_mean_square() -> None:
    outputs = [normal(7, 4, 3), normal(5, 4, 3, seed=1)]
    chunks = [(part, part) for part in outputs]
    relative, absolute = (
        Samples(chunks, 12, resolution=0.1, relative=relative) for relative in (True, False)
    )
    for samples in (relative, absolute):
        assert [len(part) for part, _ in samples] == [7, 5]
    square = float(torch.cat(outputs).square().mean())
    assert relative.resolution == pytest.approx(0.1 * square)
    assert absolute.resolution == 0.1
