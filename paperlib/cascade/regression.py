"""Ridge regression from second moments that are summed chunk by chunk."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor

CHUNK = 4096  # samples that are taken in at a time
WIDE = 2048  # features from which on a product of samples is the cheaper one if they are fewer
_SUMMED = 2**24  # numbers that are squared and summed at a time, in float64


class Samples:
    """A stage's outputs and inputs, to be gone through once, and the resolution of the regression
    of these on those.

    Args:
        chunks: pairs of outputs (n, *shape) and inputs (n, *shape).
        count: samples in all chunks together.
        resolution: λ in squared units of the outputs.
        relative: λ is in units of the outputs' mean square instead.
    """

    def __init__(
        self,
        chunks: Iterable[tuple[Tensor, Tensor]],
        count: int,
        *,
        resolution: float,
        relative: bool = False,
    ) -> None:
        self.count = count
        self._chunks = chunks
        self._resolution = resolution
        self._relative = relative
        self._squares, self._numbers = 0.0, 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        for outputs, inputs in self._chunks:
            if self._relative:
                parts = outputs.flatten().split(_SUMMED)
                norms = (torch.linalg.vector_norm(part, dtype=torch.float64) for part in parts)
                self._squares += sum(float(norm) ** 2 for norm in norms)
                self._numbers += outputs.numel()
            yield outputs, inputs

    @property
    def resolution(self) -> float:
        """λ in squared units of the outputs; a relative one is known after the last chunk."""
        return self._resolution * (self._squares / self._numbers if self._relative else 1.0)


class Moments:
    """Streaming second moments of features and targets, and the ridge regression they determine.

    Chunks are centred before their products are taken and merged exactly (Chan, Golub & LeVeque
    1979), so nothing cancels, and memory does not grow with the number of samples. As long as
    there are fewer samples than features, and many features, the samples themselves are kept: the
    same solution then follows from their n × n products.
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.count = 0
        self._kept: list[tuple[Tensor, Tensor]] = []  # chunks that are not yet multiplied

    def update(self, features: Tensor, targets: Tensor) -> None:
        """Add a chunk of samples: features (n, p), targets (n, q)."""
        self._kept.append((features.to(self.dtype), targets.to(self.dtype)))
        samples, width = sum(len(x) for x, _ in self._kept), features.shape[1]
        if self.count or width < WIDE or samples >= width:
            for x, y in self._kept:
                self._multiply(x, y)
            self._kept = []

    def _multiply(self, x: Tensor, y: Tensor) -> None:
        mean_x, mean_y = x.mean(0), y.mean(0)
        x, y = x - mean_x, y - mean_y
        self._merge(len(x), mean_x, mean_y, _gram(x), y.T @ x)

    def add(self, other: "Moments") -> None:
        """Take in the samples of others, which stay as they are."""
        if other.count:
            self._merge(
                other.count, other.mean_x, other.mean_y, other.scatter.clone(), other.cross.clone()
            )
        chunks, self._kept = self._kept + other._kept, []
        for x, y in chunks:
            self.update(x, y)

    def _merge(
        self, n: int, mean_x: Tensor, mean_y: Tensor, scatter: Tensor, cross: Tensor
    ) -> None:
        """Take in n samples by their moments; the matrices are overwritten."""
        if self.count == 0:
            self.scatter, self.cross, self.mean_x, self.mean_y = scatter, cross, mean_x, mean_y
        else:
            shift_x, shift_y = mean_x - self.mean_x, mean_y - self.mean_y
            weight = self.count * n / (self.count + n)
            self.scatter += scatter.addr_(shift_x, shift_x, alpha=weight)
            self.cross += cross.addr_(shift_y, shift_x, alpha=weight)
            self.mean_x = self.mean_x + shift_x * (n / (self.count + n))
            self.mean_y = self.mean_y + shift_y * (n / (self.count + n))
        self.count += n

    def solve(self, resolution: float) -> tuple[Tensor, Tensor]:
        """Weight (q, p) and bias (q,) that minimise mean |y - Wx - b|² + resolution·|W|²."""
        if self._kept:
            x, y = (torch.cat(chunks) for chunks in zip(*self._kept, strict=True))
            return _solve_by_samples(x, y, resolution)
        weight = _ridge(self.scatter / self.count, self.cross / self.count, resolution)
        return weight, self.mean_y - weight @ self.mean_x


