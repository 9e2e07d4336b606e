"""Classifiers that are really trained: what a prediction of trainability is measured against."""

from paperlib.training.loop import (
    Observer,
    Rule,
    StopTraining,
    at,
    backpropagation,
    batches,
    every,
    train,
)
from paperlib.training.training import (
    OPTIMISERS,
    TrainingExperiment,
    TrainingPoint,
    learning_rate,
    train_network,
    train_point,
    train_points,
)
