"""`Watch` as a callback of other people's trainers, which are imported only when asked for."""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from paperlib.instruments.probe.watching import Watch


def lightning_callback(watch: "Watch") -> Any:
    """Return a Lightning callback that looks before the first batch and after each one that is due.

    Raises:
        ImportError: Lightning is not installed.
    """
    base: Any = _first_of("lightning.pytorch", "pytorch_lightning").Callback

    class WatchCallback(base):  # type: ignore[misc]
        def on_train_start(self, trainer: Any, module: Any) -> None:
            self._look(trainer)

        def on_train_batch_end(self, trainer: Any, module: Any, *rest: Any, **named: Any) -> None:
            self._look(trainer)

        def _look(self, trainer: Any) -> None:
            if trainer.is_global_zero:  # the other processes hold the same weights
                watch(trainer.global_step)

    return WatchCallback()


def transformers_callback(watch: "Watch") -> Any:
    """Return a TrainerCallback of Hugging Face that looks before the first step and when it is due.

    Raises:
        ImportError: transformers is not installed.
    """
    base: Any = _first_of("transformers").TrainerCallback

    class WatchCallback(base):  # type: ignore[misc]
        def on_train_begin(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            self._look(state)

        def on_step_end(self, args: Any, state: Any, control: Any, **named: Any) -> None:
            self._look(state)

        def _look(self, state: Any) -> None:
            if state.is_world_process_zero:  # the other processes hold the same weights
                watch(state.global_step)

    return WatchCallback()


def _first_of(*names: str) -> Any:
    """The first of these modules that is installed."""
    for name in names:
        try:
            return importlib.import_module(name)
        except ImportError:
            continue
    package = names[0].partition(".")[0]
    raise ImportError(f"this callback needs {package}: pip install {package}")
