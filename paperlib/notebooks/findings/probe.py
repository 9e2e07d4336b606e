"""What a run of notebook 08 says, in Markdown: where models lose their input, what saves one."""

import math
from collections.abc import Mapping

from paperlib.core.provenance import provenance
from paperlib.instruments.probe.report import OVERFLOWS, Report
from paperlib.instruments.probe.suggestion import Suggestion
from paperlib.measures import LOST
from paperlib.notebooks.findings.wording import counted, number, paragraphs, percent, short, table


def probe(
    report: Report,
    suggestion: Suggestion,
    accuracies: Mapping[str, float],
    reports: Mapping[str, Report],
    *,
    data: str,
    classes: int,
    steps: int,
    pictures: str,
) -> str:
    """Return where the first model loses its input, whether rescaling saved it, and the others.

    Args:
        report: of the model that does not train.
        suggestion: what its `suggest` returned.
        accuracies: on test images, by how the weights were scaled; the last is the suggested one.
        reports: of other models, by name.
        data, classes: of the first model; steps: of its trainings.
        pictures: the data set that the others saw.
    """
    about = provenance(report.result)
    seen = counted(about["data"]["train_images"], "image")
    return paragraphs(
        f"**This run.** {data}  ·  {about['config']['model']}, "
        f"{counted(about['config']['parameters'], 'parameter')}  ·  probed with {seen}, "
        f"{about['data']['test_images']} more held out  ·  trained for {counted(steps, 'step')} of "
        f"SGD, one seed.",
        _lost(report),
        _saved(suggestion),
        _trained(accuracies, classes, steps, told=bool(report.cutoff)),
        _others(reports, pictures),
        "**Against the paper: nothing is compared.** It has no such models. Its claim is that what "
        "an untrained network has lost cannot be learnt from.",
    )


def _lost(report: Report) -> str:
    stages, at = report.result.sizes["stage"], report.phase_numbers
    fate = (
        f"has lost its input from stage {report.cutoff_stage} of {stages} on (layer "
        f"`{report.cutoff}`; R² stays below {LOST:g})"
        if report.cutoff
        else f"does not lose its input within {stages} stages"
    )
    return (
        f"**The network as PyTorch initialises it** {fate}. It is {report.phase}: before the head "
        f"the mean cosine of different inputs is {number(at['correlation'], 3)}, and R² is "
        f"{number(at['r_squared'])}."
    )


def _saved(suggestion: Suggestion) -> str:
    if suggestion.gain == 1:
        return (
            "**No other variance is better** than the one there is "
            f"(σ_w² = {short(suggestion.sigma_w2)})."
        )
    kept = suggestion.report.phase_numbers["r_squared"]
    return (
        f"**Which variance saves it.** Most is left with the weights times "
        f"{short(suggestion.factor)}, that is σ_w² = {short(suggestion.sigma_w2)}: R² before the "
        f"head is {number(kept)}. {_around(suggestion)}"
    )


def _around(suggestion: Suggestion) -> str:
    """What the smallest and the largest factor that were tried do."""
    rows = suggestion.table
    said = []
    for factor in (rows.index[0], rows.index[-1]):
        sigma_w2, left, phase = rows.loc[factor]
        fate = "it overflows" if phase == OVERFLOWS else f"it is {phase}"
        kept = "" if math.isnan(left) else f" and R², read directly, is {number(left)}"
        said.append(f"times {short(factor)} (σ_w² = {short(sigma_w2)}) {fate}{kept}")
    return f"Of the factors tried, {said[0]}; {said[1]}."


def _trained(accuracies: Mapping[str, float], classes: int, steps: int, *, told: bool) -> str:
    """How well the networks train; `told`: the probe saw the first one lose its input."""
    chance = 1 / classes
    rows = [[name, percent(accuracy)] for name, accuracy in accuracies.items()]
    first, last = (list(accuracies.values())[place] for place in (0, -1))
    if max(first, last) < chance + 0.1 * (1 - chance):
        verdict = "Neither has learnt anything yet."
    elif first > last:
        verdict = "Rescaling did not help: the network learns better as it was."
    elif first >= chance + 0.5 * (last - chance):
        verdict = "Both learn; rescaling was not needed for that."
    else:
        verdict = "The rescaled network learns and the other does not"
        verdict += ", as the probe said." if told else ", though the probe saw nothing lost in it."
    return paragraphs(
        f"**Does it hold?** After {counted(steps, 'step')}; guessing gives "
        f"{percent(chance)}. {verdict}".rstrip(),
        table(["weights", "test images right"], rows),
    )


def _others(reports: Mapping[str, Report], pictures: str) -> str:
    rows = []
    for name, report in reports.items():
        at = report.phase_numbers
        stages = report.result.sizes["stage"]
        gone = f"stage {report.cutoff_stage}" if report.cutoff else "never"
        rows.append(
            [
                name,
                stages,
                gone,
                number(at["r_squared"]),
                number(at["correlation"], 3),
                short(at["separation"]),
                report.phase,
            ]
        )
    columns = ["model", "stages", "input lost from", "R²", "mean cosine", "separation", "phase"]
    return paragraphs(
        f"**Other models**, untrained, on {pictures}. R², the mean cosine of different inputs, and "
        "separation (how many times as far apart neighbours are as at the input) are those before "
        "the head.",
        table(columns, rows),
    )
