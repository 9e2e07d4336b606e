"""How much of an image is left in a reconstruction: entropies in nats, R², and two depths.

Images come as (batch, *image), and as (levels, batch, *image) where they were reconstructed from
several levels; a measure then returns one value (or row) per level. Every measure computes in
float64, accepts any real tensor or array, and leaves its arguments alone. What cannot be measured
(NaN or infinite pixels) is NaN in the result, with a RuntimeWarning.
"""

import math
import warnings
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from paperlib.core.checks import checked

Values = Tensor | NDArray[np.generic] | Sequence[float]

# Keeps the logarithm of a black pixel finite.
PIXEL_FLOOR = 1e-12
# Standard deviation at which a pixel counts as the same in all images (of sum 1): −19.3 nats.
STD_FLOOR = 1e-9
# |sum| / Σ|x| below which "divide by the sum" would only amplify noise.
SMALLEST_SUM = 1e-6
# R² below which an image counts as lost.
LOST = 0.02
# Size of what varies, relative to the images, below which it is only rounding.
ROUNDING = 1e-12


def relative_entropy(reference: Values, reconstruction: Values) -> Tensor:
    """Return the relative entropy D(reference ‖ reconstruction) of each image, in nats.

    Each image is shifted to minimum 0, lifted by 1e-12 and normalised to sum 1.

    Example:
        >>> import torch
        >>> from paperlib import relative_entropy
        >>> images = torch.rand(3, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> relative_entropy(images, images).tolist()
        [0.0, 0.0, 0.0]
        >>> bool((relative_entropy(images, images.flip(-1)) > 0).all())
        True

    Args:
        reference: (batch, *image).
        reconstruction: (batch, *image) or (levels, batch, *image), images flat or not.

    Returns:
        (batch,) or (levels, batch), float64.

    Raises:
        ValueError: shapes do not match (message shows both).

    Source: arXiv:2406.12916.
    """
    images, levels, single = _pair(reference, reconstruction)
    target = _as_distribution(images.double())
    rows = [_divergence(target, _as_distribution(level.double())) for level in levels]
    return _finite("relative_entropy", rows, single)


def differential_entropy(images: Values) -> Tensor:
    """Return the differential entropy per pixel of a batch, in nats: −19.3 where all images agree.

    Each image is divided by its sum; then the mean over pixels of ½ ln(2πe) + ln(max(std, 1e-9)),
    with the standard deviation (n−1) over the batch. NaN where an image's sum is not positive
    (<= 1e-6 Σ|x|). It is not the number of the published figures, see
    `differential_entropy_published`.

    Example:
        >>> import torch
        >>> from paperlib import differential_entropy
        >>> images = torch.rand(50, 64, generator=torch.Generator().manual_seed(0))
        >>> collapsed = images[:1].expand(50, 64)  # 50 times the same image
        >>> round(float(differential_entropy(collapsed)), 1)
        -19.3
        >>> bool(differential_entropy(images) > differential_entropy(collapsed))
        True

    Args:
        images: (batch, pixels), (levels, batch, pixels), (batch, channels, height, width) or
            (levels, batch, channels, height, width), told apart by their number of axes.

    Returns:
        a scalar, or (levels,), float64.

    Raises:
        ValueError: another number of axes, or fewer than two images.

    Source: arXiv:2406.12916.
    """
    levels, single = _stack(images)
    rows = [_gaussian_entropy(_by_sum(level.double())) for level in levels]
    return _finite("differential_entropy", rows, single)


def differential_entropy_published(images: Values) -> Tensor:
    """Return the differential entropy of a batch as in the published figures, in nats per pixel.

    Each image is shifted to minimum 0, lifted by 1e-12 and normalised to sum 1, as for
    `relative_entropy`; the rest is as in `differential_entropy`, −19.3 where all are the same. The
    authors' scripts measure the relative entropy first, which shifts the images in place. An
    image's brightness and contrast do not count, and one of negative sum has a value too.

    Example:
        >>> import torch
        >>> from paperlib import differential_entropy_published
        >>> images = torch.rand(50, 64, generator=torch.Generator().manual_seed(0))
        >>> dimmed = 0.5 * images + 0.2
        >>> pair = differential_entropy_published(torch.stack([images, dimmed]))
        >>> bool(pair[0].isclose(pair[1]))
        True

    Args:
        images: (batch, pixels), (levels, batch, pixels), (batch, channels, height, width) or
            (levels, batch, channels, height, width), told apart by their number of axes.

    Returns:
        a scalar, or (levels,), float64; finite for finite images.

    Raises:
        ValueError: another number of axes, or fewer than two images.

    Source: arXiv:2406.12916.
    """
    levels, single = _stack(images)
    rows = [_gaussian_entropy(_as_distribution(level.double())) for level in levels]
    return _finite("differential_entropy_published", rows, single)


