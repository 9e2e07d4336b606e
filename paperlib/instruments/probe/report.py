"""What a probe found, in words, as a table and as a figure."""

import base64
import io
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import xarray as xr
from torch import Tensor, nn

from paperlib.activations.tracing import Stage
from paperlib.core.provenance import provenance
from paperlib.datasets import PICTURE
from paperlib.instruments.probe.diagnoses import Diagnosis, diagnose
from paperlib.instruments.probe.examination import Examination
from paperlib.instruments.probe.phases import ALL, phases_of
from paperlib.instruments.probe.sizes import body_end
from paperlib.instruments.probe.vitals import STAGE_SIGNS, dataset_of
from paperlib.measures import LOST, collapse_depth

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from paperlib.instruments.probe.remedies import Patient
    from paperlib.instruments.probe.suggestion import Suggestion
    from paperlib.instruments.probe.verdict import Verdict

PARALLEL = 0.98  # mean cosine of different images' activations from which they are parallel
CLOSER = 0.1  # of what their cosine lacked of 1 before: different images have come together
APART = 3.0  # times as far apart as at the input: neighbours have separated
ALIVE = 0.1  # R² at the end of a critical network, whose images are still told apart
WORDS = (
    f"ordered: the mean cosine is above {PARALLEL:g} and was not, R² is at most {ALIVE:g}; "
    f"chaotic: neighbours are more than {APART:g} times as far apart; critical: neither, and R² is "
    f"above {ALIVE:g}; undecided: neither, and R² is lower; none: mean field has no such words for "
    "models with norms, skips, attention, recurrence or narrow layers"
)
TABLE = ("layer", "shape", "r_squared", "correlation", "separation")
OVERFLOWS = "overflows"  # how a stage is read whose numbers are too large or NaN
WORTHLESS = -0.5  # R² below which a reading says nothing, not even that there is nothing
SHOWN = 7  # stages from which an image is shown


