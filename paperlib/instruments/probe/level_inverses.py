"""Affine inverses between two levels of any model, whatever layers lie between them.

Between two fields, every block of positions is predicted from the 3×3 (in sequences: 3) nearest
positions above it, with the same weights everywhere and one offset per position. If one of the two
levels is a vector, the regression uses all numbers at once.
"""

import math
from collections.abc import Iterator
from typing import NamedTuple

import torch
from torch import Tensor, nn

from paperlib import measures
from paperlib.activations.fields import Level
from paperlib.cascade.convolutions import SAMPLES, ConvolutionInverse
from paperlib.cascade.regression import Moments, Samples
from paperlib.cascade.windows import neighbourhood
from paperlib.instruments.probe.report import WORTHLESS

SCARCE = 4  # samples for each number, up to which a fit could follow noise
TARGETS = 4096  # of a vector's, that choose how coarse its resolution is
SURE = 0.98  # R² of the chain, from which on a stage is not read directly, too
BETTER = 0.5  # of the error that the chain leaves, which a direct reading must be below
LOW = 0.1  # R² of the chain, below which any direct reading that finds more is taken
GAIN = 0.02  # of R², that is more
UNREAD = "not readable"
DUAL = 2000  # samples up to which a field is also read as a whole
_RIDGES = tuple(10.0**power for power in range(7))  # of the resolution, where samples are few


