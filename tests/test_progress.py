from piar.cli import progress
from piar.label import Progress
from store.types import Usage


def test_lines_say_rates_caching_cost_and_failures(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    moment = iter(range(0, 100, 10))
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(moment)))
    with progress.meter("judging") as show:
        show(Progress(120, 200, 0.5, {"timeout": 3, "malformed": 1}, 100, Usage(1000, 750, 500)))
        show(Progress(200, 200, 1.0, {}, 180))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for part in ("judging 120 of 200", "tokens/s", "75% cached", "$0.5000 of about $0.9000", "1 malformed · 3 timeout"):
        assert part in said
    assert "s left" in said


def test_nothing_is_said_of_what_is_done_already(capsys, monkeypatch):
    monkeypatch.setattr(progress, "LINE_SECONDS", 0.0)
    with progress.meter("judging") as show:
        for _ in range(5):
            show(Progress(200, 200))
    assert capsys.readouterr().err == ""
