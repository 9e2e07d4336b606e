"""The figure notebooks: found, described, their parameters checked, run by papermill.

A run's parameters alone decide where its figures go. Exactly those of the reference or the paper
profile draw the canonical figures in figures/. Exactly those of smoke or quick go to
figures/<profile>/, and any others to figures/custom/. So a reader's experiment never replaces a
canonical figure.
"""

import ast
import os
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from paperlib import instruments
from paperlib.core import paths
from paperlib.core.checks import did_you_mean
from paperlib.core.settings import PROFILES
from paperlib.notebooks import freshness
from paperlib.notebooks.freshness import INJECTED, State

CANONICAL = ("reference", "paper")  # the profiles whose figures and notebooks are committed
CUSTOM = "custom"  # the folder of all runs that are no profile's
FOLDERS = (*PROFILES, CUSTOM)
GROUPS = ("figures", "instruments")
FIRST_INSTRUMENT = 10  # the notebooks before are the paper's, and the prediction's


class NotebookError(RuntimeError):
    """A notebook that stopped; the message says where and why, and where it was saved."""


@dataclass(frozen=True)
class Notebook:
    """One notebook of the checkout, by what it says about itself."""

    name: str
    title: str  # its first heading
    claim: str  # the paragraph below, what its figure shows
    path: Path


@dataclass(frozen=True)
class Parameter:
    """One line of a notebook's parameters cell."""

    name: str
    default: Any
    type: type
    help: str  # the comment behind it


def find() -> list[Notebook]:
    """Return the checkout's notebooks, in order."""
    return [_described(path) for path in sorted(_folder().glob("[0-9][0-9]_*.ipynb"))]


def resolve(name: str) -> str:
    """Return the full name of a notebook: of `name`, or of the only one that begins so ("01", "1").

    Raises:
        ValueError: no notebook, or more than one.
    """
    begin = name.zfill(2) if name.isdecimal() else name
    known = [path.stem for path in sorted(_folder().glob("[0-9][0-9]_*.ipynb"))]
    found = [name] if name in known else [full for full in known if full.startswith(begin)]
    if len(found) == 1:
        return found[0]
    if found:
        raise ValueError(f"{name!r} begins more than one notebook: {', '.join(found)}")
    raise ValueError(
        f"no notebook {name!r}{did_you_mean(name, known)}; there are: {', '.join(known) or 'none'}"
    )


def parameters(name: str) -> dict[str, Parameter]:
    """Return a notebook's parameters by name, as `papermill --help-notebook` understands them.

    Raises:
        FileNotFoundError: no such notebook.
        ValueError: a default that is no literal.
    """
    from papermill import inspect_notebook

    path = _existing(name)
    return {p["name"]: _parameter(path, p) for p in inspect_notebook(str(path)).values()}


def group(name: str) -> list[str]:
    """Return the notebooks of a group: "figures" (the paper's and the prediction's, 00 to 09) or
    "instruments" (10 and on); of any other name, the one that it resolves to.

    Raises:
        ValueError: no notebook, or more than one.
    """
    if name not in GROUPS:
        return [resolve(name)]
    return [n.name for n in find() if (int(n.name[:2]) < FIRST_INSTRUMENT) == (name == "figures")]


def profile_parameters(name: str, profile: str) -> dict[str, Any]:
    """Return the values that a profile gives to a notebook's parameters, as written in its YAML.

    Notebooks of instruments have them in their metadata instead, as
    `"paperlib": {"profiles": {"smoke": {…}}}`; there the quick profile is the cell's own values,
    with an offline data set if need be.

    Raises:
        ValueError: an unknown profile, or a file that is no flat mapping.
        FileNotFoundError: the notebook has no such profile.
    """
    if profile not in PROFILES:
        raise ValueError(
            f"unknown profile {profile!r}{did_you_mean(profile, PROFILES)}; "
            f"expected one of {', '.join(PROFILES)}"
        )
    file = paths.profile_file(profile, name)
    if not file.is_file():
        noted = _noted_profiles(name)
        if profile not in noted:
            raise FileNotFoundError(f"{name} has no profile {profile}: expected {file}")
        return {"profile": profile, **noted[profile]}
    values = yaml.safe_load(file.read_text(encoding="utf-8"))
    if not isinstance(values, dict) or not all(isinstance(key, str) for key in values):
        raise ValueError(f"{file} must be a mapping of parameter names to values, got {values!r}")
    return values


