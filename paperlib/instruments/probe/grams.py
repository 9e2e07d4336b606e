"""What the products of samples with each other say: likeness, spectrum, and what a ridge reads.

All take a matrix of products (n, n) in float64, of activations or of gradients, and leave it alone.
"""

import torch
from torch import Tensor


def cosines(gram: Tensor) -> Tensor:
    """Return the cosines (n, n); a sample without length counts as parallel to all."""
    lengths = gram.diagonal().clamp(min=0).sqrt()
    found = (gram / lengths[:, None] / lengths).clamp(-1, 1)
    return torch.where((lengths[:, None] > 0) & (lengths > 0), found, 1.0)


def mean_cosine(gram: Tensor, pairs: Tensor | None = None) -> float:
    """Return the mean cosine of two different samples; NaN without any pair.

    Args:
        gram: (n, n).
        pairs: (n, n), true for the pairs that count; the diagonal never does.
    """
    others = ~torch.eye(len(gram), dtype=torch.bool, device=gram.device)
    chosen = cosines(gram)[others if pairs is None else others & pairs]
    return float(chosen.mean())


def centred(gram: Tensor) -> Tensor:
    """Return the products (n, n) of the samples less their mean."""
    rows = gram - gram.mean(0)
    return rows - rows.mean(1, keepdim=True)


def log_condition(gram: Tensor, *, centre: bool = True) -> float:
    """Return ln of the largest over the smallest eigenvalue, which counts at least as rounding.

    Args:
        gram: (n, n).
        centre: of the samples less their mean, whose eigenvalue 0 is left out.
    """
    values = torch.linalg.eigvalsh(centred(gram) if centre else gram)[int(centre) :]
    return _log_ratio(values, len(gram))


def _log_ratio(values: Tensor, count: int) -> float:
    largest = values[-1]
    if not largest > 0:
        return 0.0  # nothing differs: no direction is slower than another
    rounding = count * torch.finfo(values.dtype).eps * largest
    return float((largest / values[0].clamp(min=rounding)).log())


def effective_rank(gram: Tensor) -> float:
    """Return (Σλ)²/Σλ² of the samples less their mean: along how many directions they differ.

    From 1, along one direction only, to n − 1; 0 where they do not differ.
    """
    values = centred(gram)
    square = values.square().sum()
    return float(values.trace() ** 2 / square) if square > 0 else 0.0


def alignment(gram: Tensor, labels: Tensor, *, floor: float) -> float:
    """Return how the kernel less its mean agrees with "of one class", from −1 to 1.

    ⟨K, L⟩ / (‖K + floor · d · H‖ ‖L‖) in Frobenius' sense: K the centred kernel, L the centred
    matrix of 1 where two labels are equal, H what centres, d the mean of the kernel's diagonal
    before it is centred. So a kernel of which only a share below `floor` differs between samples
    has lost the labels, however well that share is arranged.

    Args:
        gram: (n, n).
        labels: (n,).
        floor: of the mean diagonal.

    Source: centred alignment is that of Cortes et al. 2012, arXiv:1203.0550; the floor is this
    package's.
    """
    kernel, target = centred(gram), centred(same_class(labels).double().to(gram.device))
    noise = floor * gram.diagonal().mean() * centred(torch.eye(len(gram)).to(gram))
    lengths = (kernel + noise).norm() * target.norm()
    return float((kernel * target).sum() / lengths) if lengths > 0 else 0.0


def same_class(labels: Tensor) -> Tensor:
    """Return (n, n), true where two samples have the same label."""
    return labels[:, None] == labels


def left_out(gram: Tensor, targets: Tensor, *penalties: float) -> Tensor:
    """Return what a ridge predicts of every sample from all others, (n, q).

    The ridge minimises Σ|y − Wx − b|² + penalty·|W|²; its n fits are one, in closed form. Of
    several penalties that counts with which all predictions together are best.

    Args:
        gram: (n, n), the products of what is read.
        targets: (n, q).
        penalties: in the unit of `gram`, above 0.
    """
    targets = targets.to(gram)
    values, vectors = torch.linalg.eigh(centred(gram))
    values, mean = values.clamp(min=0), targets.mean(0)
    turned = vectors.T @ (targets - mean)
    found = []
    for penalty in penalties:
        kept = values / (values + penalty)
        fitted = mean + vectors @ (kept[:, None] * turned)
        own = (vectors.square() * kept).sum(1) + 1 / len(gram)  # of its own target
        own = own.clamp(max=1 - 1e-9)[:, None]
        found.append((fitted - own * targets) / (1 - own))
    return min(found, key=lambda predicted: float((predicted - targets).square().sum()))


def accuracy_left_out(gram: Tensor, labels: Tensor, *penalties: float) -> float:
    """Return how often a ridge to the classes, fitted to all others, names a sample's class."""
    classes, place = labels.unique(return_inverse=True)
    targets = torch.nn.functional.one_hot(place, len(classes))
    return float((left_out(gram, targets, *penalties).argmax(1) == place).double().mean())


def r_squared_left_out(gram: Tensor, targets: Tensor, *penalties: float) -> float:
    """Return the fraction of targets (n, q) that a ridge fitted to all others brings back."""
    count, targets = len(gram), targets.to(gram)
    targets = _narrow(targets - targets.mean(0))
    errors = (left_out(gram, targets, *penalties) - targets).square().sum()
    spread = targets.square().sum() * (count / (count - 1)) ** 2
    return float(1 - errors / spread) if spread > 0 else 0.0


def _narrow(targets: Tensor) -> Tensor:
    """Targets (n, q), or n columns that have the same products of samples where that is fewer:
    what is linear in the targets has the same sum of squares."""
    count, width = targets.shape
    if width <= count:
        return targets
    values, vectors = torch.linalg.eigh(targets @ targets.T)
    return vectors * values.clamp(min=0).sqrt()
