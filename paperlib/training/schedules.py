"""Learning rates that rise and fall, as torch's schedules and in closed form; and what others
suggest from one training at a rising rate."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from paperlib.core.checks import checked

SCHEDULES = ("triangular", "triangular2", "one_cycle")
START, END = 25.0, 1e4  # of one cycle: its top by its start, and its start by its end
RISE = 0.45  # of one cycle: the share of the steps that it rises for, and falls for again


def cyclical_rates(
    kind: str, steps: int, *, low: float, high: float, half_cycle: int
) -> NDArray[np.float64]:
    """Return the rate of every step, (steps,), in closed form.

    Example:
        >>> from paperlib.training.schedules import cyclical_rates
        >>> cyclical_rates("triangular", 5, low=0.0, high=1.0, half_cycle=2).tolist()
        [0.0, 0.5, 1.0, 0.5, 0.0]

    Args:
        kind: "triangular": from low to high and back in 2 · half_cycle steps, again and again;
            "triangular2": the same, each time half as high above low; "one_cycle": once to high,
            from and back to high / 25, then to a ten-thousandth of that.
        steps: of the whole training.
        low: the least rate; one cycle does not read it.
        high: the largest rate.
        half_cycle: steps; one cycle takes all steps instead.

    Raises:
        ValueError: an unknown kind, or a number out of range.

    Source: arXiv:1506.01186, arXiv:1708.07120 (with three straight phases).
    """
    kind = checked("kind", kind, str, choices=SCHEDULES)
    steps = checked("steps", steps, int, low=1)
    half_cycle = checked("half_cycle", half_cycle, int, low=1)
    at = np.arange(steps)
    if kind == "one_cycle":
        begin = high / START
        turns = [0.0, RISE * steps - 1, 2 * RISE * steps - 2, steps - 1.0]
        return np.interp(at, turns, [begin, high, begin, begin / END])
    cycle = np.floor(1 + at / (2 * half_cycle))
    rise = np.maximum(0, 1 - np.abs(at / half_cycle - 2 * cycle + 1))
    height = 0.5 ** (cycle - 1) if kind == "triangular2" else 1.0
    return low + (high - low) * rise * height


def schedule(
    kind: str,
    optimiser: torch.optim.Optimizer,
    steps: int,
    *,
    low: Sequence[float],
    high: Sequence[float],
    half_cycle: int,
) -> Any:
    """Return torch's schedule of the same rates, of every group of an optimiser's own.

    Momentum stays as it is; by default torch would cycle that, too.

    Args:
        kind: as of `cyclical_rates`, and so are the others; low and high of each group.
        optimiser: its rates are set to those of the first step.
        steps: of the whole training.
        low: the least rate of each group.
        high: the largest rate of each group.
        half_cycle: steps.
    """
    if checked("kind", kind, str, choices=SCHEDULES) == "one_cycle":
        return torch.optim.lr_scheduler.OneCycleLR(
            optimiser, list(high), total_steps=steps, pct_start=RISE, anneal_strategy="linear",
            cycle_momentum=False, div_factor=START, final_div_factor=END, three_phase=True,
        )  # fmt: skip
    mode: Any = kind
    return torch.optim.lr_scheduler.CyclicLR(
        optimiser, list(low), list(high), step_size_up=half_cycle, mode=mode, cycle_momentum=False
    )


# --- what others suggest from one training at a rising rate


def _smooth(losses: NDArray[Any], factor: float, *, corrected: bool) -> NDArray[Any]:
    """Exponential averages along the last axis; uncorrected ones start at the first loss."""
    mean = np.zeros(losses.shape[:-1]) if corrected else losses[..., 0]
    found = np.empty_like(losses)
    for step in range(losses.shape[-1]):
        mean = factor * mean + (1 - factor) * losses[..., step]
        found[..., step] = mean / (1 - factor ** (step + 1)) if corrected else mean
    return found


def _by_rate(rates: NDArray[Any], losses: NDArray[Any]) -> NDArray[Any]:
    return np.gradient(_smooth(losses, 0.98, corrected=True)[..., 10:-1], rates[10:-1], axis=-1)


def _by_step(rates: NDArray[Any], losses: NDArray[Any]) -> NDArray[Any]:
    return np.gradient(_smooth(losses, 0.98, corrected=True)[..., 10:-1], axis=-1)


def _lightly(rates: NDArray[Any], losses: NDArray[Any]) -> NDArray[Any]:
    return np.gradient(_smooth(losses, 0.95, corrected=False)[..., 10:-5], axis=-1)


def _raw(rates: NDArray[Any], losses: NDArray[Any]) -> NDArray[Any]:
    return np.gradient(losses, np.log(rates), axis=-1)


Slope = Callable[[NDArray[Any], NDArray[Any]], NDArray[Any]]
FINDERS: dict[str, tuple[Slope, int]] = {  # the slope of each, and the first steps that it skips
    "Lightning": (_by_rate, 10),
    "Lightning before 2.5.3": (_by_step, 10),
    "torch-lr-finder": (_lightly, 10),
    "raw log-gradient": (_raw, 0),
}


def suggestions(rates: NDArray[Any], losses: NDArray[Any]) -> dict[str, NDArray[Any]]:
    """Return the rate at which the loss of one training at a rising rate falls most steeply, by the
    rules that others use, (…) each.

    *Lightning* smooths by 0.98 and differentiates by the rate itself, before 2.5.3 by the step;
    *torch-lr-finder* smooths by 0.95 without a correction of the start; the last one smooths
    nothing and differentiates by the logarithm of the rate.

    Args:
        rates: (steps,), rising, at least 18.
        losses: (…, steps); from the first that is no finite number on, nothing counts.

    Returns:
        the rate by the name of the rule; NaN where no loss is finite.

    Raises:
        ValueError: shapes that do not match, or fewer steps than the rules leave out.

    Source: the documentation and the settings of lightning 2.6 and torch-lr-finder 0.2.2.
    """
    rates, losses = np.asarray(rates, float), np.asarray(losses, float)
    if losses.shape[-1] != len(rates) or len(rates) < 18:
        raise ValueError(
            f"rates and losses must be of one length, at least 18, got {rates.shape} and "
            f"{losses.shape}"
        )
    found = {}
    for name, (slope, skipped) in FINDERS.items():
        with np.errstate(all="ignore"):
            steep = slope(rates, losses)
        known = np.isfinite(steep)
        place = np.where(known, steep, np.inf).argmin(-1) + skipped
        found[name] = np.where(known.any(-1), rates[place], np.nan)
    return found
