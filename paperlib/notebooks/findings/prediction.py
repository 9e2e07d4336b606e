"""What a run of notebook 07 says, in Markdown: which predictor of trainability agrees best."""

from collections.abc import Mapping, Sequence

import pandas as pd
import xarray as xr

from paperlib.core.provenance import provenance
from paperlib.instruments.prediction.scoring import predictor_label
from paperlib.instruments.reconstruction.tables import against_shipped
from paperlib.notebooks.findings.trained import budget
from paperlib.notebooks.findings.wording import counted, number, paragraphs, span, table

COIN = 0.5  # the AUC of a coin
SHOWN = 5  # predictors of a table: the best, and some that are named
NAMED = ("collapse_depth_ridge", "correlation_depth", "gradient_ratio", "cutoff_adam", "random")
Anew = tuple[xr.Dataset, xr.Dataset, str]


def scoreboard(
    scores: Mapping[str, pd.DataFrame],
    predictions: Sequence[xr.Dataset],
    trainings: Sequence[xr.Dataset],
    *,
    anew: Sequence[Anew] = (),
) -> str:
    """Return which predictors agree with trainings, how sure that is, and what they cost.

    Args:
        scores: by data set, from `scoring.scoreboard`.
        predictions, trainings: what they were computed from, in the same order.
        anew: points computed again, each with its shipped result and the variable to compare.
    """
    parts = [
        _of_one(name, scored, judged, trained)
        for (name, scored), judged, trained in zip(
            scores.items(), predictions, trainings, strict=True
        )
    ]
    return paragraphs(
        *parts,
        *(_anew(*each) for each in anew),
        "**Against the paper: nothing is compared.** The publication has no scoreboard.",
    )


def _of_one(name: str, scored: pd.DataFrame, judged: xr.Dataset, trained: xr.Dataset) -> str:
    """What the scoreboard of one data set says."""
    images = provenance(judged)["data"]["train_images"]
    ranked = scored["auc"].dropna()
    if ranked.empty:
        return (
            f"**{name}.** {budget(trained)} The AUC is not defined: all networks train, or none "
            "does."
        )
    seeds = counted(trained.sizes["seed"], "seed")
    return paragraphs(
        f"**{name}.** {budget(trained)} Every predictor sees "
        f"{counted(images, 'training image')}; values are means over {seeds}, ± their standard "
        f"deviation.",
        f"{_first(scored)} {_noise(scored, trained)} {_wrong_way(scored)}".strip(),
        table(
            ["predictor", "rank", "AUC", "depth error", "unfitted", "CPU s", "saving"],
            [_row(scored, key) for key in _named(scored)],
        ),
        _published_measures(scored),
    )


def _named(scored: pd.DataFrame) -> list[str]:
    wanted = [*scored.index[:SHOWN], *(key for key in NAMED if key in scored.index)]
    return [key for key in scored.index if key in wanted]


def _row(scored: pd.DataFrame, key: str) -> list[str]:
    at = {str(column): float(scored[column][key]) for column in scored.columns}
    ratio = at["saving"]
    saving = f"{number(ratio, 0)} ×" if ratio == ratio and ratio < 1e6 else "–"
    unfitted = at["unfitted_error"]
    return [
        predictor_label(key),
        f"{list(scored.index).index(key) + 1}",
        _auc(scored, key),
        number(at["depth_error"], 1),
        number(unfitted, 1) if unfitted == unfitted else "–",
        f"{at['seconds']:.2g}",
        saving,
    ]


def _auc(scored: pd.DataFrame, key: str) -> str:
    mean, deviation = (float(scored[column][key]) for column in ("auc", "auc_std"))
    return (
        f"{number(mean, 3)} ± {number(deviation, 3)}" if deviation == deviation else number(mean, 3)
    )


def _first(scored: pd.DataFrame) -> str:
    """The best predictor, and those that two standard deviations do not tell from it."""
    best = str(scored.index[0])
    said = f"Highest AUC: {predictor_label(best)} ({_auc(scored, best)})."
    deviation = scored["auc_std"]
    if deviation.isnull().all():
        return f"{said} There is one seed, so nothing is known of its spread."
    apart = scored["auc"].iloc[0] - scored["auc"]
    near = [k for k in scored.index[1:] if apart[k] <= 2 * max(deviation[k], deviation[best])]
    labels = "; ".join(predictor_label(k) for k in near) or "none"
    return f"{said} Within two standard deviations of it: {labels}."


def _noise(scored: pd.DataFrame, trained: xr.Dataset) -> str:
    """What the random score says of the table's own error."""
    if "random" not in scored.index:
        return ""
    per_seed = int((trained["finished"] == 1).sum(("sigma_w2", "depth")).max())
    return (
        f"The random score has {_auc(scored, 'random')} instead of {COIN:g}, of "
        f"{counted(per_seed, 'network')} a seed: that is how far chance alone can lead."
    )


def _wrong_way(scored: pd.DataFrame) -> str:
    """The predictors below a coin, the random one aside."""
    wrong = scored["auc"][(scored["auc"] < COIN) & (scored.index != "random")]
    if wrong.empty:
        return ""
    labels = "; ".join(predictor_label(str(key)) for key in wrong.index)
    return f"Below a coin ({span(wrong, 2)}), that is the wrong way round: {labels}."


def _published_measures(scored: pd.DataFrame) -> str:
    """How the publication's own measures do, in this score that it has not."""
    keys = [k for k in scored.index if str(k).startswith(("cutoff_", "relative_entropy_"))]
    if not keys:
        return ""
    said = "; ".join(f"{predictor_label(k)}: {_auc(scored, k)}" for k in keys)
    return f"The AUC of the published measures: {said}."


def _anew(fresh: xr.Dataset, shipped: xr.Dataset, variable: str) -> str:
    names = [provenance(r)["data"]["name"] for r in (fresh, shipped)]
    found = against_shipped(fresh, shipped, variable)["difference"].abs().dropna()
    if found.empty:
        return f"**Anew on {names[0]}.** Nothing of it stands in the result on {names[1]}."
    what = f"{counted(len(found), 'value')} of `{variable}`"
    most = f"{float(found.max()):.2g}"
    return f"**Anew on {names[0]}.** {what} differ from those above by at most {most}."