def gram_entropy(images: Values) -> Tensor:
    """Return the von Neumann entropy of a batch's Gram matrix in units of ln(batch), from 0 to 1.

    Rows are centred and normalised, G = AAᵀ/batch, S = −Tr(G ln G)/ln(batch). A constant image has
    no direction: its row stays zero and adds nothing.

    Example:
        >>> import torch
        >>> from paperlib import gram_entropy
        >>> orthogonal = torch.tensor([[1.0, -1.0, 0.0, 0.0], [0.0, 0.0, 1.0, -1.0]])
        >>> round(float(gram_entropy(orthogonal)), 6)
        1.0
        >>> round(float(gram_entropy(orthogonal[[0, 0]])), 6)  # twice the same image
        0.0

    Args:
        images: (batch, pixels), (levels, batch, pixels), (batch, channels, height, width) or
            (levels, batch, channels, height, width), told apart by their number of axes.

    Returns:
        a scalar, or (levels,), float64, in [0, 1].

    Raises:
        ValueError: another number of axes, or fewer than two images.
    """
    levels, single = _stack(images)
    grams = torch.stack([_gram(level.double()) for level in levels])
    broken = ~grams.isfinite().all(dim=(1, 2))
    spectra = torch.linalg.eigvalsh(grams.masked_fill(broken[:, None, None], 0)).clamp(min=0)
    values = torch.special.entr(spectra).sum(dim=1) / math.log(levels.shape[1])
    # Rounding can leave the interval, by about 1e-15.
    values = values.clamp(0, 1).masked_fill(broken, math.nan)
    return _finite("gram_entropy", list(values), single)


def r_squared(reference: Values, reconstruction: Values, *, mean: Values | None = None) -> Tensor:
    """Return R², the fraction of the images that survives: 1 perfect, 0 no better than the mean.

    1 − MSE / mean squared distance of the reference to `mean`, over all images and pixels.

    Example:
        >>> import torch
        >>> from paperlib import r_squared
        >>> images = torch.rand(50, 1, 8, 8, generator=torch.Generator().manual_seed(0))
        >>> faded = 0.5 * (images + images.mean(0))  # halfway to the mean image
        >>> round(float(r_squared(images, images)), 6), round(float(r_squared(images, faded)), 6)
        (1.0, 0.75)

    Args:
        reference: (batch, *image).
        reconstruction: (batch, *image) or (levels, batch, *image), images flat or not.
        mean: per pixel, *image or flat, e.g. the training set's; the reference batch's by default.

    Returns:
        a scalar, or (levels,), float64; NaN where the reference does not differ from the mean.

    Raises:
        ValueError: shapes do not match (message shows both), or one image without `mean`.
    """
    images, levels, single = _pair(reference, reconstruction)
    images = images.double()
    if mean is None and len(images) < 2:
        raise ValueError("a reference of one image needs mean=, the mean image to compare with")
    centre = images.mean(dim=0) if mean is None else _mean_image(mean, images)
    spread = (images - centre).square().mean()
    constant = spread <= ROUNDING**2 * images.square().mean()
    spread = spread.masked_fill(constant, math.nan)
    rows = [1 - (level.double() - images).square().mean() / spread for level in levels]
    return _finite("r_squared", rows, single)


def collapse_depth(curve: Values, *, threshold: float = LOST) -> int:
    """Return the first depth (1-based) from which R² stays below `threshold`; depth + 1 if none.

    NaN counts as below: a diverged reconstruction holds no image.

    Example:
        >>> from paperlib import collapse_depth
        >>> collapse_depth([0.9, 0.4, 0.01, 0.0])
        3
        >>> collapse_depth([0.9, 0.4])  # never lost within two stages
        3

    Args:
        curve: (depth,), R² at depth 1, 2, …
        threshold: R² at which the image counts as lost.

    Raises:
        ValueError: the curve is empty or not one-dimensional.
    """
    threshold = checked("threshold", threshold, float)
    values = _tensor("curve", curve)
    if values.ndim != 1 or not values.numel():
        raise ValueError(f"curve must have shape (depth,), depth >= 1, got {_shape(values)}")
    alive = (values >= threshold).nonzero()
    return int(alive.max()) + 2 if len(alive) else 1


