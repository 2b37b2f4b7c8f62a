import re

from piar.cli.render import progress
from piar.judging.outcome import Progress
from store.types import Usage


def test_lines_say_rates_caching_cost_and_failures(capsys, monkeypatch):
    moment = iter([0, 900, 900, 900, *range(910, 2000, 10)])  # a model took a quarter of an hour to load
    monkeypatch.setattr(progress.time, "monotonic", lambda: float(next(moment)))
    with progress.meter("judging") as show:
        show(Progress(0, 200))
        show(Progress(120, 200, 0.5, {"timeout": 3, "malformed": 1}, 100, Usage(1000, 750, 500)))
        show(Progress(200, 200, 1.0, {}, 180))
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    for part in ("judging 120 of 200", "tokens/s", "75% cached", "$0.5000 of about $0.9000", "1 malformed · 3 timeout"):
        assert part in said
    assert float(re.search(r"· (\d+) s left", said)[1]) < 100


def test_nothing_is_said_of_what_is_done_already(capsys, monkeypatch):
    monkeypatch.setattr(progress, "pause", lambda elapsed: 0.0)
    with progress.meter("judging") as show:
        for _ in range(5):
            show(Progress(200, 200))
    assert capsys.readouterr().err == ""


def test_a_call_that_has_just_begun_is_not_judged_by_its_first_answer(capsys, monkeypatch):
    clock = [0.0]
    monkeypatch.setattr(progress.time, "monotonic", lambda: clock[0])
    with progress.meter("judging") as show:
        for now, done in ((0.0, 0), (60.0, 10), (120.0, 1), (180.0, 12)):
            clock[0] = now
            show(Progress(done, 20, asked=done))
    assert [line.split(" · ")[0] for line in capsys.readouterr().err.splitlines()] == [
        "judging 10 of 20",
        "judging 12 of 20",
    ]
