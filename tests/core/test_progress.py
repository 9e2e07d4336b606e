import pytest

from paperlib.core import progress
from paperlib.core.progress import Progress


def test_a_log_gets_plain_lines_at_long_intervals(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(progress.time, "monotonic", lambda: now)
    with Progress(100, "points") as told:
        for _ in range(100):
            now += 1.0
            told.advance()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("] ")[1].split(",")[0] for line in lines] == [
        "30 of 100 points", "60 of 100 points", "90 of 100 points", "100 of 100 points",
    ]  # fmt: skip
    assert "30 s, about 70 s left" in lines[0]
    assert "\r" not in "".join(lines)


def test_a_terminal_gets_one_line_that_updates(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress.sys.stderr, "isatty", lambda: True, raising=False)
    with Progress(2, "points") as told:
        told.advance()
        told.advance()
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1
    assert captured.err.count("\r") == 2
    assert not captured.out


def test_jupyter_gets_a_display_that_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    from IPython import display

    shown: list[str] = []

    class Handle:
        def display(self, data: dict, raw: bool) -> None:
            shown.append(data["text/plain"])

        update = display

    monkeypatch.setattr(progress, "_jupyter_is_watched", lambda: True)
    monkeypatch.setattr(display, "DisplayHandle", Handle)
    with Progress(1, "points") as told:
        told.advance()
    assert len(shown) == 2
    assert "1 of 1 points" in shown[-1]


def test_before_the_first_unit_nothing_is_said_of_the_time_left() -> None:
    told = Progress(2, "points")
    assert told._text().endswith("0 of 2 points, 0 s")
    told.advance()
    assert "left" in told._text()
    told.advance()
    assert told._text().endswith("2 of 2 points, 0 s")
