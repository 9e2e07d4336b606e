"""Random numbers from an explicit seed."""

import zlib

import torch


def random_numbers(purpose: str, seed: int) -> torch.Generator:
    """Return a generator for one purpose, whose numbers are not those that `initialise` draws.

    Example:
        >>> import torch
        >>> from paperlib.networks import random_numbers
        >>> first = torch.rand(3, generator=random_numbers("batches", 0))
        >>> again = torch.rand(3, generator=random_numbers("batches", 0))
        >>> bool(first.equal(again))
        True
    """
    return torch.Generator().manual_seed(zlib.crc32(f"{purpose} {seed}".encode()))