class CheckedMoments(Moments):
    """Moments whose solution is checked on every fourth sample: as long as a coarser resolution, by
    powers of ten, predicts these better from the others, it is taken."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__(dtype)
        self._parts = (Moments(dtype), Moments(dtype))

    def update(self, features: Tensor, targets: Tensor) -> None:
        """Add a chunk of samples: features (n, p), targets (n, q)."""
        first = len(features) - len(features) // 4
        for part, rows in zip(self._parts, (slice(first), slice(first, None)), strict=True):
            if len(features[rows]):
                part.update(features[rows], targets[rows])

    def solve(self, resolution: float) -> tuple[Tensor, Tensor]:
        """Weight (q, p) and bias (q,), see `Moments.solve`, at the best resolution from this on."""
        whole = Moments(self.dtype)
        for part in self._parts:
            whole.add(part)
        return whole.solve(self._checked(resolution))

    def _checked(self, resolution: float) -> float:
        fitted, checked = self._parts
        if not (checked.count and fitted.count):
            return resolution
        best, least = resolution, math.inf
        for tried in (factor * resolution for factor in _RIDGES):
            weight = fitted.solve(tried)[0]
            explained = 2 * (weight * checked.cross).sum()
            error = float(((weight @ checked.scatter) * weight).sum() - explained)
            if not error < least:
                break
            best, least = tried, error
        return best


class Local:
    """From a field to a field below it, neighbourhood by neighbourhood.

    Args:
        upper, lower: what is read, and what is predicted.
        turned: a sequence above runs along the rows of the field below, not along its columns.
    """

    def __init__(self, upper: Level, lower: Level, *, turned: bool = False) -> None:
        self.turned = turned
        channels, height, width = lower.kept_shape
        sides = (upper.width, upper.height) if turned else (upper.height, upper.width)
        window = neighbourhood(upper.channels, sides, (height, width))
        self.size = (-(-height // window.stride[0]), -(-width // window.stride[1]))
        self.inverse = ConvolutionInverse(
            window, (upper.channels, *self.size), (channels, height, width)
        )

    def fit(self, codes: Tensor, targets: Tensor, resolution: float, dtype: torch.dtype) -> None:
        """Fit the ridge regression of targets (n, …) on codes (n, …)."""
        self.inverse.to(codes.dtype)
        pairs = [(self._resized(codes), targets)]
        samples = Samples(pairs, len(codes), resolution=resolution)
        self.inverse.solve(samples, CheckedMoments(dtype))

    def __call__(self, codes: Tensor) -> Tensor:
        """The estimated fields (n, *lower.kept_shape) of codes (n, *upper.kept_shape)."""
        return self.inverse(self._resized(codes))

    def _resized(self, codes: Tensor) -> Tensor:
        codes = codes.transpose(2, 3) if self.turned else codes
        if tuple(codes.shape[2:]) == self.size:
            return codes.contiguous()
        if codes.shape[2] > self.size[0] or codes.shape[3] > self.size[1]:
            return nn.functional.adaptive_avg_pool2d(codes, self.size)
        return nn.functional.interpolate(codes, self.size, mode="bilinear", align_corners=False)


class Dense:
    """From all numbers of a level to all of a level below it.

    A fit to fewer samples than four times the numbers could follow noise; its resolution grows, by
    powers of ten, where leaving out one sample says that this predicts better. Such a fit is solved
    by the samples' products, and kept as these samples where that is smaller.
    """

    def __init__(self, lower: Level) -> None:
        self.shape = lower.kept_shape
        self.weight: Tensor | None = None

    def fit(self, codes: Tensor, targets: Tensor, resolution: float, dtype: torch.dtype) -> None:
        """Fit the ridge regression of targets (n, …) on codes (n, …)."""
        x, y = codes.flatten(1), targets.flatten(1)
        (n, p), q = x.shape, y.shape[1]
        if n > SCARCE * p and q * p <= n * (p + q):
            moments = Moments(dtype)
            moments.update(x, y)
            weight, bias = moments.solve(resolution)
            self.weight, self.bias = weight.to(codes.dtype), bias.to(codes.dtype)
            return
        self.code, self.mean = x.mean(0), y.mean(0)
        x, y = (x - self.code).to(dtype), (y - self.mean).to(dtype)
        values, vectors = torch.linalg.eigh((x @ x.T / n).double())
        values = values.clamp(min=0)
        if n <= SCARCE * p:
            resolution *= _best_ridge(
                values, vectors, y[:, :: -(-y.shape[1] // TARGETS)].double(), resolution
            )
        dual = (vectors / (values + resolution)) @ vectors.T / n
        self.read = (dual.to(x.dtype) @ x).to(codes.dtype)  # (n, p)
        self.samples = y.to(codes.dtype)
        if q * p <= n * (p + q):
            self.weight = self.samples.T @ self.read
            self.bias = self.mean - self.weight @ self.code
            del self.read, self.samples

    def __call__(self, codes: Tensor) -> Tensor:
        """The estimated fields (n, *lower.kept_shape) of codes (n, *upper.kept_shape)."""
        x = codes.flatten(1)
        if self.weight is not None:
            found = torch.addmm(self.bias, x, self.weight.T)
        else:
            found = torch.addmm(self.mean, (x - self.code) @ self.read.T, self.samples)
        return found.unflatten(1, self.shape)


LevelInverse = Local | Dense


def inverse_between(upper: Level, lower: Level, samples: int) -> LevelInverse:
    """Return an inverse that is not yet fitted, from the upper level to the lower one.

    Args:
        upper, lower: what is read, and what is predicted.
        samples: how many there are to fit it to.
    """
    if min(upper.height * upper.width, lower.height * lower.width) == 1:
        return Dense(lower)
    local = Local(upper, lower)
    positions = min(SAMPLES, samples * math.prod(local.size))
    if positions < upper.channels:  # too few to be regressed on, position by position
        return Dense(lower)
    return local


class Read(NamedTuple):
    """What came back from a stage: of the held-out images, of the first of them, and how."""

    r_squared: float
    way: str
    picture: Tensor


class Chain:
    """Inverses from stage to stage, down to the images.

    Long chains add up their errors. Where a direct regression from a stage to the images predicts
    better, it is taken, and the chain goes on from there.

    Args:
        images: (n, channels, height, width), those that are fitted first.
        train: how many these are.
        level: of the images.
    """

    def __init__(self, images: Tensor, train: int, level: Level) -> None:
        self.train, self.images, self.level = train, images[:train], level
        self.test, self.mean = images[train:], images[:train].mean(0)
        self._inverses: list[LevelInverse] = []
        self._below, self._below_level = self.images, level

    def read(
        self, codes: Tensor, level: Level, resolution: float, dtype: torch.dtype, cut: bool
    ) -> Read:
        """Read the images from activations (n, …), and put those of a cut on top of the chain."""
        fitted, held_out = codes[: self.train], codes[self.train :]
        best: tuple[float, Tensor, list[LevelInverse]] | None = None
        way = "direct"
        if cut:
            inverse = fitted_inverse(
                (level, self._below_level), fitted, self._below, resolution, dtype
            )
            back = inverse(held_out)
            for earlier in reversed(self._inverses):
                back = earlier(back)
            best, way = (self._kept(back), back, [*self._inverses, inverse]), "cascade"
        for inverse in self._direct(level, fitted, resolution, dtype, best and best[0]):
            back = inverse(held_out)
            kept = self._kept(back)
            if best is None or _is_better(kept, best[0], chained=way == "cascade"):
                best, way = (kept, back, [inverse]), "direct"
        assert best is not None
        kept, back, inverses = best
        if cut:
            self._inverses, self._below, self._below_level = inverses, fitted, level
        if not kept > WORTHLESS:
            way = UNREAD
        return Read(kept, way, back[:1])

    def _kept(self, back: Tensor) -> float:
        return float(measures.r_squared(self.test, back, mean=self.mean))

    def _direct(
        self,
        level: Level,
        codes: Tensor,
        resolution: float,
        dtype: torch.dtype,
        chained: float | None,
    ) -> Iterator[LevelInverse]:
        """Inverses from a level to the images, while those before them were not sure."""
        if chained is not None and (chained > SURE or not self._inverses):
            first = None
        else:
            first = fitted_inverse((level, self.level), codes, self.images, resolution, dtype)
            yield first
        sure = chained is not None and chained > SURE
        if isinstance(first, Dense) or sure or self.train > DUAL:
            return
        whole = Dense(self.level)
        whole.fit(codes, self.images, resolution, dtype)
        yield whole


def _is_better(direct: float, before: float, *, chained: bool) -> bool:
    """Whether a direct reading is taken instead of what came before, the chain or another one."""
    if not chained or math.isnan(before):
        return not direct <= before
    most = max(before + GAIN, 1 - BETTER * (1 - before) if before > LOW else -math.inf)
    return direct > most


def fitted_inverse(
    levels: tuple[Level, Level],
    codes: Tensor,
    targets: Tensor,
    resolution: float,
    dtype: torch.dtype,
) -> LevelInverse:
    """Return an inverse from the upper level to the lower one, fitted to codes and targets (n, …).

    Where a sequence lies above a field, or below, it may run along the rows or the columns: that
    which predicts every fourth sample better from the others is taken.
    """
    upper, lower = levels
    makers = [lambda: inverse_between(upper, lower, len(codes))]
    first = makers[0]()
    if isinstance(first, Local) and (upper.height == 1) != (lower.height == 1):
        makers.append(lambda: Local(upper, lower, turned=True))
    if len(makers) > 1:
        some = len(codes) - len(codes) // 4
        errors = []
        for make in makers:
            tried = make()
            tried.fit(codes[:some], targets[:some], resolution, dtype)
            errors.append(float((tried(codes[some:]) - targets[some:]).square().mean()))
        first = makers[errors.index(min(errors))]()
    first.fit(codes, targets, resolution, dtype)
    return first


def _best_ridge(values: Tensor, vectors: Tensor, y: Tensor, resolution: float) -> float:
    """The factor of the resolution with which each sample is best predicted from the others."""
    turned = vectors.T @ y
    errors = []
    for factor in _RIDGES:
        kept = values / (values + factor * resolution)
        left = y - vectors @ (kept[:, None] * turned)
        # the mean is fitted, too: it takes 1/n of every sample
        own = (vectors.square() * kept).sum(1) + 1 / len(y)
        errors.append(float((left / (1 - own).clamp(min=1e-9)[:, None]).square().sum()))
    return _RIDGES[min(range(len(errors)), key=errors.__getitem__)]
