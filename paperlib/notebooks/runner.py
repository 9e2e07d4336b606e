"""The figure notebooks: their parameters checked, run by papermill, their figures put in place.

A run's parameters alone decide where its figures go. Exactly those of the reference or the paper
profile draw the canonical figures in figures/. Exactly those of smoke or quick go to
figures/<profile>/, and any others to a folder of their own in figures/custom/. So a reader's
experiment never replaces a canonical figure, nor another experiment.
"""

import os
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from paperlib import instruments
from paperlib.core import paths
from paperlib.core.checks import path_of
from paperlib.core.settings import PROFILES, digest
from paperlib.notebooks import catalogue, freshness, inputs
from paperlib.notebooks.catalogue import (
    FIRST_INSTRUMENT,
    GROUPS,
    INJECTED,
    Notebook,
    Parameter,
    find,
    group,
    parameters,
    profile_parameters,
    resolve,
)
from paperlib.notebooks.freshness import State

__all__ = [
    "FIRST_INSTRUMENT",
    "GROUPS",
    "Notebook",
    "NotebookError",
    "Parameter",
    "execute",
    "figure_of_run",
    "figure_path",
    "find",
    "group",
    "parameters",
    "profile_parameters",
    "resolve",
    "state",
    "validated",
]

CANONICAL = ("reference", "paper")  # the profiles whose figures and notebooks are committed
CUSTOM = "custom"  # the folder of all runs that are no profile's
FOLDERS = (*PROFILES, CUSTOM)


class NotebookError(RuntimeError):
    """A notebook that stopped; the message says where and why, and where it was saved."""


