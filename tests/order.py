"""In which order tests run."""

from collections import Counter
from pathlib import Path

import pytest


def longest_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """The files with slow tests first, those with most of them before, dealt to the workers: at the
    end none waits for a long one.

    xdist gives each worker an equal part of this order, and later the end of another's to one that
    has none left. A file stays whole, for the fixtures that its tests share.
    """
    counts = Counter(item.path for item in items if item.get_closest_marker("slow"))
    slow: dict[Path, list[pytest.Item]] = {path: [] for path, _ in counts.most_common()}
    quick: list[pytest.Item] = []
    for item in items:
        slow.get(item.path, quick).append(item)
    hands: list[list[pytest.Item]] = [[] for _ in range(workers)]
    for tests in slow.values():
        min(hands, key=len).extend(tests)
    ordered: list[pytest.Item] = []
    for worker, hand in enumerate(hands, start=1):
        filled = max(0, len(items) * worker // workers - len(ordered) - len(hand))
        ordered += [*hand, *quick[:filled]]
        del quick[:filled]
    return ordered + quick
