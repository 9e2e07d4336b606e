"""The figure notebooks: find, describe and run them, and say whether their figures are fresh."""

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
