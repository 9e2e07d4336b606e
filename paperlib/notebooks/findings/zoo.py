"""What a run of notebook 09 says, in Markdown: who foretells which networks of the zoo learn."""

from collections.abc import Iterable, Mapping
from typing import Any

import pandas as pd
import xarray as xr

from paperlib.instruments.prediction.plots_zoo import words_of, zoo_label
from paperlib.instruments.prediction.zoo_scores import (
    EQUAL_COST,
    calibration_error,
    zoo_scoreboard,
)
from paperlib.notebooks.findings.wording import counted, number, paragraphs, percent, table

WANTED = {"learns_at_all": 0.95, "learns_fast": 0.9}  # AUC that a verdict to rely on should have
CALIBRATED = 0.08  # and its calibration error
SHARE = 1 / 20  # of the training budget that it may cost


def zoo(
    networks: pd.DataFrame,
    scores: Mapping[str, pd.DataFrame],
    probabilities: Mapping[str, pd.Series],
    seconds: Mapping[str, float],
    *,
    changed: tuple[int, int],
    anew: xr.Dataset | None = None,
) -> str:
    """Return how well the verdict foretold the labels, against whom, how surely and at what cost.

    Args:
        networks: of `zoo_table`.
        scores: by label, of `zoo_scoreboard`.
        probabilities: by label, of `left_out`.
        seconds: of `predictor_seconds`.
        changed: of `changed_labels` on learns_at_all, of networks taken without regard to it.
        anew: `labels` of networks that were trained again; None: none was.
    """
    return paragraphs(
        _networks(networks, changed),
        *(_of_label(networks, scores[label], label, probabilities[label]) for label in scores),
        _cost(networks, seconds),
        *([] if anew is None else [_anew(networks, anew)]),
        "**Against the paper: nothing is compared.** The publication trains no such networks.",
    )


def instruments_said(
    zoo: Mapping[str, pd.DataFrame],
    grid: pd.DataFrame,
    said: Mapping[str, str],
    seconds: Mapping[str, float],
) -> str:
    """Return how well the instruments foretold what learns, on the zoo and on MLPs of a grid.

    Args:
        zoo: by label, of `zoo_scoreboard` on the zoo.
        grid: the same on the grid.
        said: score → the instrument that it is of.
        seconds: by score, the cost of a network.
    """
    boards = [*zoo.values(), grid]
    order = [name for name in boards[0].index if name in said]
    order += [name for name in grid.index if name in said and name not in order]
    best = {where: board.loc[[n for n in board.index if n in said]].iloc[0]
            for where, board in (("zoo", boards[0]), ("grid", grid))}  # fmt: skip
    verdict: dict[Any, float] = boards[0].to_dict("index")["verdict"]
    behind = sum(boards[0].loc[[n for n in order if n in boards[0].index], "ahead_low"] > 0)
    return paragraphs(
        f"**The instruments.** On the zoo the best of them for “{words_of(next(iter(zoo)))}” is "
        f"{best['zoo'].name}, AUC {_auc(dict(best['zoo']))}; the verdict, "
        f"{_auc(verdict)}, is ahead of {behind} of them by more than the interval. On the "
        f"grid of MLPs the best is {best['grid'].name}, {_auc(dict(best['grid']))}.",
        table(
            ["instrument", "what it says", *map(words_of, zoo), "trains, MLPs", "seconds"],
            [
                [
                    said[name],
                    name,
                    *(_auc(b.loc[name]) if name in b.index else "–" for b in boards),
                    number(seconds[name]) if name in seconds else "–",
                ]
                for name in order
            ],
        ),
    )


def grids_said(
    tables: Mapping[str, pd.DataFrame],
    boards: Mapping[str, pd.DataFrame],
    longer: Mapping[str, pd.DataFrame] | None = None,
) -> str:
    """Return how well the verdict and others foretold which networks of grids learn at all.

    Args:
        tables: by grid in words, of `judged_grid`.
        boards: by grid, of `zoo_scoreboard` on learns_at_all.
        longer: by grid, of `trained_longer`, where some of its networks were.
    """
    if not boards:
        return ""
    longer = longer or {}
    names = list(dict.fromkeys(name for board in boards.values() for name in board.index))
    return paragraphs(
        "**The published networks.** The verdict was fitted to the zoo alone; its part that says "
        "how the lesson comes back was chosen with networks like these in view.",
        *(
            f"{_of_grid(name, tables[name], board)}{_longer(longer.get(name), board.index)}"
            for name, board in boards.items()
        ),
        table(
            ["predictor", *boards],
            [
                [
                    zoo_label(str(n)),
                    *(_auc(dict(b.loc[n])) if n in b.index else "–" for b in boards.values()),
                ]
                for n in names
            ],
        ),
    )


def _of_grid(name: str, networks: pd.DataFrame, board: pd.DataFrame) -> str:
    verdict, wanted = dict(board.loc["verdict"]), WANTED["learns_at_all"]
    error = calibration_error(networks["verdict"], networks["learns_at_all"])
    reached = "reached" if verdict["auc"] >= wanted else "missed"
    learn = int(networks["learns_at_all"].sum())
    return (
        f"Of {counted(len(networks), 'network')} of the {name}, {learn} learn at all. The verdict "
        f"has an AUC of {_auc(verdict)}, so the aim of {number(wanted)} is {reached}; calibration "
        f"error {number(error, 3)}. {_ahead(board.drop(index='verdict'))}{_one_way(networks)}"
    )