def validated(name: str, profile: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Check a run's parameters: the notebook's defaults, the profile's values, then `overrides`.

    The notebook's metadata names its configuration (`"paperlib": {"config": "PhaseDiagram"}`), a
    class of paperlib.instruments that checks names, types and ranges here, before a kernel starts.
    Paths of files among the overrides become absolute, because the kernel runs in the project's
    folder. A profile among the overrides is the one that the other values come from.

    Raises:
        ValueError: an unknown name, a wrong type, or a value out of range.
        FileNotFoundError: no such notebook or profile.
    """
    values = {key: parameter.default for key, parameter in parameters(name).items()}
    values |= profile_parameters(name, overrides.get("profile", profile))
    values |= {key: _absolute(key, value) for key, value in overrides.items()}
    return dict(_config_class(name).from_dict(values).as_dict())


def figure_path(name: str) -> Path:
    """Return where a running notebook saves its figure, the path without its ending: as the runner
    says, else in figures/custom/."""
    told = os.environ.get(paths.FIGURE_VARIABLE)
    return Path(told) if told else paths.figures_folder(CUSTOM) / name


def figure_of_run(name: str, parameters: Mapping[str, Any]) -> Path:
    """Return where `execute` has a run with these parameters save its figure, as `figure_path`."""
    return _stem(name, _folder_of_run(name, parameters))


def execute(
    name: str,
    *,
    profile: str = "quick",
    parameters: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    force: bool = False,
    save: bool = False,
    output: str | os.PathLike[str] | None = None,
) -> Path:
    """Run a notebook into figures/<folder of the run>/, and return the path of the executed one.

    Args:
        name: the notebook.
        profile: where the values come from that `parameters` does not name.
        parameters: values by name.
        jobs: points at a time, in a notebook that sweeps; None leaves it to the profile.
        force: run even if nothing has changed since the last run.
        save: replace the notebook in notebooks/ by the executed one; for canonical runs only.
        output: another folder for the executed notebook and its figures; not one of figures/.

    Raises:
        ValueError, FileNotFoundError: as `validated`, or a data set or a file that is not there,
            before anything runs; or outputs that cannot be committed, after.
        OSError: nothing can be written to the folder; says so before anything runs.
        NotebookError: the notebook stopped; what it did until then is saved.
    """
    overrides = dict(parameters or {})
    if jobs is not None and "jobs" in _config_class(name).names():
        overrides["jobs"] = jobs
    values = validated(name, profile, overrides)
    # what a profile names may be missing here: where its result ships, nothing else is read
    if overrides.keys() - {"profile", "jobs"}:
        inputs.check({key: values[key] for key in catalogue.parameters(name)})
    folder = _folder_of_run(name, values)
    if save and (folder not in CANONICAL or output is not None):
        raise ValueError(
            f"only runs with exactly the values of the profiles {' and '.join(CANONICAL)} can be "
            f"saved as the committed notebook; this one goes to "
            f"{paths.figures_folder(folder) if output is None else output}"
        )
    if save and paths.source() != paths.home():
        raise ValueError(f"only a checkout's notebooks can be saved, not those of {paths.source()}")
    target, stem = paths.figures_folder(folder) / f"{name}.ipynb", _stem(name, folder)
    if output is not None:
        stem = _folder_of_output(output) / name
        target = stem.with_name(f"{name}.ipynb")
    made_from = _made_from(name, values)
    if not force and freshness.state(target, stem, made_from).word == "fresh":
        print(f"{name}: fresh, not run again ({_shown(target)})", flush=True)
    else:
        _run(name, values, target, stem, made_from)
    if save:
        _commit(name, target)
    return target


def state(name: str, profile: str) -> State:
    """Return whether a notebook's figure in a profile is fresh, stale or missing, or shipped with
    the project and not drawn here, and why.

    Raises:
        ValueError, FileNotFoundError: no such notebook or profile.
    """
    given = {key: parameter.default for key, parameter in parameters(name).items()}
    given |= profile_parameters(name, profile)
    target = paths.figures_folder(profile) / f"{name}.ipynb"
    stem = _stem(name, profile)
    if not target.with_suffix(".json").exists():
        return _shipped(name, given, stem) or State("missing", "not run here yet")
    # as a run would note them: what neither cell nor profile says is the package's own
    values = freshness.noted_parameters(target) | given
    return freshness.state(target, stem, _made_from(name, values))


def _shipped(name: str, given: Mapping[str, Any], stem: Path) -> State | None:
    """The state of a committed figure that was not drawn here: whether the committed notebook was
    run with these values."""
    ran = catalogue.given_by(name)
    if ran.get("profile") != given["profile"] or not stem.with_name(f"{name}.png").is_file():
        return None
    if ran != given:
        return State("stale", "its parameters changed since it was committed")
    return State("shipped", "committed with the project; not drawn here yet")


def _config_class(name: str) -> Any:
    """The class of paperlib.instruments that the notebook says checks its parameters."""
    called = catalogue.about(name).get("config", "")
    found = instruments.settings_called(called)
    if not hasattr(found, "from_notebook"):
        raise ValueError(
            f"{name}.ipynb: its metadata must name its configuration, a class of "
            f'paperlib.instruments, as {{"paperlib": {{"config": …}}}}; got {called!r}'
        )
    return found


def _absolute(key: str, value: Any) -> Any:
    """The value of a parameter, absolute where it is a path of the caller's."""
    if isinstance(value, list | tuple):
        return [_absolute(key, each) for each in value]
    own = isinstance(value, str) and inputs.is_own_path(key, value)
    return str(Path(value).expanduser().resolve()) if own else value


def _without_jobs(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that the figure depends on: the number of processes changes nothing in it."""
    return {key: value for key, value in values.items() if key != "jobs"}


def _folder_of_run(name: str, values: Mapping[str, Any]) -> str:
    """The folder in figures/ of a run: its profile, else one of its own in custom/."""
    depends = _without_jobs(values)
    for profile in PROFILES:
        own = paths.profile_file(profile, name).is_file() or profile in catalogue.noted_profiles(
            name
        )
        if own and _without_jobs(validated(name, profile, {})) == depends:
            return profile
    return f"{CUSTOM}/{digest(depends)[:10]}"


def _stem(name: str, folder: str) -> Path:
    """Where the figure of a run in this folder of figures/ goes, without its ending."""
    return paths.figures_folder(None if folder in CANONICAL else folder) / name


def _folder_of_output(output: str | os.PathLike[str]) -> Path:
    """A folder of the user's, where no canonical figure and no profile's lies."""
    folder = path_of("output", output).resolve()
    if folder in {paths.figures_folder(profile) for profile in (None, *PROFILES)}:
        raise ValueError(f"output must be another folder than those of the profiles, got {folder}")
    return folder


def _shown(path: Path) -> str:
    """A path as it is printed: short in a checkout, whole where it leads to another folder."""
    inside = path.is_relative_to(paths.home()) and paths.source() == paths.home()
    return os.path.relpath(path, paths.home()) if inside else os.fspath(path)


def _made_from(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    notebook = catalogue.raw(catalogue.existing(name))
    return freshness.identity(notebook, _without_jobs(values))


def _check_writable(folder: Path) -> None:
    try:
        paths.check_writable(folder)
    except OSError as error:
        raise OSError(
            error.errno,
            f"{error.strerror}. Or name another folder with --output",
            error.filename,
        ) from error


def _run(
    name: str, values: Mapping[str, Any], target: Path, stem: Path, made_from: dict[str, Any]
) -> None:
    """Run a notebook into `target`, and note beside it what it was made from."""
    begin = time.monotonic()
    for folder in {target.parent, stem.parent}:
        _check_writable(folder)
    paths.home().mkdir(parents=True, exist_ok=True)  # where the kernel runs
    print(f"{name}: running", flush=True)
    _papermill(name, values, target, stem)
    if not stem.with_name(f"{name}.png").exists():
        raise NotebookError(
            f"{name} ran to its end but saved no figure: expected {_shown(stem)}.png; "
            f"the executed notebook: {_shown(target)}"
        )
    # the data anew: the run itself may have downloaded it
    made_from["data"] = _made_from(name, values)["data"]
    freshness.note(target, stem, made_from)
    print(f"{name}: {_shown(stem)}.png, {time.monotonic() - begin:.0f} s", flush=True)


def _papermill(name: str, values: Mapping[str, Any], target: Path, stem: Path) -> None:
    """Run every cell into `target`; write `<name>.failed.ipynb` beside it if one fails."""
    import papermill
    from nbclient.exceptions import DeadKernelError

    failed = target.with_name(f"{name}.failed.ipynb")
    # what is half done lies elsewhere, so that even kill -9 leaves nothing beside the figures
    staging = tempfile.TemporaryDirectory(prefix="paperlib-", ignore_cleanup_errors=True)
    part, place = Path(staging.name, target.name), failed
    try:
        papermill.execute_notebook(
            catalogue.existing(name),
            part,
            _injected(name, values),
            kernel_name="python3",
            language="python",
            kernel_manager_class=_this_interpreter({paths.FIGURE_VARIABLE: str(stem)}),
            extra_arguments=["--log-level=ERROR"],  # else each kernel warns of its loopback ports
            progress_bar=False,
            stdout_file=sys.stdout,  # the sweep's plain lines, as they come
            stderr_file=sys.stderr,
            cwd=paths.home(),
        )
        failed.unlink(missing_ok=True)
        place = target
    except papermill.PapermillExecutionError as error:
        message = f"cell In [{error.exec_count}] stopped with {error.ename}: {error.evalue}"
        raise NotebookError(f"{name}: {message}\n  saved as {_shown(failed)}") from error
    except DeadKernelError as error:
        message = "its kernel was killed, perhaps for want of memory (try fewer jobs)"
        raise NotebookError(f"{name}: {message}\n  saved as {_shown(failed)}") from error
    finally:
        if part.exists():
            paths.write_whole(place, part.read_bytes())
        staging.cleanup()


def _injected(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that the notebook's own parameters cell does not already have.

    With `profile` always among them, so that papermill replaces the cell of an earlier run.
    """
    cell = {key: parameter.default for key, parameter in parameters(name).items()}
    defaults = _config_class(name).from_dict(cell).as_dict()
    changed = {k: v for k, v in values.items() if k == "profile" or v != defaults[k]}
    return {k: list(v) if isinstance(v, tuple) else v for k, v in changed.items()}


def _this_interpreter(told: Mapping[str, str]) -> Any:
    """A kernel manager that starts the running Python, whatever kernel "python3" is elsewhere, with
    these environment variables added."""
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    class ThisInterpreter(AsyncKernelManager):
        def __init__(self, **options: Any) -> None:
            # without folders to look in, Jupyter takes ipykernel's own, for sys.executable
            super().__init__(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]), **options)
            spec: Any = self.kernel_spec
            spec.env |= told

    return ThisInterpreter


