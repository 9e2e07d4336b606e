"""`probe(model, images)`: at which layer of any PyTorch model the input is lost.

    from paperlib import probe
    report = probe(model, images)  # any nn.Module, untrained or trained
    print(report)  # in Jupyter: report

The paper's method, with stages that are found by running the model. A stage ends where all paths
from the input to the output meet. An affine inverse leads from there to the end of the stage
before, and the inverses are chained. From a layer that some path bypasses, the input is predicted
directly, by one regression.
"""

from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from torch import Tensor, nn

from paperlib.activations.arguments import Output
from paperlib.activations.giving import given
from paperlib.activations.guard import plain_module, take_statistics, untouched
from paperlib.activations.inputs import Inputs
from paperlib.activations.looking import samples_that_fit
from paperlib.activations.tracing import Layers, ProbeError
from paperlib.core.checks import LARGEST_SEED, checked, quoted
from paperlib.core.provenance import stamp
from paperlib.core.threads import free_threads
from paperlib.instruments.probe.examination import examine
from paperlib.instruments.probe.reading import Work
from paperlib.instruments.probe.remedies import patient_of
from paperlib.instruments.probe.report import Report, report_of, with_vital_signs
from paperlib.instruments.probe.verdict import Verdict, fingerprint, judge
from paperlib.instruments.probe.vitals import checked_labels


