"""What a run of notebook 05 says, in Markdown: what the stages of a trained network keep."""

from typing import Any

import numpy as np
import xarray as xr

from paperlib.core.provenance import provenance
from paperlib.instruments.digits.plots_study import describe, verdicts
from paperlib.instruments.digits.study import JUDGED
from paperlib.notebooks.findings.wording import counted, listed, number, paragraphs, percent, span

PUBLISHED: dict[str, Any] = {
    "depth": 9,
    "shape": "shrinking",
    "activation": "tanh",
    "off": -1.0,
}
PUBLISHED_CLASS, PUBLISHED_DRIFT = 5, 6  # an ambiguous 5 comes back as a 6


def digits(result: xr.Dataset) -> str:
    """Return what a trained network and its ideal inputs look like to two judges.

    Args:
        result: of `study.run_study`.
    """
    config = provenance(result)["config"]
    return paragraphs(
        f"**This run.** {describe(result)}  ·  seed {config['seed']} alone.",
        _ideals(result),
        *(_shown(result, str(kind)) for kind in result.shown.values),
        _traded(result),
        _faithful(result),
        _against_paper(result),
    )


def _ideals(result: xr.Dataset) -> str:
    count = result.sizes["class"]
    known = (result.ideal_verdict == np.arange(count)).sum("class")
    said = {
        state: " and ".join(
            f"the {_plural(judge)} {int(known.sel(state=state, judge=judge))}"
            for judge in _judges(result)
        )
        for state in ("trained", "untrained")
    }
    return (
        f"**The ideal inputs.** How many of the {count} are known as their class: from the trained "
        f"network's cascade, by {said['trained']}; from the untrained network's, by "
        f"{said['untrained']}."
    )


def _plural(judge: str) -> str:
    return {"class mean": "class means"}.get(judge, judge)


def _judges(result: xr.Dataset) -> list[str]:
    return [str(judge) for judge in result.judge.values]


def _shown(result: xr.Dataset, kind: str) -> str:
    """One image: its class, what the judges see in its reconstructions, and R²."""
    name = result["class"].values[int(result.label)]
    at = result.sel(state="trained", shown=kind)
    seen = verdicts(result).loc[kind]
    changes = "; ".join(
        f"by the {_plural(judge)}: {_journey(seen.loc[judge])}" for judge in _judges(result)
    )
    left = at.r_squared.isel(level=[1, -1]).values
    return (
        f"**The {kind} image** (#{int(at.number)}, class {name}). Seen {changes}. R² is "
        f"{number(float(left[0]))} at stage 1 and {number(float(left[1]))} at stage "
        f"{int(result.level[-1])}."
    )


def _journey(row: Any) -> str:
    return f"{row['input']} at every stage" if row["changes"] == "none" else f"{row['changes']}"


def _traded(result: xr.Dataset) -> str:
    """What training has cost and brought, at the last stage, over many test images."""
    last = int(result.level[-1])
    kept = {
        s: float(result.test_r_squared.sel(state=s, level=last)) for s in ("untrained", "trained")
    }
    knows = result.right.sel(judge="class mean", level=last)
    tested = min(JUDGED, provenance(result)["config"]["test_images"])
    judged = f"up to {counted(tested, 'test image')}"
    of_images = float(result.right.sel(state="trained", judge="class mean", level=0))
    return (
        f"**What training changes.** At stage {last} R² over {judged} is "
        f"{number(kept['untrained'])} before training and {number(kept['trained'])} after. The "
        f"class means know the class of {percent(float(knows.sel(state='untrained')))} of what "
        f"comes back before training and of {percent(float(knows.sel(state='trained')))} after; of "
        f"the images themselves, {percent(of_images)}."
    )


def _faithful(result: xr.Dataset) -> str:
    shares = result.faithful.sel(state="trained", judge="network").isel(level=slice(1, None))
    return (
        "**The network agrees with itself** on "
        f"{span(100 * shares.values, 1)}% of them, from stage to stage: so often it "
        "says of a reconstruction what it said of the image."
    )


def _against_paper(result: xr.Dataset) -> str:
    about = provenance(result)
    different = [
        f"{name} {wanted} (here {about['config'][name]})"
        for name, wanted in PUBLISHED.items()
        if about["config"][name] != wanted
    ]
    if about["data"]["name"] != "mnist":
        different.insert(0, f"data set mnist (here {about['data']['name']})")
    if int(result.label) != PUBLISHED_CLASS:
        different.append(f"shown class {PUBLISHED_CLASS} (here {int(result.label)})")
    if different:
        return (
            "**Against the paper: nothing is compared.** It has no such run; its figure differs: "
            f"{listed(different)}."
        )
    if "ambiguous" not in result.shown:
        return "**Against the paper: nothing is compared.** This run shows no ambiguous image."
    end = result.verdict.sel(state="trained", shown="ambiguous").isel(level=-1)
    seen = [str(result["class"].values[int(v)]) for v in end.values]
    agrees = all(int(v) == PUBLISHED_DRIFT for v in end.values)
    return (
        f"**Against the paper: {'it agrees' if agrees else 'it does not agree'}.** Published is an "
        f"ambiguous {PUBLISHED_CLASS}, another image, that comes back as a {PUBLISHED_DRIFT}. Here "
        + listed(
            f"the {judge} sees a {one}" for judge, one in zip(_judges(result), seen, strict=True)
        )
        + " in the picture from the last stage."
    )
