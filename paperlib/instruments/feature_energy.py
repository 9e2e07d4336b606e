"""Energy of feature maps: how much of an image's energy travels on, and whether the image does.

In a scattering network (fixed filters, modulus, nothing learnt) the energy W_n that still travels
after n layers falls quickly, and what is given out on the way accounts for the rest, exactly:
W_n = E_n + W_{n+1}. An ordinary network makes no such promise. There, energy may stay while the
image is lost; only the part that differs between images can carry it.

Source: Wiatowski, Grohs & Bölcskei, arXiv:1704.03636; for general signals wavelets may be slower,
Führ & Getter, arXiv:2406.05121. Beside it, R² of the image: from the features that scattering gives
out, and by our cascade from untrained and trained networks.
"""

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any, NamedTuple

import numpy as np
import torch
import xarray as xr
from matplotlib.figure import Figure
from numpy.typing import NDArray
from torch import Tensor, nn

from paperlib.activations.looking import features, look
from paperlib.activations.stages import output_of
from paperlib.cascade import Cascade
from paperlib.cascade.fitting import default_resolution
from paperlib.core.checks import LARGEST_SEED
from paperlib.core.provenance import data_name
from paperlib.core.seeds import random_numbers
from paperlib.core.settings import Parameters, option
from paperlib.datasets import NAMES, Dataset, availability, load_dataset
from paperlib.measures import LOST, collapse_depth, r_squared
from paperlib.networks import untrained
from paperlib.networks.kinds import ARCHITECTURES, IN_WORDS, stages_of
from paperlib.plots import BLUE, GREEN, ORANGE, PALETTE, data_of, paper_style
from paperlib.training import TrainingPoint, train_network

CODE_VERSION = 1
FORETELLS = ("differing energy",)
NOISE = "white noise"
STATES = ("untrained", "trained")
OCTAVES = 5  # of the ideal one-dimensional bank
SMOOTHNESS = 1.0001  # l of the theorem's (1 − |ω|)^l, above 1 in one dimension
GAINS = {"wavelets": 5 / 3, "Weyl-Heisenberg": 3 / 2, "any filters": None}
SHARES = (0.25, 0.5, 0.75, 0.9, 0.95, 0.99)
TIGHT = 1e-6  # residual of W_n = E_n + W_{n+1} above which no curve is called W_n
LOST_BELOW = "resolution λ by the channels that it is summed over"
AT_ONCE = 8  # images that are scattered together


@dataclass(frozen=True, kw_only=True)
class Settings(Parameters):
    """The parameters of notebook 12: of the filter bank, and of the networks beside it."""

    beside: tuple[str, ...] = ("cifar10", "patches")  # data sets that are scattered too
    side: int = option(32, low=8, high=128)  # of the images that are scattered
    scales: int = option(2, low=1, high=5)
    angles: int = option(8, low=2, high=16)
    layers: int = option(3, low=1, high=4)
    resolution: float = option(1e-3, above=0.0)  # λ of the regression on scattering features
    architectures: tuple[str, ...] = option(("cnn", "resnet"), choices=ARCHITECTURES)
    channels: int = option(16, low=1, high=1000)  # of convolutional networks; MLPs: as pixels
    depth: int = option(12, low=1, high=1000)
    variances: tuple[float, ...] = option((0.3, 1.05, 3.0), above=0.0)  # σ_w²
    sigma_b2: float = option(2e-5, low=0.0)
    networks: int = option(1, low=1, high=100)  # seeds of each
    steps: int = option(100, low=1)
    learning_rate: float = option(0.02, above=0.0)  # of Adam, divided by the depth
    batch_size: int = option(32, low=1)
    train_images: int = option(2000, low=2)
    fitted: int = option(300, low=2)  # of these, that inverses and regressions are fitted to
    test_images: int = option(100, low=2)  # whose energy and R² are measured
    data_seed: int = option(0, low=0, high=LARGEST_SEED)
    seed: int = option(0, low=0, high=LARGEST_SEED)

    def __post_init__(self) -> None:
        super().__post_init__()
        if 2**self.scales > self.side:
            raise ValueError(
                f"scales must be at most {int(math.log2(self.side))} for images of side "
                f"{self.side}, whose largest filter is 2^scales wide; got {self.scales}"
            )

    def identifying(self) -> dict[str, Any]:
        """The settings that decide the numbers; of the data sets beside, those that are read."""
        return {**super().identifying(), "beside": list(self.at_hand())}

    def at_hand(self) -> tuple[str, ...]:
        """The data sets beside; with `fallback` without those that would have to be downloaded."""
        missing = {n for n in self.beside if n in NAMES and availability(n) == "absent"}
        return tuple(n for n in self.beside if not (self.fallback and n in missing))


