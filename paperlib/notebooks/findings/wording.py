"""Numbers in words and Markdown, as findings write them: rounded, with a true minus sign."""

import math
from collections.abc import Iterable, Sequence

UNDEFINED = "not defined"


def number(value: float, digits: int = 2) -> str:
    """Return a number with so many decimals; "not defined" for NaN.

    >>> number(-0.256), number(1234.5, 0), number(float("nan"))
    ('−0.26', '1,234', 'not defined')
    """
    if math.isnan(value):
        return UNDEFINED
    return f"{value:z,.{digits}f}".replace("-", "−")


def short(value: float) -> str:
    """Return a number with three significant digits, as a variance or a rate is written.

    >>> short(1.75), short(0.00002), short(0.65123)
    ('1.75', '2e-05', '0.651')
    """
    return UNDEFINED if math.isnan(value) else f"{value:.3g}"


def percent(share: float, digits: int = 1) -> str:
    """Return a share of 1 in percent.

    >>> percent(0.9775), percent(1.0, 0)
    ('97.8%', '100%')
    """
    return UNDEFINED if math.isnan(share) else f"{share:.{digits}%}"


def spread(values: Sequence[float], digits: int = 2) -> str:
    """Return a mean over seeds with its standard deviation (n − 1), of one seed the value alone.

    Values that are NaN are left out.

    >>> spread([1.0, 2.0]), spread([0.5]), spread([])
    ('1.50 ± 0.71', '0.50', 'not defined')
    """
    known = [float(value) for value in values if not math.isnan(value)]
    if not known:
        return UNDEFINED
    mean = sum(known) / len(known)
    if len(known) == 1:
        return number(mean, digits)
    deviation = math.sqrt(sum((value - mean) ** 2 for value in known) / (len(known) - 1))
    return f"{number(mean, digits)} ± {number(deviation, digits)}"


def span(values: Iterable[float], digits: int = 2) -> str:
    """Return the smallest and the largest of some values that are not NaN.

    >>> span([0.5, -1.0, 2.0]), span([3.0], 0)
    ('−1.00 to 2.00', '3')
    """
    known = [float(value) for value in values if not math.isnan(value)]
    if not known:
        return UNDEFINED
    first, last = number(min(known), digits), number(max(known), digits)
    return first if first == last else f"{first} to {last}"


def listed(items: Iterable[object]) -> str:
    """Return a list in words.

    >>> listed([1, 2, 3]), listed(["one"]), listed([])
    ('1, 2 and 3', 'one', 'none')
    """
    words = [str(item) for item in items]
    if not words:
        return "none"
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def counted(count: int, noun: str) -> str:
    """Return a number of things, the noun in its plural unless there is one.

    >>> counted(1, "seed"), counted(1200, "step")
    ('1 seed', '1,200 steps')
    """
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown.

    >>> print(table(["depth", "R²"], [[1, "0.9"]]))
    | depth | R² |
    | :--- | ---: |
    | 1 | 0.9 |
    """
    lines = [columns, [":---", *["---:"] * (len(columns) - 1)], *rows]
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)


def paragraphs(*parts: str) -> str:
    """Return parts of a text with a blank line between them, those that are empty left out."""
    return "\n\n".join(part for part in parts if part)