def _commit(name: str, executed: Path) -> None:
    """Replace the notebook in notebooks/ by the executed one, without papermill's notes.

    Raises:
        ValueError: an output names a folder of this machine.
    """
    import nbformat

    notebook = nbformat.read(executed, as_version=4)
    notebook.metadata.pop("papermill", None)
    for cell in notebook.cells:
        for noted in ("papermill", "execution"):
            cell.metadata.pop(noted, None)
        if not cell.metadata.get("tags", True):
            del cell.metadata["tags"]  # papermill gives every cell an empty list
        if INJECTED in cell.metadata.get("tags", []):
            cell.id = INJECTED  # papermill's is random
            cell.source = cell.source.strip()
        for private in (paths.home(), Path.home()):
            if private != Path("/") and _names(cell.get("outputs", []), str(private)):
                raise ValueError(
                    f"{name} was not saved: an output of cell In [{cell.execution_count}] names "
                    f"the folder {private} of this machine; see {_shown(executed)}"
                )
    paths.write_whole(paths.notebook_file(name), f"{nbformat.writes(notebook)}\n".encode())
    print(f"{name}: saved as {_shown(paths.notebook_file(name))}", flush=True)


def _names(outputs: Any, folder: str) -> bool:
    """Whether an output other than a picture's base64 holds the text `folder`."""
    if isinstance(outputs, Mapping):
        return any(
            _names(value, folder) for key, value in outputs.items() if not key.startswith("image/")
        )
    if isinstance(outputs, list):
        return any(_names(value, folder) for value in outputs)
    return isinstance(outputs, str) and folder in outputs
