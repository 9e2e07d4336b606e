"""Direct feedback alignment: the error goes to every layer straight, not back through the next one.

A network is cut before each of its Linear layers, and no gradient passes a cut. What a part returns
learns from the error of the logits, through a fixed matrix of its own; the last part learns from
the loss itself. What lies before the first Linear layer, such as convolutions, is one part, within
which backpropagation does the rest.

Source: Nøkland, arXiv:1609.01596; binary, and with convolutions before: Han & Yoo,
arXiv:1901.01986.
"""

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from paperlib.activations.factors import FACTORED, recorded_calls, slopes_of
from paperlib.core.checks import LARGEST_SEED, checked
from paperlib.core.seeds import random_numbers
from paperlib.networks.network import Network
from paperlib.training.loop import Rule

FEEDBACKS = ("random", "binary", "product", "product_sign")


def feedback_alignment(network: nn.Module, matrices: Sequence[Tensor]) -> Rule:
    """Return the rule by which a network learns from its error through fixed matrices.

    Example:
        >>> import torch
        >>> from paperlib import initialise, load_dataset, mlp
        >>> from paperlib.training import feedback_alignment, feedback_matrices, train
        >>> data = load_dataset("digits", limit=200)
        >>> images, labels = data.floats("train"), data.labels("train")
        >>> network = mlp(data.image_shape, depth=3, width=50)
        >>> initialise(network, sigma_w2=1.7, sigma_b2=0.05, seed=0)
        >>> matrices = feedback_matrices(network, images[:1], seed=0)
        >>> rule = feedback_alignment(network, matrices)
        >>> optimiser = torch.optim.SGD(network.parameters(), lr=0.1)
        >>> losses = train(network, (images, labels), optimiser=optimiser, steps=30, rule=rule)
        >>> losses[-1] < losses[0]
        True

    Args:
        network: of which every part but the last has a matrix; see `parts_of`.
        matrices: (classes, features) of each part but the last, as `feedback_matrices` returns.

    Raises:
        ValueError: a network that cannot be cut, or matrices of another one; and, of the rule,
            another network than this one.
    """
    parts = _parts(network)
    if len(matrices) != len(parts) - 1:
        raise ValueError(
            f"matrices must be one for each of the {len(parts) - 1} hidden parts of the network, "
            f"got {len(matrices)}; make them with feedback_matrices(network, …)"
        )

    def rule(given: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
        if given is not network:
            raise ValueError("the rule belongs to another network; make one for each network")
        loss, total = feedback_lesson(outputs_apart(parts, images), labels, matrices)
        total.backward()
        return loss.detach()

    return rule


def feedback_matrices(
    network: nn.Module, images: Tensor, *, feedback: str = "random", seed: int = 0
) -> list[Tensor]:
    """Return a matrix (classes, features) for every part of a network but the last.

    Example:
        >>> import torch
        >>> from paperlib import mlp
        >>> from paperlib.training import feedback_matrices
        >>> network = mlp((1, 4, 4), depth=2, width=30)
        >>> [tuple(each.shape) for each in feedback_matrices(network, torch.rand(1, 1, 4, 4))]
        [(10, 30), (10, 30), (10, 400)]

    Args:
        network: see `parts_of`.
        images: (n, *image_shape), from which the sizes are seen; one is enough.
        feedback: "random" is uniform between ±1/√features; "binary" has the signs of the same draw
            and their mean square, ±1/√(3 features); "product" is the product of the weights, as
            they are now, between the part and the logits, by which backpropagation would send the
            error but for the slopes of activations; "product_sign" has the signs of that and the
            size of "binary".
        seed: of the draw.

    Raises:
        ValueError: a network that cannot be cut, or a product through more than Linear layers.

    Source: arXiv:1609.01596 for "random"; the others are named by us, after arXiv:1901.01986.
    """
    feedback = checked("feedback", feedback, str, choices=FEEDBACKS)
    seed = checked("seed", seed, int, low=0, high=LARGEST_SEED)
    parts = _parts(network)
    with torch.no_grad():
        *hidden, logits = outputs_apart(parts, images)
    if feedback.startswith("product"):
        found = _products(parts)
    else:
        numbers = random_numbers("feedback", seed)
        sizes = [(logits.shape[1], each.shape[1]) for each in hidden]
        drawn = (2 * torch.rand(size, generator=numbers) - 1 for size in sizes)
        found = [each.to(logits) / math.sqrt(each.shape[1]) for each in drawn]
    if feedback in ("binary", "product_sign"):
        found = [_signs(each) for each in found]
    return found


def parts_of(network: nn.Module) -> list[nn.Sequential]:
    """Return the parts between which feedback alignment passes no gradient.

    A part ends before each Linear layer that follows anything that learns; so activations, and
    what only arranges, end the part of the layer before them.

    Example:
        >>> from paperlib import cnn, mlp
        >>> from paperlib.training import parts_of
        >>> len(parts_of(mlp((1, 8, 8), depth=3)))  # three stages, and the head's two layers
        5
        >>> len(parts_of(cnn((1, 8, 8), depth=3, channels=4)))  # all convolutions, and the logits
        2

    Args:
        network: a Network or an nn.Sequential, whose Linear layers run one after the other; other
            modules inside, such as residual blocks, are not cut.
    """
    parts: list[list[nn.Module]] = [[]]
    for layer in _in_order(network):
        if isinstance(layer, nn.Linear) and any(map(_learns, parts[-1])):
            parts.append([])
        parts[-1].append(layer)
    return [nn.Sequential(*part) for part in parts]


def alignment_angles(
    network: nn.Module, matrices: Sequence[Tensor], images: Tensor, labels: Tensor
) -> list[float]:
    """Return, by part but the last, the angle between the errors of feedback and backpropagation.

    The errors are gradients with respect to what the last layer with weights of the part returns;
    angles are in degrees, means over images. 90 is that of random directions. NaN where no error
    arrives.

    Example:
        >>> import torch
        >>> from paperlib import initialise, mlp
        >>> from paperlib.training import alignment_angles, feedback_matrices
        >>> network = mlp((1, 4, 4), depth=1, width=300, activation="linear")
        >>> initialise(network, sigma_w2=1.0, sigma_b2=0.0, seed=0)
        >>> lessons = torch.rand(9, 1, 4, 4), torch.arange(9)
        >>> for feedback in ("random", "product"):
        ...     matrices = feedback_matrices(network, lessons[0], feedback=feedback)
        ...     print([round(angle, -1) for angle in alignment_angles(network, matrices, *lessons)])
        [90.0, 90.0]
        [0.0, 0.0]

    Args:
        network: as of `feedback_alignment`.
        matrices: as there.
        images: (n, *image_shape).
        labels: (n,).
    """
    parts = _parts(network)
    layers = [[each for each in part.modules() if isinstance(each, FACTORED)][-1]
              for part in parts[:-1]]  # fmt: skip
    with recorded_calls(layers) as calls:
        _, total = feedback_lesson(outputs_apart(parts, images), labels, matrices)
    direct = slopes_of(total, calls)
    with recorded_calls(layers) as calls:
        loss = nn.functional.cross_entropy(network(images), labels)
    return [_angle(*pair) for pair in zip(direct, slopes_of(loss, calls), strict=True)]


def outputs_apart(parts: Sequence[nn.Module], images: Tensor) -> list[Tensor]:
    """Return what every part makes of images, (n, features), each learning from its own only."""
    outputs, x = [], images
    for stage in parts:
        x = stage(x.detach())
        outputs.append(x.flatten(1))
    return outputs


def feedback_lesson(
    outputs: Sequence[Tensor], labels: Tensor, matrices: Sequence[Tensor]
) -> tuple[Tensor, Tensor]:
    """Return the mean cross-entropy, and the number whose gradients are those of the rule.

    Args:
        outputs: (…, n, features) of every part, apart from each other; the last are the logits.
            Networks may lie side by side in the first axes.
        labels: (…, n).
        matrices: (…, classes, features) of every part but the last.

    Returns:
        (…), a loss for each network; and one number.
    """
    *hidden, logits = outputs
    log = logits.log_softmax(-1)
    losses = -log.gather(-1, labels[..., None])[..., 0].mean(-1)
    truth = nn.functional.one_hot(labels, logits.shape[-1])
    error = (log.detach().exp() - truth) / labels.shape[-1]
    pairs = zip(hidden, matrices, strict=True)
    return losses, sum(((error @ matrix) * each).sum() for each, matrix in pairs) + losses.sum()


def _parts(network: nn.Module) -> list[nn.Sequential]:
    """The parts of a network that has more than one."""
    parts = parts_of(network)
    if len(parts) == 1:
        raise ValueError(
            "feedback alignment needs a Network or an nn.Sequential with a Linear layer after "
            f"others that learn, between which it can be cut; got {type(network).__name__}"
        )
    return parts


def _in_order(module: nn.Module) -> Iterator[nn.Module]:
    """The layers that run one after the other."""
    inside = [module]
    if isinstance(module, Network):
        inside = [*module.stages, module.head]
    elif isinstance(module, nn.Sequential):
        inside = list(module)
    for each in inside:
        if each is module or not isinstance(each, nn.Sequential):
            yield each
        else:
            yield from _in_order(each)


def _learns(layer: nn.Module) -> bool:
    return any(True for _ in layer.parameters())


def _products(parts: Sequence[nn.Sequential]) -> list[Tensor]:
    """The products of the weights between every part but the last and the logits."""
    found: list[Tensor] = []
    for part in reversed(parts[1:]):
        linear, *others = (layer for layer in part if _learns(layer))
        if others or not isinstance(linear, nn.Linear):
            names = ", ".join(type(each).__name__ for each in (linear, *others))
            raise ValueError(
                f"feedback by the product of weights needs parts with one Linear layer each; one "
                f"holds {names}: take feedback 'random' or 'binary'"
            )
        weight = linear.weight.detach()
        found.insert(0, found[0] @ weight if found else weight.clone())
    return found


def _signs(matrix: Tensor) -> Tensor:
    """±1/√(3 features) by sign; of 0 it is positive, so that every layer hears the error."""
    size = torch.full_like(matrix, 1 / math.sqrt(3 * matrix.shape[1]))
    return torch.where(matrix < 0, -size, size)


def _angle(one: Tensor, other: Tensor) -> float:
    """The mean angle over samples, in degrees, of those where neither is 0."""
    pairs = [each.flatten(1).double() for each in (one, other)]
    first, second = (nn.functional.normalize(each, dim=1, eps=1e-300) for each in pairs)
    known = (pairs[0] != 0).any(1) & (pairs[1] != 0).any(1)
    cosines = (first * second).sum(1)[known].clamp(-1, 1)
    return float(torch.rad2deg(cosines.arccos()).mean())
