"""The names of architectures, activations, shapes and solvers, and each architecture's defaults."""

ACTIVATIONS = ("tanh", "erf", "relu", "gelu", "linear")
SHAPES = ("wide", "shrinking")
IN_WORDS = {"mlp": "MLP", "cnn": "CNN", "resnet": "ResNet"}
ARCHITECTURES = tuple(IN_WORDS)
PADDINGS = ("circular", "published")  # of CNNs, see `networks.cnn`
BLOCKS = ("plain", "published")  # of ResNets, see `networks.resnet`
STEM = 3  # stages of convolutional networks before depth 1, as published
RESOLUTION = {"mlp": 1e-3, "cnn": 3e-6, "resnet": 3e-6}  # λ that puts the walls where published
VGG_LAYERS = (11, 13, 16, 19)  # with weights, as torchvision builds them
SOLVERS = ("ridge", "adam")  # of a cascade's inverses
PRECISIONS = ("float32", "bfloat16")  # of the products of a training
OPTIMISERS = ("sgd", "adam")  # of a training
_CONVOLUTIONS = {11: (1, 1, 2, 2, 2), 13: (2,) * 5, 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
_CHANNELS = (64, 128, 256, 512, 512)  # of a VGG's convolutions, and of the pooling after them


def stages_of(architecture: str, depth: int) -> int:
    """Return how many stages a network of this depth has: convolutional ones begin with a stem."""
    return depth if architecture == "mlp" else STEM + depth


def vgg_channels(layers: int) -> tuple[int, ...]:
    """Return the channels of every level of a VGG, from level 1 to its last pooling."""
    blocks = zip(_CONVOLUTIONS[layers], _CHANNELS, strict=True)
    return tuple(channels for count, channels in blocks for _ in range(count + 1))
