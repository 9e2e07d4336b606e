"""Classifiers that are really trained: what a prediction of trainability is measured against."""

from typing import TYPE_CHECKING

from paperlib.core.lazy import exports

if TYPE_CHECKING:
    from paperlib.networks.kinds import OPTIMISERS
    from paperlib.training.feedback import (
        alignment_angles,
        feedback_alignment,
        feedback_matrices,
        parts_of,
    )
    from paperlib.training.loop import (
        Observer,
        Rule,
        StopTraining,
        at,
        backpropagation,
        batches,
        every,
        squared_error,
        train,
    )
    from paperlib.training.training import (
        TrainingExperiment,
        TrainingPoint,
        learning_rate,
        train_network,
        train_point,
        train_points,
    )
else:
    __getattr__ = exports(__name__)