class Spectra:
    """The same for periodic fields and a map that commutes with their shifts: one Moments per
    frequency, without centring.

    Such a map is diagonal in Fourier space, so that the regression on *all* h·w positions at once
    falls apart into h·w small ones, and costs less than one on 3×3 neighbourhoods.
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.count = 0

    def update(self, features: Tensor, targets: Tensor) -> None:
        """Add a chunk of samples: features (n, p, h, w), targets (n, q, h, w)."""
        x, y = (_frequencies(fields.to(self.dtype)) for fields in (features, targets))
        scatter, cross = x @ x.mH, y @ x.mH
        if self.count == 0:
            self.scatter, self.cross = scatter, cross
        else:
            self.scatter += scatter
            self.cross += cross
        self.count += len(features)

    def solve(self, resolution: float) -> Tensor:
        """The gain (q, p, h, w/2 + 1), complex, of the circular convolution W that minimises
        mean |y - Wx|² + resolution·|W|², the mean over samples and positions."""
        gain = _ridge(self.scatter / self.count, self.cross / self.count, resolution)
        return gain.permute(2, 3, 0, 1)


def _frequencies(fields: Tensor) -> Tensor:
    """(n, channels, h, w) as (h, w/2 + 1, channels, n), of unchanged mean square."""
    return torch.fft.rfft2(fields, norm="ortho").permute(2, 3, 1, 0).contiguous()


def _ridge(covariance: Tensor, cross: Tensor, resolution: float) -> Tensor:
    """cross @ (covariance + resolution)⁻¹; the covariance is overwritten.

    By Cholesky; where rounding has made a matrix indefinite, by its eigenvalues in float64, with
    those below rounding left out (the solution of least norm).
    """
    covariance.diagonal(dim1=-2, dim2=-1).add_(resolution)
    factor, failed = torch.linalg.cholesky_ex(covariance)
    if failed.any():
        exact = torch.promote_types(covariance.dtype, torch.float64)
        return _eigen_solve(covariance.to(exact), cross.to(exact)).to(cross.dtype)
    # two triangular solves from the right: a third faster than cholesky_solve
    half = torch.linalg.solve_triangular(factor.mH, cross, upper=True, left=False)
    return torch.linalg.solve_triangular(factor, half, upper=False, left=False)


def _solve_by_samples(x: Tensor, y: Tensor, resolution: float) -> tuple[Tensor, Tensor]:
    """The ridge regression by the products of samples: Yᵀ(XXᵀ + nλ)⁻¹X for centred X and Y."""
    mean_x, mean_y = x.mean(0), y.mean(0)
    x, y = x - mean_x, y - mean_y
    weight = _ridge(x @ x.T / len(x), y.T / len(x), resolution) @ x
    return weight, mean_y - weight @ mean_x


def _eigen_solve(covariance: Tensor, cross: Tensor) -> Tensor:
    values, vectors = torch.linalg.eigh(covariance)
    floor = values[..., -1:] * values.shape[-1] * torch.finfo(torch.float32).eps
    reciprocal = torch.where(values > floor, 1 / values, 0)
    return (cross @ vectors) * reciprocal[..., None, :] @ vectors.mH


def _gram(x: Tensor, levels: int = 2) -> Tensor:
    """x.T @ x by halves, the lower one mirrored: 5/8 of the products of the full matrix."""
    half = x.shape[1] // 2
    if levels == 0 or half < 64:
        return x.T @ x
    left, right = x[:, :half], x[:, half:]
    gram = x.new_empty(x.shape[1], x.shape[1])
    gram[:half, :half] = _gram(left, levels - 1)
    gram[half:, half:] = _gram(right, levels - 1)
    gram[:half, half:] = left.T @ right
    gram[half:, :half] = gram[:half, half:].T
    return gram
