"""How much of a target lies in the first eigenvectors of a kernel.

Kernels are (n, n), symmetric, over samples; signals are (n,), or (n, columns) that count together.
All is computed in float64, and no argument is changed.

Source: alignment: Cristianini et al., NIPS 2001; centred: Cortes et al., arXiv:1203.0550; energy:
Kopitkov & Indelman, arXiv:1910.08720. Energy above a floor is ours.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]


def spectrum(kernel: Array) -> tuple[Array, Array]:
    """Return the eigenvalues (n,) of a kernel, the largest first, and its eigenvectors as columns
    (n, n)."""
    values, vectors = np.linalg.eigh(kernel)
    return values[::-1], vectors[:, ::-1]


def energy(vectors: Array, signal: Array, counts: Sequence[int]) -> Array:
    """Return the share E_k of a signal's square that lies in the first k vectors, for every k.

    In a random basis it is k/n on average.

    Args:
        vectors: (n, n), orthonormal columns in the order in which they count.
        signal: (n,) or (n, columns).
        counts: k; the share is NaN where there are fewer vectors, or the signal is 0.
    """
    whole = np.square(signal).sum() or math.nan
    share = np.cumsum(_parts(vectors, signal)) / whole
    return np.array([share[k - 1] if k <= len(share) else math.nan for k in counts])


def energy_above(kernel: Array, signal: Array, k: int, floor: float) -> float:
    """Return E_k above a floor, Σ_i≤k ⟨v_i, y⟩² μ_i/(μ_i + floor)/|y|² of the eigenvalues μ_i.

    Args:
        kernel: (n, n), positive semidefinite.
        signal: (n,) or (n, columns).
        k: number of eigenvectors.
        floor: above 0; noise of variance s in the kernel is a floor of n s.
    """
    values, vectors = spectrum(kernel)
    values = values[:k].clip(min=0.0)
    kept = _parts(vectors[:, :k], signal) * values / (values + floor)
    return float(kept.sum() / np.square(signal).sum())


def alignment(kernel: Array, signal: Array) -> float:
    """Return the cosine ⟨G, yyᵀ⟩/(‖G‖ ‖yyᵀ‖) of a kernel and that of the signal.

    It is 1 where G is yyᵀ, 1/√n where it is the unit matrix, 0 where one is 0; it has no scale.

    Args:
        kernel: (n, n).
        signal: (n,) or (n, columns).
    """
    columns = signal.reshape(len(signal), -1)
    size = np.linalg.norm(kernel) * np.linalg.norm(columns.T @ columns)
    return float(np.sum(columns * (kernel @ columns)) / size) if size > 0 else 0.0


def centred(kernel: Array) -> Array:
    """Return the kernel (n, n) of the samples less their mean."""
    rows = kernel - kernel.mean(0)
    return rows - rows.mean(1, keepdims=True)


def _parts(vectors: Array, signal: Array) -> Array:
    """Σ over columns of ⟨v_i, y⟩², by vector."""
    found: Array = np.square(vectors.T @ signal.reshape(len(signal), -1)).sum(1)
    return found
