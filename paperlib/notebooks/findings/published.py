"""What a run may be compared with: the published networks, and verdicts with stated tolerances.

Source: arXiv:2406.12916; the numbers were read off its figures by eye.
"""

from typing import Any

import xarray as xr

from paperlib.core.provenance import provenance
from paperlib.instruments.reconstruction.tables import against_published, walls
from paperlib.notebooks.findings.wording import UNDEFINED, listed, number, paragraphs, short, table
from paperlib.plots import (
    ENTROPY_PUBLISHED,
    PUBLISHED_DEPTHS,
    PUBLISHED_WALLS,
    published_entropy,
    solver_name,
)

DEPTH_TOLERANCE = 0.15  # of a published depth
WALL_TOLERANCE = 0.05  # of a published variance, in σ_w²
FORMS = {
    "padding": {"published": "convolve, then pad", "circular": "pad, then convolve"},
    "block": {"published": "tanh(x + f(x))", "plain": "x + f(x)"},
}
_OLDER = {"padding": "circular", "block": "plain"}  # of results without the setting
_PER_PIXEL = "one neuron per pixel"
PUBLISHED: dict[str, dict[str, str]] = {
    "mlp": {
        "data set": "mnist", "shape": "wide", "width": _PER_PIXEL, "activation": "tanh",
        "σ_b²": "0.05",
    },
    "cnn": {
        "data set": "mnist", "channels": "128", "padding": FORMS["padding"]["published"],
        "activation": "tanh", "σ_b²": "2e-05",
    },
    "resnet": {
        "data set": "fashion_mnist", "channels": "32", "block": FORMS["block"]["published"],
        "activation": "tanh", "σ_b²": "2e-05",
    },
}  # fmt: skip
_NARROWEST = 0.5  # of the published channels, with which a wall is still compared
AGREES, DIFFERS, TOO_SHALLOW = "agrees", "does not agree", "not measured deep enough"


def form_of(config: dict[str, Any]) -> str:
    """Return the form of a convolutional network in words, nothing for others."""
    name = {"cnn": "padding", "resnet": "block"}.get(config["architecture"])
    return "" if name is None else FORMS[name][config.get(name, _OLDER[name])]


def departures(result: xr.Dataset) -> list[str]:
    """Return in what the published network differs from a result's, in words; empty if in nothing.

    Args:
        result: of a sweep of cascades or trainings, with its provenance.
    """
    about = provenance(result)
    config = about["config"]
    per_pixel = config["width"] in (0, about["data"]["pixels"])
    here = {
        "data set": about["data"]["name"],
        "shape": config["shape"],
        "width": _PER_PIXEL if per_pixel else f"{config['width']}",
        "channels": f"{config.get('channels', '')}",
        "padding": form_of(config),
        "block": form_of(config),
        "activation": config["activation"],
        "σ_b²": f"{config['sigma_b2']:g}",
    }
    wanted = PUBLISHED[config["architecture"]]
    return [
        f"{name} {value} (here {here[name]})"
        for name, value in wanted.items()
        if here[name] != value
    ]


def narrower(result: xr.Dataset) -> bool:
    """Return whether a network has fewer channels than the published one, but half of them."""
    config = provenance(result)["config"]
    published = int(PUBLISHED[config["architecture"]].get("channels", 0))
    return _NARROWEST * published <= config.get("channels", 0) < published


def nothing_to_compare(result: xr.Dataset) -> str:
    """Return a sentence on why the paper is not compared with; empty where it can be, as also for
    a network that is only `narrower`."""
    different = departures(result)
    if not different or (narrower(result) and len(different) == 1):
        return ""
    return (
        "**Against the paper: nothing is compared.** The publication has no such run. "
        f"Its network differs: {listed(different)}."
    )


def which_entropy(result: xr.Dataset) -> str:
    """Return a sentence on which of the two differential entropies a result has."""
    if published_entropy(result) == ENTROPY_PUBLISHED:
        return "The entropy is the published one, of pictures that are shifted first."
    return (
        "This result holds the differential entropy of pictures as they are; the published "
        "numbers are of another measure, which shifts the pictures first."
    )


def measured_as(result: xr.Dataset) -> str:
    """Return words for a heading: the solver, and the entropy where it is not the published one."""
    solver = {"ridge": "closed form", "adam": "Adam"}[solver_name(result)]
    measure = "" if published_entropy(result) == ENTROPY_PUBLISHED else ", by another measure"
    return f"{solver}{measure}"