class Bank(NamedTuple):
    """Fourier transforms of an output filter (h, w) and of k filters (k, h, w); all are real."""

    low: Tensor
    high: Tensor


def measure(settings: Settings, data: Dataset) -> xr.Dataset:
    """Return energies and R² of scattering and of networks, on the same images.

    Args:
        settings: of the filter bank and the networks.
        data: its test images are measured, its training images fitted and learnt.

    Returns:
        a Dataset along curve, layer, order and share of scattering; architecture, sigma_w2,
        network, state and depth of networks, whose depth 0 is the end of the stem (of MLPs: the
        images). Energies of scattering are shares of the images' energy.
    """
    curves = _curves(settings, data)
    given, travelling, residual = (np.array(rows) for rows in zip(*curves.values(), strict=True))
    line, bound = _line(settings, _images(settings, data, "test", settings.test_images))
    bank = wavelets(settings.side, settings.scales, settings.angles, tight=False)
    power = littlewood_paley(bank)
    held, share = _held(settings, data)
    networks = _networks(settings, data)
    unit = {"units": "1"}
    nets = ("architecture", "sigma_w2", "network", "state")
    variables: dict[str, Any] = {
        "travelling": (("curve", "layer"), travelling, unit),
        "given_out": (("curve", "order"), given, unit),
        "residual": (("curve",), residual, unit),
        "line": (("layer",), line, {**unit, "long_name": "W_n in one dimension, ideal filters"}),
        "line_bound": (("layer",), bound, unit),
        "frame": (("end",), [float(power.min()), float(power.max())], unit),
        "r_squared_features": (("order",), held, unit),
        "held": (("order",), share, {**unit, "long_name": "share of the energy given out so far"}),
        "energy": ((*nets, "depth"), networks["energy"], unit),
        "differing": ((*nets, "depth"), networks["differing"], unit),
        "r_squared": ((*nets, "depth"), networks["r_squared"], unit),
        "accuracy": (nets[:-1], networks["accuracy"], unit),
        "lost_below": (("architecture",), networks["lost_below"], unit | {"long_name": LOST_BELOW}),
    }
    coordinates = {
        "curve": list(curves),
        "layer": np.arange(settings.layers + 1),
        "order": np.arange(settings.layers),
        "end": ["least", "largest"],
        "architecture": list(settings.architectures),
        "sigma_w2": list(settings.variances),
        "network": [settings.seed + number for number in range(settings.networks)],
        "state": list(STATES),
        "depth": np.arange(settings.depth + 1),
    }
    about = {name: getattr(settings, name) for name in ("side", "scales", "angles", "test_images")}
    return xr.Dataset(variables, coordinates, about)


# --- scattering


def wavelets(side: int, scales: int, angles: int, *, tight: bool = True) -> Bank:
    """Return Morlet wavelets of some scales and angles, and their low-pass, for periodic images.

    Args:
        side: of the images.
        scales: the largest filter is 2^scales wide.
        angles: directions in [0, π).
        tight: divide all filters by one function, so that real images keep their energy; else the
            filters are kymatio's, of which `littlewood_paley` says how much they lose.
    """
    low = _morlet(side, 0.8 * 2 ** (scales - 1), angle=0.0, frequency=0.0, slant=1.0)
    high = torch.stack([
        _morlet(side, 0.8 * 2**j, angle=math.pi * k / angles,
                frequency=0.75 * math.pi / 2**j, slant=4 / angles)
        for j in range(scales) for k in range(angles)
    ])  # fmt: skip
    bank = Bank(low, high)
    return _tightened(bank) if tight else bank


def bands(length: int, octaves: int) -> Bank:
    """Return an ideal tight bank for real periodic signals (1, length): the low-pass, and each
    octave above it in positive frequencies, so that a cosine, filtered, has a constant modulus."""
    number = torch.fft.fftfreq(length, 1 / length, dtype=torch.float64)
    number = torch.where(number == -length / 2, length / 2, number)
    edges = [length / 2 / 2**octave for octave in range(octaves, -1, -1)]
    low = (number.abs() <= edges[0]).double()[None]
    pairs = pairwise(edges)
    high = torch.stack([((number > a) & (number <= b)).double()[None] for a, b in pairs])
    return _tightened(Bank(low, high))


def littlewood_paley(bank: Bank) -> Tensor:
    """Return the share of a real image's energy that a bank passes on, by frequency (h, w)."""
    squares = bank.high.square()
    mirrored = squares.flip(-1, -2).roll((1, 1), (-1, -2))
    return bank.low.square() + (squares + mirrored).sum(0) / 2


