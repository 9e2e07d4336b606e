"""`watch(model, images)`: R² and vital signs along a training, in anyone's own loop.

from paperlib import watch
seen = watch(model, images, labels, every=100)
for step, batch in enumerate(batches):
    seen(step, model)
    ...
seen.plot()
seen.result  # an xarray.Dataset over step × stage
"""

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor, nn

from paperlib import measures
from paperlib.activations.giving import given
from paperlib.activations.guard import plain_module, take_statistics, untouched
from paperlib.activations.inputs import Inputs, runner
from paperlib.activations.looking import stages_in, visit
from paperlib.activations.tracing import Layers, ProbeError
from paperlib.core import paths
from paperlib.core.checks import checked, quoted
from paperlib.core.provenance import stamp
from paperlib.instruments.probe.examination import stage_signs
from paperlib.instruments.probe.probe import check_options
from paperlib.instruments.probe.vitals import STAGE_SIGNS, checked_labels

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Instrument = Callable[[nn.Module, Any, Tensor | None], Mapping[str, Any]]

READ = 128  # samples that R² is read from, at most; a quarter of them held out
INSTRUMENTS = ("r_squared", "vital_signs")


class Watch:
    """An observer of a training: called as `watch(step, model)`, it looks every so many steps.

    It leaves the model and all random numbers as they are. One look costs about as much as three
    steps of 64 samples and a small linear system for each stage: see `seconds`.

    Attributes:
        model: that is watched.
        every: steps between two looks.
        seconds: spent looking so far.
    """

    def __init__(
        self,
        model: nn.Module,
        images: Any,
        labels: Tensor | None,
        instruments: Sequence[str | Instrument],
        every: int,
        layers: Layers,
        seed: int,
    ) -> None:
        self.model, self.every, self.seconds = model, every, 0.0
        self._images, self._seed = images, seed
        self._instruments = [_BUILT_IN.get(i, i) if isinstance(i, str) else i for i in instruments]
        self._names = [
            i if isinstance(i, str) else getattr(i, "__name__", "own") for i in instruments
        ]
        plain = plain_module(model)
        self._given = given(images, plain)
        with untouched(plain, seed):
            Inputs.of(self._given, plain, seed)  # which says what is wrong with them
            inputs = Inputs.for_looking(self._given, plain)
            self._labels = checked_labels(labels, inputs)
            self.stages = stages_in(plain, inputs, layers, operations=True)
        self._about = inputs.about()
        self._rows: dict[int, dict[str, Any]] = {}

    def __call__(self, step: int, model: nn.Module | None = None) -> None:
        """Look at the model, where this step is due; a step that was seen is not seen again.

        Args:
            step: of the training, from 0.
            model: as an observer is given it; None is the one that is watched.
        """
        step = checked("step", step, int, low=0)
        if step % self.every or step in self._rows:
            return
        began = time.perf_counter()
        plain = plain_module(self.model if model is None else model)
        row: dict[str, Any] = {}
        with untouched(plain, self._seed):
            inputs = Inputs.for_looking(self._given, plain)
            take_statistics(plain, runner(plain), inputs.batches(READ), "auto")
            for instrument in self._instruments:
                built_in = instrument in _BUILT_IN.values()
                given = (self, plain, inputs) if built_in else (plain, self._images, self._labels)
                row |= instrument(*given)
        self._rows[step] = row
        self.seconds += time.perf_counter() - began

    @property
    def result(self) -> xr.Dataset:
        """What was seen, along `step` and `stage`.

        Raises:
            ValueError: nothing was seen yet.
        """
        if not self._rows:
            raise ValueError("nothing was seen yet: call watch(step, model) in the training loop")
        steps = sorted(self._rows)
        names = dict.fromkeys(name for step in steps for name in self._rows[step])
        result = xr.Dataset(
            coords={
                "step": steps,
                "stage": np.arange(1, len(self.stages) + 1),
                "layer": ("stage", [stage.name for stage in self.stages]),
            }
        )
        for name in names:
            values = np.array([self._rows[step].get(name, math.nan) for step in steps], dtype=float)
            result[name] = (("step", "stage")[: values.ndim], values)
            if name in STAGE_SIGNS:
                meaning, units = STAGE_SIGNS[name]
                result[name].attrs.update(long_name=meaning, units=units)
        result.attrs["provenance"] = json.dumps(self._provenance(), sort_keys=True)
        return result

    def save(self, path: str | Path) -> Path:
        """Write the result as NetCDF, complete or not at all, and return where."""
        content = bytes(self.result.to_netcdf(None, engine="h5netcdf"))
        paths.write_whole(Path(path), content)
        return Path(path)

    def plot(self) -> "Figure":
        """Draw R² and vital signs over step × stage."""
        from paperlib.instruments.probe import plots_probe

        return plots_probe.watched(self.result)

    def lightning(self) -> Any:
        """Return a callback for Lightning's Trainer: `Trainer(callbacks=[seen.lightning()])`."""
        from paperlib.instruments.probe.callbacks import lightning_callback

        return lightning_callback(self)

    def transformers(self) -> Any:
        """Return a callback for Hugging Face's Trainer: `Trainer(…, callbacks=[…])`."""
        from paperlib.instruments.probe.callbacks import transformers_callback

        return transformers_callback(self)

    def _provenance(self) -> dict[str, Any]:
        return {
            "config": {
                "model": type(self.model).__name__,
                "parameters": sum(p.numel() for p in self.model.parameters()),
                "instruments": self._names,
                "every": self.every,
                "seed": self._seed,
                "seconds": round(self.seconds, 3),
            },
            "data": self._about,
            "computed": [{**stamp(), "points": len(self._rows)}],
            "finished_at": datetime.now(UTC).isoformat(timespec="seconds"),
        }

    def _r_squared(self, model: nn.Module, inputs: Inputs) -> dict[str, Any]:
        """R² of images that are read from each stage by one regression."""
        count = min(READ, inputs.train)
        codes: dict[int, Tensor] = {}

        def take(number: int, value: Tensor) -> None:
            codes[number] = value.flatten(1).float().clone()

        values = inputs.part(0, count)
        images = inputs.source_of(values).flatten(1).float().clone()
        visit(model, values, dict(enumerate(self.stages)), take)
        return {"r_squared": [read_directly(codes[n], images) for n in range(len(self.stages))]}

    def _vital_signs(self, model: nn.Module, inputs: Inputs) -> dict[str, Any]:
        return stage_signs(model, inputs, self._labels, self.stages, seed=self._seed)