def probe(
    model: nn.Module,
    images: Any,
    labels: Tensor | None = None,
    *,
    layers: Layers = "auto",
    seed: int = 0,
    resolution: float | None = None,
    batch_norm: str = "auto",
    memory: float = 2**30,
    output: Output = None,
    batch_axis: int | Mapping[Any, int] = 0,
) -> Report:
    """Report how much of its input a model still holds at each of its stages.

    R² of a stage is the fraction of held-out images that an affine cascade brings back from there:
    a lower bound on what the activation holds, and on large activations of less than all of it: see
    `activations.fields`. The model is run in evaluation mode, without gradients, and is left
    exactly as it was.

    Example:
        >>> import torch
        >>> from paperlib import initialise, probe
        >>> from torch import nn
        >>> layers = [layer for _ in range(4) for layer in (nn.Linear(16, 16), nn.Tanh())]
        >>> model = nn.Sequential(nn.Flatten(), *layers)
        >>> initialise(model, sigma_w2=0.01, sigma_b2=1.0, seed=0)  # hardly looks at its input
        >>> images = torch.rand(100, 1, 4, 4, generator=torch.Generator().manual_seed(0))
        >>> report = probe(model, images)
        >>> report.phase, report.cutoff
        ('ordered', '4')

    Args:
        model: any module; a compiled one is looked at as it was before.
        images: (n, *shape), n >= 10 (a few hundred are better), in floating point or as bytes,
            which are divided by 255; a tensor, an array or a list of them or of pictures; or a
            dict or tuple of the model's arguments, of which the first in floating point that is no
            mask is reconstructed, or of words the vectors in the model's own table; or a loader or
            data set, of which a few hundred samples are taken and labels left aside.
        labels: (n,) whole numbers, for which the model returns (n, classes): gradients are then
            those of the cross-entropy, the loss at the start is reported, and the report's
            `verdict` says more. None: of a random readout.
        layers: "auto", every place where all paths meet; or dotted names (`relu#2` is the second
            call of `relu`), or a function of name and module that picks layers.
        seed: of which images are held out, and of the model's random numbers while it is probed.
        resolution: λ, what lies below its square root is lost: in squared units of bounded
            activations, in units of the mean square of others. None is 1e-3, and 3e-6 for
            convolutional models with a layer tanh or erf.
        batch_norm: statistics of batch norms: "running" as they are, "batch" of these images, or
            "auto", of these images where none were ever taken.
        memory: bytes that activations may take, about; less makes them coarser.
        output: which part of the model's output counts: a key, a place, a path of them such as
            "hidden_states.2", or a function of the output. None is the first that most weights
            lead to, and no loss.
        batch_axis: of the samples in images, where it is not the first; of several arguments a
            dict of them.

    Raises:
        ValueError: no such layer, images that the model does not take, a layer that returns NaN;
            names the layer and the shape.

    Source: arXiv:2406.12916; cuts, tokens and sequences are this package's.
    """
    options: dict[str, Any] = {"layers": layers, "seed": seed, "resolution": resolution}
    options |= {"batch_norm": batch_norm, "memory": memory}
    options |= {"output": output, "batch_axis": batch_axis}
    model = plain_module(model)
    check_options(layers, seed, resolution, memory)
    now, images = fingerprint(model), given(images, model)
    with free_threads(), untouched(model, seed):
        inputs = Inputs.of(images, model, seed, batch_axis, output)
        in_order = Inputs.for_looking(images, model, batch_axis, output)
        labels = checked_labels(labels, in_order)
        work, size, statistics = _begun(model, inputs, layers, resolution, batch_norm, memory)
        if work.has_cascade:
            kept, pictures = work.by_its_cascade(size)
        else:
            kept, pictures = work.by_chained_inverses(size)
        near = work.neighbours(size)
        examined = examine(
            model, in_order, labels, work.stages, seed=seed, mixed=work.mixed, own=statistics
        )
    about = {
        "config": work.settings() | {"seed": seed, "batch_norms_of_these_images": len(statistics)},
        "data": inputs.about(),
        "computed": [{**stamp(), "device": str(inputs.device), "points": 1}],
        "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    table = work.table() | {"r_squared": kept} | near
    found = with_vital_signs(report_of(table, pictures, about), examined, work.stages)
    judged = _judge_later(model, now, in_order.values, labels, layers, seed, batch_norm, memory)
    patient = None
    if labels is not None:
        patient = patient_of(examined, in_order.values, labels, seed=seed)
    return Report(
        found,
        lambda other: probe(other, images, labels, **options),
        model,
        judged,
        patient,
        lambda other: _end_of(other, images, found.attrs["phases"], options),
    )


def _begun(
    model: nn.Module,
    inputs: Inputs,
    layers: Layers,
    resolution: float | None,
    batch_norm: str,
    memory: float,
) -> tuple[Work, int, list[str]]:
    """A probe whose stages are found, the samples of a batch, and the batch norms that have these
    images' statistics."""
    work = Work(model, inputs, layers, resolution, memory)
    size = samples_that_fit(model, inputs, memory)
    statistics = take_statistics(model, work.run, inputs.batches(size), batch_norm)
    work.look()
    return work, size, statistics


def _end_of(model: nn.Module, images: Any, phases: str, options: Mapping[str, Any]) -> Report:
    """A report of a changed copy that tells R² at the end only, and no vital signs: a tenth of the
    time of a probe, about."""
    given = dict(options)
    seed, output, axis = (given.pop(name) for name in ("seed", "output", "batch_axis"))
    with free_threads(), untouched(model, seed):
        inputs = Inputs.of(images, model, seed, axis, output)
        work, size, _ = _begun(model, inputs, **given)
        kept = work.at_the_end(size)
        near = work.neighbours(size)
    table = work.table() | {"r_squared": kept} | near
    found = report_of(table, None, {"config": work.settings()}).assign_attrs(phases=phases)
    return Report(found, lambda other: _end_of(other, images, phases, options), model)


def _judge_later(
    model: nn.Module, now: bytes, images: Any, labels: Tensor | None, *options: Any
) -> Callable[[Report], Verdict]:
    """What judges the model as long as it is what it is now."""
    names = ("layers", "seed", "batch_norm", "memory")

    def judged(report: Report) -> Verdict:
        if fingerprint(model) != now:
            raise ProbeError(
                f"{type(model).__name__} has changed since it was probed; probe it again, and ask "
                "for the verdict before it is trained"
            )
        with free_threads():
            return judge(report, model, images, labels, **dict(zip(names, options, strict=True)))

    return judged


def check_options(layers: Any, seed: Any, resolution: Any = None, memory: Any = 2**30) -> None:
    """Raise a ProbeError where an option is none that a probe takes."""
    names = [layers] if isinstance(layers, str) else layers
    if not callable(layers) and not (
        isinstance(names, Sequence) and all(isinstance(name, str) for name in names)
    ):
        raise ProbeError(
            f"layers must be 'auto', dotted names, or a function of name and module; got "
            f"{quoted(layers)}"
        )
    if isinstance(seed, bool) or not isinstance(seed, int) or not 0 <= seed <= LARGEST_SEED:
        raise ProbeError(f"seed must be a whole number >= 0, got {quoted(seed)}")
    if resolution is not None:
        checked("resolution", resolution, float, above=0)
    if not isinstance(memory, int | float) or not 2**20 <= memory <= 2**60:
        raise ProbeError(f"memory must be at least 2**20 bytes, got {quoted(memory)}")
