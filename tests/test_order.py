"""Long tests first, for every number of workers; none is lost."""

from types import SimpleNamespace
from typing import Any

import pytest
from order import longest_first

FILES = {"a": 3, "b": 15, "c": 5, "d": 9, "e": 30, "f": 8}  # with so many tests
SLOW = "bdf"  # each with one slow test


def made() -> list[Any]:
    def marker(slow: bool) -> Any:
        return lambda name: slow and name == "slow"

    return [
        SimpleNamespace(
            path=path, number=number, get_closest_marker=marker(path in SLOW and number == 2)
        )
        for path, count in FILES.items()
        for number in range(count)
    ]


@pytest.mark.parametrize("workers", [1, 2, 3, 4])
def test_every_worker_begins_with_a_file_of_slow_tests_and_no_test_is_lost(workers: int) -> None:
    given = made()
    ordered = longest_first(given, workers)
    assert sorted(map(id, ordered)) == sorted(map(id, given))
    starts = [ordered[len(given) * worker // workers].path for worker in range(workers)]
    assert starts[: len(SLOW)] == list(SLOW)[:workers]


def test_where_none_is_slow_the_order_stays() -> None:
    quick = [test for test in made() if test.path not in SLOW]
    assert longest_first(quick, 2) == quick