def validated(name: str, profile: str, overrides: Mapping[str, Any]) -> dict[str, Any]:
    """Check a run's parameters: the notebook's defaults, the profile's values, then `overrides`.

    The notebook's metadata names its configuration (`"paperlib": {"config": "PhaseDiagram"}`), a
    class of paperlib.instruments that checks names, types and ranges here, before a kernel starts.
    Paths of files among the overrides become absolute, because the kernel runs in the project's
    folder.

    Raises:
        ValueError: an unknown name, a wrong type, or a value out of range.
        FileNotFoundError: no such notebook or profile.
    """
    values = {key: parameter.default for key, parameter in parameters(name).items()}
    values |= profile_parameters(name, profile)
    values |= {key: _absolute(value) for key, value in overrides.items()}
    return dict(_config_class(name).from_dict(values).as_dict())


def figure_path(name: str) -> Path:
    """Return where a running notebook saves its figure, the path without its ending: as the runner
    says, else in figures/custom/."""
    told = os.environ.get(paths.FIGURE_VARIABLE)
    return Path(told) if told else paths.figures_folder(CUSTOM) / name


def figure_of_run(name: str, parameters: Mapping[str, Any]) -> Path:
    """Return where `execute` has a run with these parameters save its figure, as `figure_path`."""
    folder = _folder_of_run(name, parameters)
    return paths.figures_folder(None if folder in CANONICAL else folder) / name


def execute(
    name: str,
    *,
    profile: str = "quick",
    parameters: Mapping[str, Any] | None = None,
    jobs: int | None = None,
    force: bool = False,
    save: bool = False,
) -> Path:
    """Run a notebook into figures/<folder of the run>/, and return the path of the executed one.

    Args:
        name: the notebook.
        profile: where the values come from that `parameters` does not name.
        parameters: values by name.
        jobs: points at a time, in a notebook that sweeps; None leaves it to the profile.
        force: run even if nothing has changed since the last run.
        save: replace the notebook in notebooks/ by the executed one; for canonical runs only.

    Raises:
        ValueError, FileNotFoundError: as `validated`, before anything runs; or outputs that cannot
            be committed, after.
        NotebookError: the notebook stopped; what it did until then is saved.
    """
    overrides = dict(parameters or {})
    if jobs is not None and "jobs" in _config_class(name).names():
        overrides["jobs"] = jobs
    values = validated(name, profile, overrides)
    folder = _folder_of_run(name, values)
    if save and folder not in CANONICAL:
        raise ValueError(
            f"only runs with exactly the values of the profiles {' and '.join(CANONICAL)} can be "
            f"saved as the committed notebook; this one goes to {paths.figures_folder(folder)}"
        )
    target = paths.figures_folder(folder) / f"{name}.ipynb"
    if not force and _state(name, values).word == "fresh":
        print(f"{name}: fresh, not run again ({_shown(target)})", flush=True)
    else:
        _run(name, values, target)
    if save:
        _commit(name, target)
    return target


def state(name: str, profile: str) -> State:
    """Return whether a notebook's figure in a profile is fresh, stale or missing, and why.

    Raises:
        ValueError, FileNotFoundError: as `validated`.
    """
    return _state(name, validated(name, profile, {}))


def _folder() -> Path:
    return paths.home() / paths.NOTEBOOKS


def _existing(name: str) -> Path:
    path = paths.notebook_file(name)
    if not path.is_file():
        raise FileNotFoundError(f"no notebook {name!r} in {path.parent}; see `paperlib list`")
    return path


def _read(path: Path) -> Any:
    import nbformat

    return nbformat.read(path, as_version=4)