def cutoff(curves: Values, *, rtol: float) -> int:
    """Return the last depth (1-based) at which relative entropy differs from its end; 0 if none.

    Each image's curve is divided by its last value; the median over images then differs from 1 by
    more than rtol. It depends on how deep one measured: kept to compare with the publication, whose
    code counts from 0 and gives the curve's length where it is constant.
    Images with a value that is not finite, or a last value of 0, are left out with a
    RuntimeWarning.

    Example:
        >>> import torch
        >>> from paperlib import cutoff
        >>> curves = torch.tensor([[1.0, 1.0], [1.5, 1.6], [2.0, 2.0], [2.0, 2.0]])
        >>> cutoff(curves, rtol=0.005)
        2

    Args:
        curves: (depth, batch), relative entropy in nats; of one curve (depth,), such as that of
            the differential entropy, `curve[:, None]`.
        rtol: 0.005 for MLPs, 0.01 for CNNs and ResNets, as published.

    Raises:
        ValueError: not (depth, batch), no image is usable, or rtol is negative.

    Source: arXiv:2406.12916.
    """
    rtol = checked("rtol", rtol, float, low=0)
    ratios, usable = _by_last(curves)
    if not usable.any():
        raise ValueError(
            f"cutoff: none of {len(usable)} curves is finite with a last value other than 0"
        )
    _warn_left_out("cutoff", usable)
    return int(_last_distinct(ratios[:, usable].quantile(0.5, dim=1, keepdim=True), rtol))


def cutoffs(curves: Values, *, rtol: float) -> Tensor:
    """Return the cutoff of each image's own curve: as `cutoff`, without the median over images.

    Counted in the same way: 1-based, 0 for a curve that nowhere differs from its last value.

    Example:
        >>> import torch
        >>> from paperlib import cutoffs
        >>> curves = torch.tensor([[1.0, 2.0], [1.5, 2.0], [2.0, 2.0], [2.0, 2.0]])
        >>> cutoffs(curves, rtol=0.005).tolist()
        [2, 0]

    Args:
        curves: (depth, batch), relative entropy in nats.
        rtol: 0.005 for MLPs, 0.01 for CNNs and ResNets, as published.

    Returns:
        (batch,), int64; −1 with a RuntimeWarning for images with a value that is not finite, or a
        last value of 0.

    Raises:
        ValueError: not (depth, batch), or rtol is negative.

    Source: arXiv:2406.12916.
    """
    rtol = checked("rtol", rtol, float, low=0)
    ratios, usable = _by_last(curves)
    _warn_left_out("cutoffs", usable)
    return _last_distinct(ratios, rtol).masked_fill(~usable, -1)


def _by_last(curves: Values) -> tuple[Tensor, Tensor]:
    """Curves (depth, batch) divided by their last values, and which of them (batch,) can be."""
    values = _tensor("curves", curves).double()
    if values.ndim != 2 or not values.numel():
        raise ValueError(f"curves must have shape (depth, batch), got {_shape(values)}")
    return values / values[-1], values.isfinite().all(dim=0) & (values[-1] != 0)


def _warn_left_out(measure: str, usable: Tensor) -> None:
    if not usable.all():
        warnings.warn(
            f"{measure} leaves out {int((~usable).sum())} of {len(usable)} images: not finite, "
            "or 0",
            RuntimeWarning,
            stacklevel=3,
        )


def _last_distinct(ratios: Tensor, rtol: float) -> Tensor:
    """The last depth (1-based) at which each of the ratios (depth, batch) differs from 1, or 0."""
    depths = torch.arange(1, len(ratios) + 1, device=ratios.device)[:, None]
    return (depths * ((ratios - 1).abs() > rtol)).amax(dim=0)


def _as_distribution(images: Tensor) -> Tensor:
    lifted = images - images.amin(dim=1, keepdim=True) + PIXEL_FLOOR
    return lifted / lifted.sum(dim=1, keepdim=True)


def _divergence(target: Tensor, estimate: Tensor) -> Tensor:
    # Rounding can make the divergence of nearly equal images negative, by about 1e-16.
    return (target * (target.log() - estimate.log())).sum(dim=1).clamp(min=0)