def scattered(images: Tensor, bank: Bank, last: int) -> Iterator[tuple[int, Tensor]]:
    """Yield the order n = 0 … last and the spectra (images, paths, h, w) of U[q]f, the images after
    n filters and moduli, for some of the paths of that order at a time."""
    yield from _onwards(torch.fft.fft2(images)[:, None], bank, 0, last)


def energies(images: Tensor, bank: Bank, layers: int) -> tuple[Tensor, Tensor]:
    """Return what each layer gives out, E_0 … E_{layers−1}, and what travels, W_0 … W_layers.

    Args:
        images: (n, h, w), float64.
        bank: its filters, of every layer.
        layers: n of the last W_n.

    Returns:
        (n, layers) and (n, layers + 1), in squared units of the images, summed over pixels.
    """
    given = images.new_zeros(len(images), layers)
    travelling = images.new_zeros(len(images), layers + 1)
    pixels = images[0].numel()
    onwards = bank.high.square().sum(0)
    for order, spectra in scattered(images, bank, layers - 1):
        power = spectra.abs().square().sum(1) / pixels
        travelling[:, order] += power.sum((-1, -2))
        given[:, order] += (power * bank.low.square()).sum((-1, -2))
        if order == layers - 1:
            travelling[:, layers] += (power * onwards).sum((-1, -2))
    return given, travelling


def layers_needed(share: float, gain: float | None) -> int:
    """Return how many layers hold a share of any band-limited signal's energy, by the theorem.

    Args:
        share: of the energy, 0 to 1.
        gain: by which the filters' reach grows with each layer, 5/3 of wavelets and 3/2 of
            Weyl-Heisenberg filters; None of filters that are only known to be high-pass.

    Source: arXiv:1704.03636.
    """
    inside = 1 - share ** (1 / (2 * SMOOTHNESS))
    return math.ceil(1 / inside - 1 if gain is None else math.log(1 / inside) / math.log(gain))


def bound(signals: Tensor, cut: float, layers: int, *, gain: float = 5 / 3) -> Tensor:
    """Return the theorem's upper bound of W_0 … W_layers for signals (n, length), (n, layers + 1).

    Args:
        signals: real, of one dimension.
        cut: the frequency where the filters begin, in periods per length.
        layers: n of the last W_n.
        gain: as of `layers_needed`; of wavelets.
    """
    length = signals.shape[-1]
    power = torch.fft.fft(signals).abs().square() / length
    number = torch.fft.fftfreq(length, 1 / length, dtype=torch.float64).abs()
    rows = [power.sum(-1)]
    for layer in range(1, layers + 1):
        reached = (1 - number / (cut * gain ** (layer - 1))).clamp(min=0) ** SMOOTHNESS
        rows.append((power * (1 - reached**2)).sum(-1))
    return torch.stack(rows, 1)


def products(images: Tensor, bank: Bank, orders: int) -> Tensor:
    """Return the products (orders, n, n) of what the images' orders give out, U[q]f
    through the output filter."""
    found = images.new_zeros(orders, len(images), len(images))
    for order, spectra in scattered(images, bank, orders - 1):
        features = torch.fft.ifft2(spectra * bank.low).real.flatten(1)
        found[order] += features @ features.T
    return found


def _morlet(side: int, sigma: float, *, angle: float, frequency: float, slant: float) -> Tensor:
    """The transform of a plane wave under a Gaussian, minus so much of the Gaussian that its mean
    is 0; with frequency 0 the Gaussian itself. Aliases of the periodic grid are summed."""
    step = 2 * math.pi
    grid = torch.fft.fftfreq(side, dtype=torch.float64)
    grid = step * (grid[:, None] + torch.arange(-2, 3)).flatten()
    along = grid[:, None] * math.cos(angle) + grid * math.sin(angle)
    across = grid * math.cos(angle) - grid[:, None] * math.sin(angle)

    def gaussian(centre: float) -> Tensor:
        exponent = (along - centre) ** 2 + (across / slant) ** 2
        return torch.exp(-(sigma**2) * exponent / 2).view(side, 5, side, 5).sum((1, 3))

    wave, envelope = gaussian(frequency), gaussian(0.0)
    return wave - envelope * (wave[0, 0] / envelope[0, 0]) if frequency else envelope


def _tightened(bank: Bank) -> Bank:
    root = littlewood_paley(bank).sqrt()
    return Bank(bank.low / root, bank.high / root)