def depth_verdict(published: int, here: float, last: int) -> str:
    """Return whether a depth agrees with the published one, within 15%.

    Args:
        published: depth.
        here: depth, above `last` where it was not reached.
        last: the deepest that was measured.
    """
    if here > last:
        return DIFFERS if published * (1 + DEPTH_TOLERANCE) <= last else TOO_SHALLOW
    return AGREES if abs(here - published) <= DEPTH_TOLERANCE * published else DIFFERS


def depths_against_paper(result: xr.Dataset) -> str:
    """Return where a fully connected network's image is lost, beside the published depths."""
    refused = nothing_to_compare(result)
    if refused:
        return refused
    found, entropy, last = (
        against_published(result),
        published_entropy(result),
        result.sizes["depth"],
    )
    if found.empty:
        known = listed(short(s) for s in PUBLISHED_DEPTHS)
        return (
            "**Against the paper: nothing is compared.** Published depths are known at "
            f"σ_w² = {known}, of which this run has none."
        )
    rows, verdicts = [], {}
    for sigma_w2, (published, by_r_squared, by_entropy) in found.iterrows():
        broken = result[entropy].sel(sigma_w2=sigma_w2).mean("seed").isnull().any()
        here = last + 1 if isinstance(by_entropy, str) else by_entropy
        verdict = UNDEFINED if broken else depth_verdict(int(published), here, last)
        verdicts[short(float(str(sigma_w2)))] = verdict
        shown = UNDEFINED if broken else by_entropy
        rows.append([short(float(str(sigma_w2))), published, shown, verdict, by_r_squared])
    return paragraphs(
        f"**Against the paper, {measured_as(result)}: the ordered wall "
        f"{_overall(verdicts, at='σ_w² =')}** "
        f"The depth from which the differential entropy stays below −13 is compared with the "
        f"published one, read off the figure by eye; within {DEPTH_TOLERANCE:.0%} it agrees. "
        + which_entropy(result),
        table(["σ_w²", "published depth", "here: −13 nats", "verdict", "here: R² < 0.02"], rows),
    )


def _overall(verdicts: dict[str, str], *, at: str) -> str:
    """The verdicts in words, each with the places where it holds."""
    words = dict.fromkeys(verdicts.values())
    verbs = {UNDEFINED: f"is {UNDEFINED}", TOO_SHALLOW: f"is {TOO_SHALLOW}"}
    places = {word: listed(p for p, v in verdicts.items() if v == word) for word in words}
    return f"{'; '.join(f'{verbs.get(w, w)} at {at} {p}' for w, p in places.items())}."


def walls_against_paper(result: xr.Dataset) -> str:
    """Return where a convolutional network's wall stands, beside the published one."""
    refused = nothing_to_compare(result)
    if refused:
        return refused
    found = walls(result)
    if found.empty:
        known = listed(PUBLISHED_WALLS[provenance(result)["config"]["architecture"]])
        return (
            "**Against the paper: nothing is compared.** Published walls are known at depth "
            f"{known}, deeper than the {result.sizes['depth']} of this run."
        )
    low, edge = (next(n for n in found.columns if f"−{level} nats" in n) for level in (13, 10))
    rows, verdicts = [], {}
    for depth, row in found.iterrows():
        here = row[edge]
        agrees = not isinstance(here, str) and abs(here - row["published"]) <= WALL_TOLERANCE
        verdicts[f"{depth}"] = AGREES if agrees else DIFFERS
        rows.append([depth, short(row["published"]), here, row[low], verdicts[f"{depth}"]])
    width = f" Of the network, {listed(departures(result))}." if narrower(result) else ""
    return paragraphs(
        f"**Against the paper, {measured_as(result)}: the wall "
        f"{_overall(verdicts, at='depth')}** "
        f"Where the differential entropy rises to −10, where the published colours begin, is "
        f"compared with the published wall, read by eye; it agrees within {number(WALL_TOLERANCE)} "
        f"in σ_w².{width} The published depths count the stem's three stages, these do not. "
        + which_entropy(result),
        table(["depth", "published σ_w²", "here: −10 nats", "−13 nats", "verdict"], rows),
    )