@dataclass(frozen=True)
class Report:
    """What a probe found: `print(report)`, `report.plot()`, `report.to_dataframe()`.

    Attributes:
        result: along `stage` (from 1), with `layer`, `shape` and `read` (how the input is read from
            there): `r_squared`, the fraction of held-out images that comes back; `correlation`, the
            mean cosine of two images' activations, less the mean of all their numbers;
            `separation`, how far apart those of neighbours are, relative to the spread of all
            images', as a multiple of the same at the input; `numbers` of one sample; and vital
            signs: see `vitals.vital_signs`.
    """

    result: xr.Dataset
    _again: Callable[[nn.Module], "Report"]
    _model: nn.Module
    _judge: "Callable[[Report], Verdict] | None" = None
    _patient: "Patient | None" = None
    _end_of: "Callable[[nn.Module], Report] | None" = None

    @cached_property
    def verdict(self) -> "Verdict":
        """Whether the untrained model will train, and why; measured when it is first asked for.

        Its `probability`, `default_probability` (with Adam at 1e-3), `reasons` and `signals`; see
        `verdict.Verdict`. Some passes forward and back of a few hundred of the images. From then on
        the summary, the figure and `result.attrs["verdict"]` have it, too.

        Raises:
            ValueError: the model has changed since it was probed, or cannot be judged; says why.
        """
        if self._judge is None:
            raise ValueError("this report has no model to judge; probe the model")
        found = self._judge(self)
        self.result.attrs["verdict"] = json.dumps({**asdict(found), "words": str(found)})
        return found

    @property
    def _verdict(self) -> str:
        """The verdict's lines, once it was asked for."""
        told = self.result.attrs.get("verdict")
        return f"{json.loads(told)['words']}\n" if told else ""

    @property
    def cutoff(self) -> str | None:
        """The layer from which R² stays below 0.02; None where it never does before the head.

        A head that is narrower than the layer before it is meant to reduce, and so is a mean over
        positions or tokens before it.
        """
        number = self.cutoff_stage
        return None if number is None else str(self.result["layer"].values[number - 1])

    @property
    def cutoff_stage(self) -> int | None:
        """The number of that stage, from 1."""
        kept = self.result["r_squared"].values
        kept = kept[: body_end([str(shape) for shape in self.result["shape"].values])]
        readable = np.flatnonzero(np.nan_to_num(kept, nan=-np.inf) > WORTHLESS)
        if not len(readable):
            return None
        number = collapse_depth(kept[readable])
        return int(readable[number - 1]) + 1 if number <= len(readable) else None

    @property
    def overflow(self) -> str | None:
        """The first layer whose numbers are too large or NaN; None where there is none."""
        found = np.flatnonzero(self.result["read"].values == OVERFLOWS)
        return str(self.result["layer"].values[found[0]]) if len(found) else None

    @property
    def end(self) -> int:
        """The number of the last stage whose numbers are finite; where a narrower head ends the
        model, that before it."""
        finite = np.flatnonzero(np.isfinite(self.result["correlation"].values))
        last = int(finite[-1]) + 1 if len(finite) else 1
        return last - self.has_head if last == self.result.sizes["stage"] else last

    @property
    def has_head(self) -> bool:
        """Whether the model ends in a stage that has fewer numbers than the one before it."""
        return has_head(self.result["numbers"].values)

    @property
    def diagnoses(self) -> list[Diagnosis]:
        """What ails the model, worst first; that nothing does is a diagnosis, too."""
        found = json.loads(self.result.attrs.get("diagnoses", "[]"))
        return [Diagnosis(**diagnosis) for diagnosis in found]

    @property
    def _loss(self) -> str:
        """The loss before training beside that of guessing, where there were labels."""
        if "loss" not in self.result.attrs:
            return ""
        loss, chance = self.result.attrs["loss"], self.result.attrs["ln_classes"]
        return (
            f"the loss is {loss:.2f} as the model is; guessing gives ln(classes) = {chance:.2f}\n"
        )

    @property
    def phase(self) -> str:
        """ordered, chaotic, critical, undecided, or none, by the numbers at the `end`.

        Ordered: activations of different inputs have become parallel (mean cosine above 0.98, ten
        times nearer to 1 than before) and R² is 0.1 or less; chaotic: neighbours are more than 3
        times as far apart as at the input, relative to the spread of all; critical: neither, and R²
        is above 0.1; undecided: neither, and R² is 0.1 or less, so that the image is nearly lost
        without the activations saying why. None: mean field does not define these words for models
        with norms, skips, attention, recurrence or narrow layers, see `phases.phases_of`.
        """
        at, words = self.phase_numbers, json.loads(self.result.attrs.get("phases", json.dumps(ALL)))
        if not words:
            return "none"
        if self._is_parallel and not at["r_squared"] > ALIVE:
            return "ordered"
        if at["separation"] > APART and "chaotic" in words:
            return "chaotic"
        return "critical" if at["r_squared"] > ALIVE else "undecided"

    @property
    def _is_parallel(self) -> bool:
        """Whether activations at the end are parallel, and were not before: images with an offset
        are so from the start."""
        cosines = self.result["correlation"].values[: self.end]
        given = provenance(self.result)["config"].get("cosine_of_inputs")
        before = [*cosines[:-1], *([] if given is None else [given])]
        most = 1 - min((c for c in before if math.isfinite(c)), default=0.0)
        return bool(cosines[-1] > PARALLEL and 1 - cosines[-1] <= CLOSER * most)

    @property
    def phase_numbers(self) -> dict[str, float]:
        """What `phase` rests on: correlation, separation and R² at the `end`."""
        at = self.result.sel(stage=self.end)
        return {name: float(at[name]) for name in ("correlation", "separation", "r_squared")}

    def to_dataframe(self) -> "pd.DataFrame":
        """Return a table with a row for each stage, its vital signs and what ails it."""
        names = ["layer", "shape", "read", "r_squared", "correlation", "separation"]
        names += [name for name in (*STAGE_SIGNS, "diagnosis") if name in self.result]
        return self.result[names].to_dataframe()[names]

    def plot(self) -> "Figure":
        """Draw R², correlation and separation along the stages, and an image from each."""
        from paperlib.instruments.probe import plots_probe

        return plots_probe.report(self.result)

    def suggest(self, *, gains: Sequence[float] | None = None) -> "Suggestion":
        """Find an initialisation that is better than the model's own.

        With labels it is the one of four that learns most in 100 steps of Adam at 1e-3, fewer where
        these are dear: the model as it is; the gains that are known to fit its activations; every
        layer's outputs scaled to variance 1; and the same from orthonormal weights (LSUV). Only
        weights that look drawn at random are changed, and their biases.

        Without labels, with `gains`, where these trainings would take too long, or where none of
        them learns anything, it is the factor of all weights' variance that leaves most of the
        image at the end, or before a narrower head, where it is read directly: of a short grid,
        then of finer ones about the best. Of models that have no phase nothing else is tried where
        the least and the largest factor change nothing.

        Weights have two axes or more, embeddings aside. The model itself is not changed: see
        `Suggestion.apply`.

        Args:
            gains: factors of the variance, above 0; 1 is always among them. None is ¼, ½, … 8.

        Raises:
            ValueError: no weights, or factors out of range.
        """
        from paperlib.instruments.probe import suggestion

        found = None
        if gains is None and self._patient is not None:
            found = suggestion.suggestion_by_learning(self, self._model, self._again, self._patient)
        factors = suggestion.GAINS if gains is None else gains
        return found or suggestion.suggestion_by_factor(
            self, self._model, self._again, self._end_of or self._again, factors
        )

    def summary(self) -> str:
        """Say what ails the model, a line each; whether it will train, if `verdict` was asked for
        before; then, in three sentences, what was probed, where the input is lost, the phase."""
        about, at = provenance(self.result), self.phase_numbers
        config, data = about["config"], about["data"]
        stages = self.result.sizes["stage"]
        target = "×".join(map(str, config["target"]))
        averaged = "" if config["target_is_whole"] else f", kept as {target}"
        lost = (
            f"its input is lost from layer {self.cutoff!r} on (stage {self.cutoff_stage} of "
            f"{stages}): R² stays below {LOST:g}"
            if self.cutoff
            else f"its input is not lost within {stages} stages: R² stays above {LOST:g}"
        )
        where = repr(str(self.result["layer"].values[self.end - 1]))
        where += ", before the head" if self.has_head else ""
        if self.overflow:
            lost = f"it explodes at layer {self.overflow!r}: NaN or numbers too large; {lost}"
        said = "".join(
            f"\n{sentence}" for part in (config, data) for sentence in part.get("said", ())
        )
        first = "".join(f"{sentence}\n" for sentence in config.get("first", ()))
        phase = "" if self.phase == "none" else f"{self.phase}: "
        diagnosed = "".join(f"{diagnosis}\n" for diagnosis in self.diagnoses) + self._loss
        diagnosed += self._verdict
        return (
            f"{first}{diagnosed}{config['model']}, {config['parameters']:,} parameters; inputs of "
            f"{'×'.join(map(str, data['shape']))}{averaged}; {data['train_images']} fitted, "
            f"{data['test_images']} held out\n{lost}\n{phase}at layer {where}, the mean "
            f"cosine of different inputs is {at['correlation']:z.3f}, neighbours are "
            f"{at['separation']:.2g} times as far apart as at the input, R² is "
            f"{at['r_squared']:z.2f}{said}"
        )

    def to_html(self) -> str:
        """Return the report as a page's body, its figure inside."""
        import html

        import matplotlib.pyplot as plt

        figure = self.plot()
        picture = io.BytesIO()
        figure.savefig(picture, format="png")
        plt.close(figure)
        lines = "<br>".join(html.escape(self.summary()).splitlines())
        coded = base64.b64encode(picture.getvalue()).decode()
        table = self.to_dataframe().to_html(float_format=short, border=0)
        picture_of = f'<img alt="report" src="data:image/png;base64,{coded}">'
        return f"<p>{lines}</p>\n<p>{WORDS}</p>\n{picture_of}\n{table}\n"

    def _repr_html_(self) -> str:
        return self.to_html()

    def __str__(self) -> str:
        table = self.to_dataframe().to_string(float_format=short)
        return f"{self.summary()}\n{WORDS}\n\n{table}"

    def __repr__(self) -> str:
        return str(self)


