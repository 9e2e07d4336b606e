"""What a run of notebook 02 says, in Markdown: which networks train, and whether it was known."""

import numpy as np
import xarray as xr

from paperlib.core.provenance import provenance
from paperlib.instruments.reconstruction.tables import against_shipped
from paperlib.notebooks.findings.cascades import kept, setting
from paperlib.notebooks.findings.trained import trained_depths
from paperlib.notebooks.findings.wording import UNDEFINED, listed, number, paragraphs, percent

SEARCH = {
    "shape": "shrinking",
    "activation": "tanh",
    "optimiser": "sgd",
    "learning_rate": 0.001,
    "rate_exponent": 0.0,
    "steps": 156_200,
    "threshold": 0.4,
}  # the published search: up to 200 epochs
NAMED = {
    "learning_rate": "learning rate",
    "rate_exponent": "power of the depth that divides it",
    "threshold": "accuracy at which a training stops",
}


def trainability(
    result: xr.Dataset,
    prediction: xr.Dataset,
    training: xr.Dataset,
    *,
    anew: xr.Dataset | None = None,
) -> str:
    """Return what untrained networks keep, and which networks of the same kind train.

    Args:
        result: cascades of the heat maps.
        prediction: cascades of networks as wide as those that were trained.
        training: trainings, from `run_sweep` or `run_search`.
        anew: some of the trainings once more.
    """
    nothing = bool(result["r_squared"].isnull().all())
    return paragraphs(
        setting(result),
        f"R² is {UNDEFINED} everywhere." if nothing else kept(result),
        _below_the_mean(result),
        trained_depths(training, prediction, result),
        _at_chance(training),
        _anew(anew, training) if anew is not None else "",
        _against_paper(training),
    )


def _below_the_mean(result: xr.Dataset) -> str:
    """Where the reconstructions are worse than the mean image."""
    at = result["r_squared"].isel(depth=-1).mean("seed")
    below = at.where(at < -0.02, drop=True)
    if not below.size:
        return ""
    return (
        f"From σ_w² = {float(below.sigma_w2[0]):g} to {float(below.sigma_w2[-1]):g} R² falls "
        f"below 0 at the last depth, to {number(float(below.min()))}: the pictures are worse than "
        "the mean image, and entropies that do not see the original take them for information."
    )


def _at_chance(training: xr.Dataset) -> str:
    accuracy = training["accuracy"].where(training["finished"] == 1)
    chance = 1 / provenance(training)["data"]["classes"]
    known = int(accuracy.notnull().sum())
    if not known:
        return ""
    stuck = int((accuracy < chance + 0.05 * (1 - chance)).sum())
    return (
        f"At chance ({percent(chance, 0)}) or hardly above it stay {stuck:,} of {known:,} networks."
    )


def _anew(anew: xr.Dataset, training: xr.Dataset) -> str:
    difference = against_shipped(anew, training, "accuracy")["difference"].abs().dropna()
    count = anew["accuracy"].size
    if difference.empty:
        return f"**A column anew.** None of the {count} networks trained anew has its like above."
    return (
        f"**A column anew.** Of {count} networks trained anew, {len(difference)} stand above as "
        f"well; their accuracy differs by at most {number(float(np.max(difference)), 4)}."
    )


def _against_paper(training: xr.Dataset) -> str:
    config = provenance(training)["config"]
    different = [
        f"{NAMED.get(name, name)} {wanted} (here {config[name]})"
        for name, wanted in SEARCH.items()
        if config[name] != wanted
    ]
    if provenance(training)["data"]["name"] != "cifar10":
        different.insert(
            0, f"data set cifar10, in grey (here {provenance(training)['data']['name']})"
        )
    if different:
        return (
            "**Against the paper: nothing is compared.** It has no such trainings; its search "
            f"differs: {listed(different)}."
        )
    return (
        "**Against the paper.** The settings are those of the published search. Its depths are not "
        "in this package as numbers; compare the figures by eye."
    )