_BUILT_IN: dict[str, Any] = {
    "r_squared": Watch._r_squared,
    "vital_signs": Watch._vital_signs,
}


def read_directly(codes: Tensor, images: Tensor, resolution: float = 1e-3) -> float:
    """Return the fraction of held-out images that one affine regression reads from activations.

    A quarter is held out. The regression is solved by the samples' products, so that it costs the
    same for any width.

    Args:
        codes: (n, numbers).
        images: (n, pixels).
        resolution: λ, relative to the activations' variance.
    """
    fitted = len(codes) - len(codes) // 4
    codes = (codes - codes[:fitted].mean(0)).double()
    mean = images[:fitted].mean(0)
    products = codes @ codes[:fitted].T
    penalty = resolution * float(products[:fitted].trace())
    if not math.isfinite(penalty) or len(codes) == fitted:
        return math.nan
    system = products[:fitted] + max(penalty / codes.shape[1], 1e-30) * torch.eye(fitted).to(codes)
    shares = torch.linalg.solve(system, products[fitted:].T).T  # of every fitted image
    back = shares.to(images) @ (images[:fitted] - mean) + mean
    return float(measures.r_squared(images[fitted:], back, mean=mean))


def watch(
    model: nn.Module,
    images: Any,
    labels: Tensor | None = None,
    *,
    instruments: Sequence[str | Instrument] = INSTRUMENTS,
    every: int = 100,
    layers: Layers = "auto",
    seed: int = 0,
) -> Watch:
    """Return an observer of a training: R² and vital signs of every stage, every so many steps.

    Example:
        >>> import torch
        >>> from torch import nn
        >>> from paperlib import watch
        >>> model = nn.Sequential(nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 2))
        >>> seen = watch(model, torch.rand(200, 8), every=10)
        >>> for step in range(21):
        ...     seen(step, model)  # as any loop, or `paperlib.training.train`, calls it
        >>> dict(seen.result.sizes)
        {'step': 3, 'stage': 2}

    Args:
        model: that will be trained; it is left as it is.
        images: (n, *shape), or what the model takes, as for `probe`; 128 of them are enough.
        labels: (n,) whole numbers: gradients are then those of the cross-entropy, and `loss` is
            recorded. None: gradients of a random readout.
        instruments: of "r_squared", the fraction of images that one regression reads from a stage;
            "vital_signs", see `vital_signs`; and functions of (model, images, labels) that return a
            number, or one for each stage, by name.
        every: steps between two looks; fewer cost more.
        layers: as for `probe`.
        seed: of the readout, and of the model's random numbers meanwhile.

    Raises:
        ValueError: an unknown instrument, or images that the model does not take.
    """
    if isinstance(instruments, str) or not isinstance(instruments, Sequence) or not instruments:
        raise ProbeError(f"instruments must be a tuple of names, got {quoted(instruments)}")
    for instrument in instruments:
        if not callable(instrument) and instrument not in INSTRUMENTS:
            known = ", ".join(INSTRUMENTS)
            raise ProbeError(
                f"instruments must be of {known}, or functions; got {quoted(instrument)}"
            )
    every = checked("every", every, int, low=1)
    plain_module(model)
    check_options(layers, seed)
    return Watch(model, images, labels, instruments, every, layers, seed)