def _by_sum(images: Tensor) -> Tensor:
    total = images.sum(dim=1, keepdim=True)
    undefined = total <= SMALLEST_SUM * images.abs().sum(dim=1, keepdim=True)
    return images / total.masked_fill(undefined, math.nan)


def _gaussian_entropy(normalised: Tensor) -> Tensor:
    std = normalised.std(dim=0).clamp(min=STD_FLOOR)
    return std.log().mean() + 0.5 * math.log(2 * math.pi * math.e)


def _gram(images: Tensor) -> Tensor:
    rows = images - images.mean(dim=1, keepdim=True)
    norms = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
    constant = norms <= ROUNDING * torch.linalg.vector_norm(images, dim=1, keepdim=True)
    rows = (rows / norms).masked_fill(constant, 0)
    return torch.mm(rows, rows.T) / len(rows)


def _mean_image(mean: Values, images: Tensor) -> Tensor:
    values = _tensor("mean", mean)
    if values.numel() != images.shape[1]:
        raise ValueError(
            f"mean must hold {images.shape[1]} pixels as each image does, got {_shape(values)}"
        )
    return values.to(images.device).double().flatten()


def _pair(reference: Values, reconstruction: Values) -> tuple[Tensor, Tensor, bool]:
    """Images (batch, pixels), reconstructions (levels, batch, pixels), and if levels was missing.

    The reference's own layout and the flat one are recognised first: with one image and one level
    the number of elements alone does not tell an axis of levels from one of channels.
    """
    images = _tensor("reference", reference)
    levels = _tensor("reconstruction", reconstruction)
    if images.ndim < 2 or not images.numel() or not levels.numel():
        raise _mismatch(images, levels)
    batch, pixels, shape = len(images), images[0].numel(), levels.shape
    known = (images.shape, torch.Size((batch, pixels)))
    single = shape in known or (
        shape[1:] not in known and shape[:1] == (batch,) and shape[1:].numel() == pixels
    )
    if not single and (shape[1:2] != (batch,) or shape[2:].numel() != pixels):
        raise _mismatch(images, levels)
    flat = levels.reshape(-1, batch, pixels)
    return images.reshape(batch, pixels).to(flat.device), flat, single


def _mismatch(reference: Tensor, reconstruction: Tensor) -> ValueError:
    return ValueError(
        "reference must be (batch, *image) and reconstruction (batch, *image) or (levels, batch, "
        f"*image) of as many pixels, got {_shape(reference)} and {_shape(reconstruction)}"
    )


def _stack(images: Values) -> tuple[Tensor, bool]:
    """Images as (levels, batch, pixels), and whether the axis of levels was missing."""
    values = _tensor("images", images)
    if values.ndim not in (2, 3, 4, 5) or not values.numel():
        raise ValueError(
            "images must be (batch, pixels) or (batch, channels, height, width), with or without "
            f"a leading axis of levels, got {_shape(values)}"
        )
    single = values.ndim in (2, 4)
    levels = (values[None] if single else values).flatten(start_dim=2)
    if levels.shape[1] < 2:
        raise ValueError(f"an entropy of a batch needs at least 2 images, got {_shape(values)}")
    return levels, single


def _tensor(name: str, values: Values) -> Tensor:
    """`values` as a real tensor without gradient. Arrays are copied: torch cannot borrow all."""
    try:
        tensor = values if isinstance(values, Tensor) else torch.from_numpy(np.array(values))
    except (TypeError, ValueError) as error:
        kind = type(values).__name__
        raise ValueError(f"{name} must be a tensor or an array of numbers, got {kind}") from error
    if tensor.layout != torch.strided or tensor.is_meta or tensor.is_quantized:
        raise ValueError(f"{name} must be a dense tensor that holds numbers, got {tensor.layout}")
    if tensor.is_complex():
        raise ValueError(f"{name} must be real, got {tensor.dtype}")
    return tensor.detach()


def _finite(measure: str, rows: list[Tensor], single: bool) -> Tensor:
    """The measured values, NaN where they are not finite; warns about these."""
    values = rows[0] if single else torch.stack(rows)
    broken = ~values.isfinite()
    if broken.any():
        warnings.warn(
            f"{measure}: {int(broken.sum())} of {values.numel()} values are NaN, because images "
            "are not finite, do not vary or have no positive sum",
            RuntimeWarning,
            stacklevel=3,
        )
    return values.masked_fill(broken, math.nan)


def _shape(tensor: Tensor) -> tuple[int, ...]:
    return tuple(tensor.shape)
