"""The names of architectures, activations and shapes, and each architecture's defaults."""

ACTIVATIONS = ("tanh", "erf", "relu", "gelu", "linear")
SHAPES = ("wide", "shrinking")
ARCHITECTURES = ("mlp", "cnn", "resnet")
PADDINGS = ("circular", "published")  # of CNNs, see `networks.cnn`
BLOCKS = ("plain", "published")  # of ResNets, see `networks.resnet`
STEM = 3  # stages of convolutional networks before depth 1, as published
RESOLUTION = {"mlp": 1e-3, "cnn": 3e-6, "resnet": 3e-6}  # λ that puts the walls where published
VGG_LAYERS = (11, 13, 16, 19)  # with weights, as torchvision builds them


def stages_of(architecture: str, depth: int) -> int:
    """Return how many stages a network of this depth has: convolutional ones begin with a stem."""
    return depth if architecture == "mlp" else STEM + depth