def has_head(numbers: Sequence[int] | np.ndarray) -> bool:
    """Return whether the last stage has fewer numbers than the one before it."""
    return len(numbers) > 1 and bool(numbers[-1] < numbers[-2])


def report_of(
    table: Mapping[str, Any], pictures: Tensor | None, about: Mapping[str, Any]
) -> xr.Dataset:
    """Return the Dataset of a report.

    Args:
        table: columns with a value for each stage.
        pictures: one sample, then as it comes back from every stage, (1 + stages, channels, height,
            width); kept where it is grey or in colour.
        about: the provenance.
    """
    columns = {name: ("stage", np.asarray(values)) for name, values in table.items()}
    count = len(table["layer"])
    result = xr.Dataset(columns, {"stage": np.arange(1, count + 1)})
    if (
        pictures is not None
        and pictures.ndim == 4
        and pictures.shape[1] in (1, 3)
        and min(pictures.shape[2:]) > 1
    ):
        shown = sorted({round(x) for x in np.linspace(1, count, min(count, SHOWN))})
        values = pictures.detach().cpu().float().numpy()
        result = result.assign_coords(shown=shown)
        result["original"] = (PICTURE, values[0])
        result["example"] = (("shown", *PICTURE), values[shown])
    result.attrs["provenance"] = json.dumps(about, sort_keys=True)
    return result


def with_vital_signs(result: xr.Dataset, found: Examination, stages: Sequence[Stage]) -> xr.Dataset:
    """Return a report's Dataset with vital signs, and with what they are diagnosed as."""
    found.table = {name: result[name].values for name in TABLE}
    signs = dataset_of(found, stages).drop_vars("layer")
    diagnoses = diagnose(found)
    signs["diagnosis"] = ("stage", _by_stage(diagnoses, found))
    signs.attrs["phases"] = json.dumps(phases_of(found))
    signs.attrs["diagnoses"] = json.dumps([diagnosis.to_dict() for diagnosis in diagnoses])
    return result.assign(signs).assign_attrs(signs.attrs)


def _by_stage(diagnoses: Sequence[Diagnosis], found: Examination) -> list[str]:
    """The kinds of what ails each stage: the first that ends where the layer runs, or later."""
    kinds: list[list[str]] = [[] for _ in found.stages]
    for diagnosis in diagnoses:
        runs = [step.number for step in found.record.steps if step.layer == diagnosis.layer]
        after = [stage for stage, node in enumerate(found.stages) if node >= min(runs, default=0)]
        if diagnosis.ill and after:
            kinds[after[0]].append(diagnosis.kind)
    return ["; ".join(some) for some in kinds]


def short(value: float) -> str:
    return f"{value:.3g}" if abs(value) >= 1000 else f"{value:z.3f}"