def _onwards(spectra: Tensor, bank: Bank, order: int, last: int) -> Iterator[tuple[int, Tensor]]:
    yield order, spectra
    if order < last:
        for one in spectra.split(1, 1):  # path by path: there are (filters)^n of them
            maps = torch.fft.ifft2(one * bank.high).abs()
            yield from _onwards(torch.fft.fft2(maps), bank, order + 1, last)


def activation_energy(values: Tensor) -> tuple[float, float]:
    """Return the mean square of activations (n, *shape), and the part that differs between images,
    half the mean square of two images' difference."""
    values = values.double()
    return float(values.square().mean()), float(values.var(0).mean())


def scores(result: xr.Dataset) -> dict[str, xr.DataArray]:
    """Return what untrained networks say of "will it train", (architecture, sigma_w2, network).

    `differing` is the decadic logarithm of the part of the energy that differs between images, by
    what a cascade of the default resolution loses, at the depth where it is least. It sees the
    ordered side only: in chaos the part is large, and the image is gone all the same.
    """
    part = result["differing"].sel(state="untrained", drop=True) / result["lost_below"]
    least = part.clip(1e-300).min("depth").drop_attrs()
    return {"differing": least.copy(data=np.log10(least.values))}


def foretell(network: nn.Module, images: Tensor, labels: Tensor, *, seed: int) -> dict[str, float]:
    """Return what energies say of "will it train" about one untrained model; higher is better.

    Args:
        network: any module; it is left as it was.
        images: (n, *shape).
        labels: (n,), not read.
        seed: of the model's random numbers.

    Returns:
        the scores of `FORETELLS`, NaN where the model overflows. `differing energy`: the decadic
        logarithm of the part that differs between images, at the stage where it is least.
    """
    parts = [activation_energy(values)[1] for values in features(network, images, seed=seed)]
    least = math.log10(max(min(parts), 1e-300)) if np.isfinite(parts).all() else math.nan
    return {"differing energy": least}


def layers_held(travelling: NDArray[Any], share: float) -> float:
    """Return the least N for which the orders 0 … N give out a share of the energy, by
    W_{N+1} ≤ 1 − share; NaN if no layer that was measured does."""
    enough = np.flatnonzero(travelling[1:] / travelling[0] <= 1 - share + 1e-12)
    return float(enough[0]) if len(enough) else math.nan


# --- measuring


