"""What a run of notebook 06 says, in Markdown: what single channels of VGG carry."""

import numpy as np
import xarray as xr

from paperlib.core.provenance import provenance
from paperlib.instruments.channels.channels import best_channels
from paperlib.instruments.channels.plots_channels import NAMES, describe
from paperlib.instruments.channels.settings import level_and_channel
from paperlib.notebooks.findings.wording import counted, listed, number, paragraphs, percent, table

TELLING = 0.01  # R² gained from which a channel tells something


def channels(result: xr.Dataset) -> str:
    """Return how much comes back from each level, and which channels carry it.

    Args:
        result: of `channels.run_channels`.
    """
    about = provenance(result)
    described = describe(result).replace("\n", "  ·  ")
    tested = counted(about["data"]["test_images"], "held-out photograph")
    return paragraphs(
        f"**This run.** {described}  ·  seed {about['config']['seed']} alone, {tested}.",
        _cascades(result),
        _telling(result),
        _shown(result),
        _asked(result),
        _against_paper(result),
    )


def _cascades(result: xr.Dataset) -> str:
    """R² of every cascade at the poolings, and what its fit took."""
    stages = result.stage.values.tolist()
    pools = [i for i, name in enumerate(stages) if name.startswith("pool")]
    rows, names = [], {**NAMES, "adam": "Adam"}
    for at in result.cascade.values:
        one = result.sel(cascade=at)
        taken = f"{number(float(one.seconds), 0)} s" + (
            f", {int(one.steps)} steps" if one.steps else ""
        )
        rows.append([names[str(at)], *(number(float(one.r_squared[i])) for i in pools), taken])
    return paragraphs(
        "**What comes back.** R² of the held-out photographs from each pooling, with all channels; "
        "at the end, how long the fit took.",
        table(["cascade", *(stages[i] for i in pools), "fit"], rows),
    )


def _telling(result: xr.Dataset) -> str:
    """How the image is spread over the channels of the ranked levels."""
    images = provenance(result)["config"]["ranked_images"]
    rows = []
    for level in dict.fromkeys(result.entry_level.values.tolist()):
        gained = result.gained.values[result.entry_level.values == level]
        best = best_channels(result, level)[0]
        telling, away = int((gained > TELLING).sum()), int((gained < 0).sum())
        rows.append([level, len(gained), telling, away, f"{level}:{best}", number(gained[best], 3)])
    columns = [
        "level",
        "channels",
        f"gain > {percent(TELLING, 0)}",
        "lead away",
        "best",
        "its R² gained",
    ]
    return paragraphs(
        f"**Which channels tell most.** Measured on {counted(images, 'held-out photograph')}: how "
        f"many channels gain more than {percent(TELLING, 0)} of the variance, how many lead away "
        "from the image, and the best one.",
        table(columns, rows),
    )


def _shown(result: xr.Dataset) -> str:
    """How the channels that are shown rank in their levels, where these were ranked."""
    said = []
    for text in provenance(result)["config"]["shown"]:
        level, channel = level_and_channel(text)
        rank = _rank(result, level, channel)
        said.append(f"{text} {rank}" if rank else f"{text}, whose level was not ranked")
    return f"**The channels shown.** By R² gained: {listed(said)}." if said else ""


def _rank(result: xr.Dataset, level: int, channel: int) -> str:
    if level not in result.entry_level:
        return ""
    order = best_channels(result, level)
    return f"is number {order.index(channel) + 1} of {len(order)}"


def _asked(result: xr.Dataset) -> str:
    """On which photographs the channel that is asked about changes most."""
    asked, energy = provenance(result)["config"]["asked"], result.answer_energy.values
    if not np.isfinite(energy).all() or not energy.max():
        return f"**The channel {asked}** adds nothing to these photographs."
    order = np.argsort(-energy)
    names = result.photograph.values
    rank = _rank(result, *level_and_channel(asked))
    said = listed(f"{names[i]} ({percent(energy[i] / energy.max(), 0)})" for i in order)
    return (
        f"**The channel {asked}** changes most on {names[order[0]]}. Its energy, as a part of the "
        f"largest: {said}.{f' By R² gained it {rank} of its level.' if rank else ''}"
    )


def _against_paper(result: xr.Dataset) -> str:
    about = provenance(result)
    config, weights = about["config"], about["weights"]["name"]
    different = []
    if weights != "imagenet":
        different.append(
            f"ImageNet's weights (here {'random ones' if weights == 'random' else weights})"
        )
    if config["layers"] != 16 or config["batch_norm"]:
        norm = " with batch norm" if config["batch_norm"] else ""
        different.append(f"VGG16 without batch norm (here VGG{config['layers']}{norm})")
    if different:
        return (
            "**Against the paper: nothing is compared.** Channel numbers mean nothing in another "
            f"network, and the published one is another: {listed(different)}."
        )
    return (
        "**Against the paper.** The network is the published one. Published is that channel 216 of "
        f"level 10 answers to faces; asked about here is {config['asked']}, and the photographs "
        "are ordered above by its energy."
    )
