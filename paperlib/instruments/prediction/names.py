"""The names of all predictors."""

from paperlib.networks.kinds import SOLVERS

RECONSTRUCTED = ("r_squared", "gram_entropy", "differential_entropy", "relative_entropy")
DEPTHS_REACHED = ("collapse_depth", "cutoff")
BASELINES = (
    "correlation_depth",
    "gradient_ratio",
    "naswot",
    "snip",
    "synflow",
    "ntk_condition",
    "random",
)
PREDICTORS = (
    *(f"{name}_{solver}" for solver in SOLVERS for name in (*RECONSTRUCTED, *DEPTHS_REACHED)),
    *BASELINES,
)