def _described(path: Path) -> Notebook:
    texts = [cell.source for cell in _read(path).cells if cell.cell_type == "markdown"]
    paragraphs = [part.strip() for text in texts for part in text.split("\n\n") if part.strip()]
    headings = [place for place, part in enumerate(paragraphs) if part.startswith("#")]
    if not headings:
        return Notebook(path.stem, path.stem, "", path)
    heading, *rest = paragraphs[headings[0]].split("\n", 1)
    following = rest + paragraphs[headings[0] + 1 :]
    claim = " ".join(following[0].split()) if following else ""
    return Notebook(path.stem, heading.lstrip("#").strip(), claim, path)


def _parameter(path: Path, inferred: Mapping[str, str]) -> Parameter:
    try:
        default = ast.literal_eval(inferred["default"])
    except (ValueError, SyntaxError):
        raise ValueError(
            f"{path.name}: the default of {inferred['name']} must be a literal on one line, "
            f"got {inferred['default']!r}"
        ) from None
    kinds = {kind.__name__: kind for kind in (bool, int, float, str, list, dict)}
    kind = kinds.get(inferred["inferred_type_name"], type(default))
    return Parameter(inferred["name"], default, kind, inferred["help"])


def _config_class(name: str) -> Any:
    """The class of paperlib.instruments that the notebook says checks its parameters."""
    path = _existing(name)
    named = _read(path).metadata.get("paperlib", {}).get("config", "")
    found = instruments.settings().get(named)
    if not hasattr(found, "from_notebook"):
        raise ValueError(
            f"{path.name}: its metadata must name its configuration, a class of "
            f'paperlib.instruments, as {{"paperlib": {{"config": …}}}}; got {named!r}'
        )
    return found


def _noted_profiles(name: str) -> dict[str, dict[str, Any]]:
    """The profiles in a notebook's own metadata."""
    noted = _read(_existing(name)).metadata.get("paperlib", {}).get("profiles")
    return {"quick": {"fallback": True}, **noted} if noted is not None else {}


def _absolute(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_absolute(each) for each in value]
    is_path = isinstance(value, str) and ("/" in value or os.sep in value or Path(value).is_file())
    return str(Path(value).expanduser().resolve()) if is_path else value


def _without_jobs(values: Mapping[str, Any]) -> dict[str, Any]:
    """The values that the figure depends on: the number of processes changes nothing in it."""
    return {key: value for key, value in values.items() if key != "jobs"}


def _folder_of_run(name: str, values: Mapping[str, Any]) -> str:
    for profile in PROFILES:
        if not (paths.profile_file(profile, name).is_file() or profile in _noted_profiles(name)):
            continue
        if _without_jobs(validated(name, profile, {})) == _without_jobs(values):
            return profile
    return CUSTOM


def _shown(path: Path) -> str:
    return os.path.relpath(path, paths.home())


def _state(name: str, values: Mapping[str, Any]) -> State:
    target = paths.figures_folder(_folder_of_run(name, values)) / f"{name}.ipynb"
    return freshness.state(target, figure_of_run(name, values), _made_from(name, values))


def _made_from(name: str, values: Mapping[str, Any]) -> dict[str, Any]:
    return freshness.identity(_read(_existing(name)), _without_jobs(values))


def _run(name: str, values: Mapping[str, Any], target: Path) -> None:
    """Run a notebook into `target`, and note beside it what it was made from."""
    made_from = _made_from(name, values)
    begin = time.monotonic()
    print(f"{name}: running", flush=True)
    target.parent.mkdir(parents=True, exist_ok=True)
    stem = figure_of_run(name, values)
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

    part = target.with_name(f"{name}.{os.getpid()}.part.ipynb")
    failed = target.with_name(f"{name}.failed.ipynb")
    try:
        papermill.execute_notebook(
            _existing(name),
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
        os.replace(part, target)
    except papermill.PapermillExecutionError as error:
        message = f"cell In [{error.exec_count}] stopped with {error.ename}: {error.evalue}"
        raise NotebookError(f"{name}: {message}\n  saved as {_shown(failed)}") from error
    except DeadKernelError as error:
        message = "its kernel was killed, perhaps for want of memory (try fewer jobs)"
        raise NotebookError(f"{name}: {message}\n  saved as {_shown(failed)}") from error
    finally:
        if part.exists():
            os.replace(part, failed)


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

    notebook = _read(executed)
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
