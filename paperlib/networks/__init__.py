"""The paper's networks, cut into the stages that a cascade inverts, and their initialisation."""

from typing import TYPE_CHECKING

from paperlib.core.lazy import exports

if TYPE_CHECKING:
    from paperlib.core.seeds import random_numbers
    from paperlib.networks.convolutional import cnn, resnet
    from paperlib.networks.fully_connected import HEAD_WIDTH, LOGIT_SCALE, mlp, residual_mlp
    from paperlib.networks.initialisation import LARGEST_VARIANCE, initialise, untrained
    from paperlib.networks.network import (
        DEEPEST,
        WIDEST,
        Erf,
        Network,
        Normalise,
        ResidualBlock,
        Scale,
        activation_module,
    )
    from paperlib.networks.vgg import (
        IMAGENET_DEVIATION,
        IMAGENET_MEAN,
        VGG_CHANNELS,
        VGG_POOLINGS,
        vgg16,
    )
else:
    __getattr__ = exports(__name__)
