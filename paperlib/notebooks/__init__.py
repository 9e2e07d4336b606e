"""The figure notebooks: found, described, run by papermill, and told fresh from stale."""

from paperlib.notebooks.runner import (
    CANONICAL,
    CUSTOM,
    FOLDERS,
    Notebook,
    NotebookError,
    Parameter,
    execute,
    figure_of_run,
    figure_path,
    find,
    parameters,
    profile_parameters,
    resolve,
    state,
    validated,
)
