"""Random numbers from an explicit seed."""

import zlib

import torch


def random_numbers(purpose: str, seed: int) -> torch.Generator:
    """Return a generator for one purpose, whose numbers are not those that `initialise` draws."""
    return torch.Generator().manual_seed(zlib.crc32(f"{purpose} {seed}".encode()))