def _images(settings: Settings, data: Dataset, split: str, limit: int) -> Tensor:
    """Grey images of one size (n, side, side): larger ones averaged, smaller ones padded by 0."""
    images = data.floats(split, limit=limit).double()
    sizes = [min(settings.side, size) for size in images.shape[2:]]
    images = nn.functional.adaptive_avg_pool2d(images, (sizes[0], sizes[1]))
    rest = [settings.side - size for size in sizes]
    (top, left) = (size // 2 for size in rest)
    return nn.functional.pad(images, (left, rest[1] - left, top, rest[0] - top))[:, 0]


def _curves(
    settings: Settings, data: Dataset
) -> dict[str, tuple[NDArray[Any], NDArray[Any], float]]:
    """E_n, W_n and the identity's residual of each set of images, as shares of its energy."""
    images = _images(settings, data, "test", settings.test_images)
    name, sizes = data.name, (settings.side, settings.scales, settings.angles)
    tight, loose = wavelets(*sizes), wavelets(*sizes, tight=False)
    own = images - images.mean((1, 2), keepdim=True)
    found = {
        name: _shares(images, tight, settings.layers),
        f"{name}, own mean removed": _shares(own, tight, settings.layers),
        f"{name}, filters not tight": _shares(images, loose, settings.layers),
    }
    for other in settings.at_hand():
        beside = load_dataset(other, limit=settings.test_images, seed=settings.data_seed)
        pictures = _images(settings, beside, "test", settings.test_images)
        found.setdefault(beside.name, _shares(pictures, tight, settings.layers))
    numbers = random_numbers("energy of noise", settings.seed)
    noise = torch.randn(images.shape, generator=numbers, dtype=torch.float64)
    return {**found, NOISE: _shares(noise, tight, settings.layers)}


def _shares(images: Tensor, bank: Bank, layers: int) -> tuple[NDArray[Any], NDArray[Any], float]:
    parts = [energies(part, bank, layers) for part in images.split(AT_ONCE)]
    given, travelling = (torch.cat(rows) for rows in zip(*parts, strict=True))
    gaps = (travelling[:, :-1] - given - travelling[:, 1:]).abs().amax(1)
    whole = travelling[:, 0].sum()
    shares = (given.sum(0) / whole).numpy(), (travelling.sum(0) / whole).numpy()
    return *shares, float((gaps / travelling[:, 0].clamp(min=1e-300)).max())


def _line(settings: Settings, images: Tensor) -> tuple[NDArray[Any], NDArray[Any]]:
    """W_n of the images unrolled row by row, through ideal filters, and the theorem's bound."""
    signals = images.flatten(1)
    length = signals.shape[1]
    parts = signals[:, None].split(AT_ONCE)
    bank = bands(length, OCTAVES)
    travelling = torch.cat([energies(part, bank, settings.layers)[1] for part in parts])
    above = bound(signals, length / 2 / 2**OCTAVES, settings.layers)
    whole = travelling[:, 0].sum()
    return (travelling.sum(0) / whole).numpy(), (above.sum(0) / whole).numpy()


def _held(settings: Settings, data: Dataset) -> tuple[list[float], NDArray[Any]]:
    """R² of test images by ridge regression on the features of orders 0 … n, and the share of the
    energy that these features hold; for every n."""
    fitted = _images(settings, data, "train", settings.fitted)
    test = _images(settings, data, "test", settings.test_images)
    tight = wavelets(settings.side, settings.scales, settings.angles)
    single = Bank(tight.low.float(), tight.high.float())  # the products are most of the cost
    images = torch.cat([fitted, test]).float()
    kernels = products(images, single, settings.layers).double().cumsum(0)
    count, mean = len(fitted), fitted.mean(0)
    energy = test.square().sum()
    share = kernels.diagonal(dim1=1, dim2=2)[:, count:].sum(1) / energy
    return [
        float(r_squared(test, _regressed(kernel, fitted, settings.resolution), mean=mean))
        for kernel in kernels
    ], share.numpy()


def _regressed(kernel: Tensor, fitted: Tensor, resolution: float) -> Tensor:
    """The images that a ridge regression on features gives for those that it was not fitted to.

    Args:
        kernel: products of the features of all images (n, n), the fitted ones first.
        fitted: images (m, h, w), m < n.
        resolution: λ, in squared units of one feature.
    """
    count = len(fitted)
    mean = fitted.mean(0)
    rows = kernel[:, :count] - kernel[:count, :count].mean(0)
    rows = rows - (kernel[:, :count].mean(1, keepdim=True) - kernel[:count, :count].mean())
    ridge = count * resolution * torch.eye(count, dtype=kernel.dtype)
    weights = torch.linalg.solve(rows[:count] + ridge, (fitted - mean).flatten(1))
    return (rows[count:] @ weights).view(-1, *mean.shape) + mean


def _networks(settings: Settings, data: Dataset) -> dict[str, Any]:
    """Energies, R² and accuracy of all networks, along architecture, σ_w², network and state."""
    kinds, variances, count = settings.architectures, settings.variances, settings.networks
    shape = (len(kinds), len(variances), count)
    found = {name: np.full((*shape, len(STATES), settings.depth + 1), np.nan)
             for name in ("energy", "differing", "r_squared")}  # fmt: skip
    accuracy = np.zeros(shape)
    thresholds = []
    for place in np.ndindex(shape):
        kind, sigma_w2 = kinds[place[0]], variances[place[1]]
        point = TrainingPoint.from_dict({
            **settings.shared_with(TrainingPoint), "architecture": kind, "optimiser": "adam",
            "sigma_w2": sigma_w2, "seed": settings.seed + place[2],
        })  # fmt: skip
        network = untrained(point, data.image_shape, len(data.classes))
        if place[1:] == (0, 0):
            last = output_of(network.stages, data.floats("test", limit=1)).shape[1]
            thresholds.append(default_resolution(network.stages) / last)
        learnt, outcome = train_network(point, data=data)
        accuracy[place] = outcome["accuracy"]
        states = [network] if outcome["diverged"] else [network, learnt]
        for state, each in enumerate(states):
            rows = _along(settings, data, each, first=stages_of(kind, 0))
            for name, row in zip(found, rows, strict=True):
                found[name][(*place, state)] = row
    return {**found, "accuracy": accuracy, "lost_below": thresholds}


def _along(
    settings: Settings, data: Dataset, network: Any, *, first: int
) -> tuple[list[float], list[float], list[float]]:
    """Mean square, differing part and R² at levels `first` and deeper; level 0 is the images."""
    fitted = data.floats("train", limit=settings.fitted)
    test = data.floats("test", limit=settings.test_images)
    levels = range(max(1, first), len(network.stages) + 1)
    inside = [values for _, values in look(network, test)]
    pairs = [activation_energy(values) for values in ([] if first else [test])]
    pairs += [activation_energy(inside[level - 1]) for level in levels]
    cascade = Cascade.for_network(network, fitted[:1]).fit(fitted)
    back = cascade.reconstruct(test, levels=list(levels))
    kept = r_squared(test, back, mean=fitted.mean(0)).tolist()
    energy, differing = zip(*pairs, strict=True)
    return list(energy), list(differing), kept if first else [1.0, *kept]


# --- drawing and saying


def figure(result: xr.Dataset) -> Figure:
    """Draw what travels and what is given out, what a regression reads of it, and networks."""
    rows = result.sizes["architecture"]
    with paper_style():
        drawn = Figure(figsize=(10.5, 3.0 + 2.3 * rows), layout="constrained")
        parts: Any = drawn.subfigures(2, 1, height_ratios=(3.0, 2.3 * rows))
        decay, bars, reading = parts[0].subplots(1, 3)
        _draw_decay(decay, result)
        _draw_bars(bars, result)
        _draw_reading(reading, result)
        _draw_networks(parts[1], result)
    return drawn


def takeaway(result: xr.Dataset) -> str:
    """Return what the figure shows in a few sentences, with this run's numbers."""
    held, read = result["held"].values, result["r_squared_features"].values
    ends = result.sel(state="untrained").isel(depth=-1).mean("network")
    flat = ends.stack(each=("architecture", "sigma_w2"))
    order = np.argsort(flat["differing"].values)
    quiet, loud = (flat.isel(each=int(order[place])) for place in (0, -1))
    best = flat.isel(each=int(np.nanargmax(flat["r_squared"].values)))
    return (
        f"**In short.** The features of order 0 hold {held[0]:.0%} of the energy, those up to "
        f"order {len(held) - 1} hold {held[-1]:.0%}; a linear regression reads R² = {read[0]:.2f} "
        f"of the image from the first and {read[-1]:.2f} from all. Of the untrained networks, the "
        f"one whose images differ least at its end ({_named(quiet)}: {quiet['differing']:.1e} of "
        f"an energy of {quiet['energy']:.1e} per neuron) keeps R² = {quiet['r_squared']:.2f}, the "
        f"one whose images differ most ({_named(loud)}: {loud['differing']:.2g} of "
        f"{loud['energy']:.2g}) keeps {loud['r_squared']:.2f}. The image survives best at "
        f"{best['differing']:.1e} ({_named(best)}: R² = {best['r_squared']:.2f}). "
        "Without a difference there is no image; with one there need not be."
    )


def findings(result: xr.Dataset) -> str:
    """Return what a run says, as Markdown: its own numbers, and the theorem's apart."""
    about, main = result.attrs, str(result["curve"].values[0])
    curve = result["travelling"].sel(curve=main).values
    loose = result["curve"].str.contains("not tight")
    residual = float(result["residual"].where(~loose).max())
    leak = float(result["residual"].where(loose).max())
    low, high = result["frame"].values
    enough = layers_held(curve, 0.9)
    line, above = result["line"].values, result["line_bound"].values
    below = "yes" if (line <= above * (1 + 1e-9)).all() else "no"
    needed = layers_needed(0.9, GAINS["wavelets"])
    read = "; ".join(
        f"up to order {order}: {share:.1%} of the energy, R² {value:.3f}"
        for order, share, value in zip(
            result["order"].values, result["held"].values, result["r_squared_features"].values,
            strict=True,
        )
    )  # fmt: skip
    return "\n\n".join([
        f"**This run.** {data_name(result, main)}: {about['test_images']} images of "
        f"{about['side']}×{about['side']}, {about['scales']} scales and {about['angles']} angles.",
        f"**The identity** $W_n = E_n + W_{{n+1}}$ holds to {residual:.0e} of each image's energy. "
        f"As published, the filters pass on {low:.2f} to {high:.2f} of it, by frequency; "
        f"they leak up to {leak:.2f} of an image's energy in a layer, which is no decay.",
        "**What travels**, as a share of the energy:",
        _travelling_table(result),
        f"**Layers for 90% of the energy:** the features of orders 0 to {enough:g} hold it here. "
        f"The theorem, for band-limited signals of one dimension and wavelets, says {needed}. "
        f"The images unrolled, through ideal filters: {_row(line[1:])}; the theorem's bound for "
        f"them: {_row(above[1:])}. Below the bound at every layer: {below}.",
        "**The theorem's layers** for a share of the energy:",
        _theorem_table(),
        f"**What a linear regression reads:** {read}. {_verdict(result)}",
        "**Networks**, at their last stage, mean over networks; the differing part is summed over "
        "channels and divided by λ, so that below 1 a cascade loses it:",
        _networks_table(result),
        "**Against the paper:** its theorem bounds how fast scattering networks lose energy. "
        "It has no numbers for these images and none for other networks, so only the layers above "
        "are compared with it.",
    ])  # fmt: skip


def _named(network: xr.Dataset) -> str:
    kind, sigma_w2 = network["each"].item()
    return f"{IN_WORDS[kind]}, σ_w² = {sigma_w2:g}"


def _row(values: Any) -> str:
    return ", ".join(f"{value:.3f}" for value in values)


def _label(curve: str) -> str:
    name, *rest = curve.split(", ", 1)
    return ", ".join([data_of(name), *rest])


def _verdict(result: xr.Dataset) -> str:
    """Whether the image can be read the better, the more of the energy the features hold."""
    read = result["r_squared_features"].values
    if (np.diff(read) > 0).all():
        return "Here R² rises with the energy held."
    return (
        "So R² does not rise with the energy held: a modulus leaves signs out, and what it gives "
        "out is not linear in the image."
    )


def _travelling_table(result: xr.Dataset) -> str:
    layers = result["layer"].values[1:]
    rows = [
        f"| {_label(str(curve))} | "
        + " | ".join(f"{v:.3f}" for v in result["travelling"].sel(curve=curve).values[1:]) + " |"
        for curve in result["curve"].values
    ]  # fmt: skip
    head = "| images | " + " | ".join(f"$W_{n}$" for n in layers) + " |"
    return "\n".join([head, "|---" * (len(layers) + 1) + "|", *rows])


def _theorem_table() -> str:
    rows = [
        f"| {name} | " + " | ".join(str(layers_needed(share, gain)) for share in SHARES) + " |"
        for name, gain in GAINS.items()
    ]
    head = "| filters | " + " | ".join(f"{share:.0%}" for share in SHARES) + " |"
    return "\n".join([head, "|---" * (len(SHARES) + 1) + "|", *rows])


def _networks_table(result: xr.Dataset) -> str:
    head = (
        "| network | σ_w² | untrained: energy per neuron, differing part / λ, R² | trained: same "
        f"| untrained: differing part below λ from depth | R² below {LOST:g} from depth "
        "| test accuracy |"
    )
    means = result.mean("network").stack(each=("architecture", "sigma_w2"))
    rows = [_network_cells(means.isel(each=n)) for n in range(means.sizes["each"])]
    lines = [f"| {' | '.join(cells)} |" for cells in rows]
    return "\n".join([head, "|---" * 7 + "|", *lines])


def _network_cells(network: xr.Dataset) -> list[str]:
    kind, sigma_w2 = network["each"].item()
    part = network["differing"] / network["lost_below"]
    end, ratio = network.isel(depth=-1), part.isel(depth=-1)
    states = [
        f"{end['energy'].sel(state=state):.2g}, {ratio.sel(state=state):.2g}, "
        f"{end['r_squared'].sel(state=state):.2f}"
        for state in STATES
    ]
    kept = network["r_squared"].sel(state="untrained")
    depths = [
        collapse_depth(part.sel(state="untrained").values[1:], threshold=1.0),
        collapse_depth(kept.values[1:]),
    ]
    lost = [str(depth) if depth < part.sizes["depth"] else "never" for depth in depths]
    return [IN_WORDS[kind], f"{sigma_w2:g}", *states, *lost, f"{network['accuracy']:.0%}"]


def _draw_decay(axis: Any, result: xr.Dataset) -> None:
    layers, main = result["layer"].values, str(result["curve"].values[0])
    colours = iter([BLUE, *PALETTE[3:], *PALETTE[3:]])
    for curve in result["curve"].values:
        same = str(curve).startswith(f"{main}, ")
        colour = BLUE if same else next(colours)
        loose = float(result["residual"].sel(curve=curve)) > TIGHT
        style = ":" if loose else "--" if same else "-"
        axis.plot(layers, result["travelling"].sel(curve=curve), style, marker=".",
                  color=colour, label=_label(str(curve)))  # fmt: skip
    axis.plot(
        layers, result["line"], "-", color="0.55", marker=".", label="unrolled, ideal filters"
    )
    axis.plot(layers, result["line_bound"], "--", color="0.55", label="the theorem's bound for it")
    axis.set(yscale="log", xlabel="layer n", xticks=layers, title="a  Energy that still travels")
    axis.set_ylabel("share of the images' energy")
    axis.legend(ncols=2, loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=6)


def _draw_bars(axis: Any, result: xr.Dataset) -> None:
    loose = result["curve"].str.contains("not tight")
    shown = [str(curve) for curve in result["curve"].values[~loose.values]]
    left = np.zeros(len(shown))
    parts = result["given_out"].sel(curve=shown)
    layers = result.sizes["order"]
    names = [f"$E_{order}$" for order in range(layers)] + [f"$W_{layers}$"]
    rows = [*parts.values.T, result["travelling"].sel(curve=shown).values[:, -1]]
    shades = [*_blues(layers), "0.25"]
    for name, row, colour in zip(names, rows, shades, strict=True):
        axis.barh(np.arange(len(shown)), row, left=left, color=colour, label=name, height=0.7)
        left += row
    labels = [_label(curve).replace(", ", ",\n") for curve in shown]
    axis.set(yticks=np.arange(len(shown)), yticklabels=labels, xlim=(0, 1))
    axis.invert_yaxis()
    axis.set(xlabel="share of the energy", title="b  Given out, layer by layer")
    axis.legend(ncols=layers + 1, loc="upper center", bbox_to_anchor=(0.5, -0.18), fontsize=7,
                handlelength=1, columnspacing=1)  # fmt: skip


def _blues(count: int) -> list[Any]:
    """Blues from light to dark."""
    return [(0.78 - 0.7 * t, 0.87 - 0.4 * t, 0.95 - 0.25 * t) for t in np.linspace(0, 1, count)]


def _draw_reading(axis: Any, result: xr.Dataset) -> None:
    orders = result["order"].values
    axis.plot(orders, result["held"], color=BLUE, marker="o", ms=4, label="energy held")
    axis.plot(orders, result["r_squared_features"], color=GREEN, marker="s", ms=4,
              label="R² of the image, by regression")  # fmt: skip
    for name, above in (("held", 5), ("r_squared_features", -12)):
        for order, value in zip(orders, result[name].values, strict=True):
            place = {"textcoords": "offset points", "ha": "center", "fontsize": 7}
            axis.annotate(f"{value:.2f}", (order, value), (0, above), **place)
    axis.set(xticks=orders, xlim=(-0.3, orders[-1] + 0.3), ylim=(0, 1.08))
    axis.set(xlabel="features of order 0 … n", title="c  Energy held, image read")
    axis.legend(loc="lower right")


def _draw_networks(place: Any, result: xr.Dataset) -> None:
    kinds, variances = result["architecture"].values, result["sigma_w2"].values
    axes = place.subplots(len(kinds), len(variances), sharex=True, sharey="row", squeeze=False)
    for row, kind in enumerate(kinds):
        for column, sigma_w2 in enumerate(variances):
            axis, here = axes[row, column], result.sel(architecture=kind, sigma_w2=sigma_w2)
            right = _draw_network(axis, here)
            accuracy = float(here["accuracy"].mean())
            letter = "defghijklmnopqrstuvwxyz"[(row * len(variances) + column) % 23]
            axis.set_title(f"{letter}  {IN_WORDS[str(kind)]}, $\\sigma_w^2$ = {sigma_w2:g} "
                           f"({accuracy:.0%} after training)")  # fmt: skip
            if column == len(variances) - 1:
                right.set_ylabel("R² of the image", color=GREEN)
            else:
                right.set_yticklabels([])
            if row == len(kinds) - 1:
                axis.set_xlabel("depth")
        axes[row, 0].set_ylabel("energy per neuron")
    handles, labels = axes[0, 0].get_legend_handles_labels()
    place.legend(handles, labels, loc="outside lower center", ncols=len(labels))


def _draw_network(axis: Any, here: xr.Dataset) -> Any:
    """Energies on a logarithmic axis, R² on another one at the right, which is returned."""
    right = axis.twinx()
    right.spines["right"].set_visible(True)
    right.set_ylim(0, 1)
    right.tick_params(axis="y", colors=GREEN)
    depth = here["depth"]
    for state, style in zip(STATES, ("-", "--"), strict=True):
        for number in range(here.sizes["network"]):
            one = here.sel(state=state).isel(network=number)
            new = number == 0
            axis.plot(depth, one["energy"], style, color=BLUE,
                      label=f"energy, {state}" if new else None)  # fmt: skip
            axis.plot(depth, one["differing"].clip(1e-12), style, color=ORANGE,
                      label=f"its part that differs, {state}" if new else None)  # fmt: skip
            right.plot(depth, one["r_squared"].clip(0), style, color=GREEN, lw=1)
    axis.plot([], [], color=GREEN, lw=1, label="R² (right axis)")
    axis.axhline(float(here["lost_below"]), color="0.4", ls=":", lw=1, label="λ / channels")
    axis.set_yscale("log")
    return right
