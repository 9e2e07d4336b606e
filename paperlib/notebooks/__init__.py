"""The figure notebooks: found, described, run by papermill, and told fresh from stale."""

from paperlib.notebooks.runner import (
    CANONICAL,
    CUSTOM,
    FOLDERS,
    GROUPS,
    Notebook,
    NotebookError,
    Parameter,
    execute,
    figure_path,
    find,
    group,
    parameters,
    profile_parameters,
    resolve,
    state,
    validated,
)

__all__ = [
    "CANONICAL",
    "CUSTOM",
    "FOLDERS",
    "GROUPS",
    "Notebook",
    "NotebookError",
    "Parameter",
    "execute",
    "figure_path",
    "find",
    "group",
    "parameters",
    "profile_parameters",
    "resolve",
    "state",
    "validated",
]