def _longer(networks: pd.DataFrame | None, predictors: Iterable[str]) -> str:
    """How many labels of a grid another budget changes, and how well these are foretold."""
    if networks is None or networks.empty:
        return ""
    changed = int((networks["learns_at_all"] != networks["learns_longer"]).sum())
    before, after = (
        number(calibration_error(networks["verdict"], networks[label]), 2)
        for label in ("learns_at_all", "learns_longer")
    )
    trained_by = ", ".join(networks.attrs["trained_by"])
    text = (
        f" Of {counted(len(networks), 'network')} that were also trained for up to "
        f"{networks.attrs['budget']:,} steps ({trained_by}), the label changes in {changed}: "
        f"{percent(changed / len(networks), 0)}; the verdict's calibration error on these is "
        f"{after} then, {before} before."
    )
    if networks["learns_longer"].nunique() < 2:
        return text
    board = zoo_scoreboard(networks, "learns_longer", [*predictors])
    verdict: dict[Any, float] = board.to_dict("index")["verdict"]
    return (
        f"{text} It foretells the labels of then with an AUC of {_auc(verdict)}. "
        f"{_ahead(board.drop(index='verdict'))}"
    )


def _one_way(networks: pd.DataFrame) -> str:
    """A warning of labels that are those of a single training."""
    if "steps_paid" in networks:
        return ""
    return (
        " These were trained in one way only: what another optimiser or rate would have taught "
        "counts as failed, while the verdict foretells the best of several."
    )


def _networks(networks: pd.DataFrame, changed: tuple[int, int]) -> str:
    learn = networks["learns_at_all"].mean()
    families = networks["family"].nunique()
    text = (
        f"**The zoo.** {counted(len(networks), 'network')} of {families} families; "
        f"{percent(1 - learn, 0)} never reach 50% with any of the trainings, "
        f"{percent(networks['learns_fast'].mean(), 0)} reach 80% within a quarter of the budget."
    )
    count, of = changed
    if of:
        text += (
            f" Of {counted(of, 'network')} that were trained with four times the budget, the label "
            f"“learns at all” changes in {count}: {percent(count / of)}."
        )
    return text


def _of_label(
    networks: pd.DataFrame, board: pd.DataFrame, label: str, probability: pd.Series
) -> str:
    verdict = dict(board.loc["verdict"])
    error = calibration_error(probability, networks[label])
    wanted, reached = WANTED.get(label), ""
    if wanted is not None:
        reached = " reached" if verdict["auc"] >= wanted else " missed"
        reached = f" The aim of {number(wanted)} is{reached}."
    calibrated = "within" if error <= CALIBRATED else "above"
    others = board.drop(index="verdict")
    return paragraphs(
        f"**“{words_of(label).capitalize()}”.** Each family is judged by a verdict that was fitted "
        f"to the others: AUC {_auc(verdict)}.{reached} Its probabilities have a calibration error "
        f"of {number(error, 3)}, {calibrated} the {CALIBRATED} aimed at. "
        f"{_behind(others)} {_ahead(others)} {_paid(networks, others)}".rstrip(),
        table(
            ["predictor", "AUC", "verdict ahead by"],
            [
                [zoo_label(str(name)), _auc(row), "–" if name == "verdict" else _by(row)]
                for name, row in board.to_dict("index").items()
            ],
        ),
    )


def _auc(row: Mapping[Any, float]) -> str:
    return f"{number(row['auc'], 3)} ({number(row['low'], 3)} to {number(row['high'], 3)})"


def _by(row: Mapping[Any, float]) -> str:
    low, high = (number(row[f"ahead_{end}"], 3) for end in ("low", "high"))
    return f"{number(row['ahead'], 3)} ({low} to {high})"


def _behind(others: pd.DataFrame) -> str:
    """The rivals that are surely behind the verdict."""
    count = int((others["ahead_low"] > 0).sum())
    return f"It is ahead of {count} of {len(others)} others by more than the interval."


def _ahead(others: pd.DataFrame) -> str:
    """The rivals that are not behind it."""
    better = [zoo_label(str(name)) for name in others.index[others["ahead"] <= 0]]
    return f"Not behind it: {'; '.join(better)}." if better else "None has a higher AUC."


def _paid(networks: pd.DataFrame, others: pd.DataFrame) -> str:
    """Why training itself may be as good at the same cost."""
    if others["ahead"].to_dict()[EQUAL_COST] > 0:
        return ""
    steps = float(networks["steps_paid"].mean())
    return (
        f"For the time of a verdict each of the trainings takes {number(steps, 0)} steps, on "
        "images that are new in every step; the verdict is made of the same few hundred."
    )


def _anew(networks: pd.DataFrame, anew: xr.Dataset) -> str:
    numbers = anew["number"].values
    shipped = networks.loc[numbers, "best_accuracy"]
    told = [
        f"{number} reaches {percent(float(here), 0)} ({percent(float(there), 0)} above)"
        for number, here, there in zip(numbers, anew["best_accuracy"].values, shipped, strict=True)
    ]
    return f"**Anew.** {counted(len(told), 'network')} trained here and now: {', '.join(told)}."


def _cost(networks: pd.DataFrame, seconds: Mapping[str, float]) -> str:
    verdict, budget = seconds["verdict"], float(networks["budget_seconds"].mean())
    kept = "within" if verdict / budget <= SHARE else "above"
    return (
        f"**Cost.** A verdict takes {number(verdict)} s of one core, all trainings of a network to "
        f"the end of their budget {number(budget, 1)} s: a share of {percent(verdict / budget)}, "
        f"{kept} the {percent(SHARE, 0)} aimed at. R² alone takes "
        f"{number(seconds['r_squared_smallest'])} s, thirty steps of each training "
        f"{number(seconds['accuracy_30'])} s."
    )
