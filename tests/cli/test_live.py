"""What a running search shows: champion, candidates racing, calls, cost, time left; plain lines off a terminal."""

import io

import pytest
from rich.console import Console

from piar.cli.render.evolve import evolve_view
from piar.cli.render.live import SearchView
from piar.evolve.results import EvolveReport
from piar.evolve.resume import Event
from piar.judging.outcome import Progress


def drawn(view):
    out = Console(file=io.StringIO(), width=120, color_system=None)
    out.print(view)
    return out.file.getvalue()


def test_the_view_follows_a_search():
    now = [0.0]
    view = SearchView(4, lambda: now[0])
    assert "being judged" in drawn(view)
    view.tell(Event("champion", {"instruction": "c0", "dev": 0.5, "rows": 60}))
    view.tell(Event("inspected", {"round": 1}))
    for name in ("c1", "c2"):
        view.tell(Event("proposed", {"candidate": name}))
    view.count(Progress(40, 80, 0.25, {}))
    text = drawn(view)
    assert "c0  50.0 % of 60 dev rows" in text
    assert text.count("racing") == 2
    assert "round 1 of 4 · 40 judged · $0.2500 · 40 of 80 in this step" in text
    view.tell(Event("dropped", {"candidate": "c1", "reason": "beaten by c2"}))
    view.tell(Event("survived", {"candidate": "c2", "dev": 0.75}))
    view.count(Progress(80, 80, 0.5, {}))
    view.count(Progress(10, 30, 0.1, {}))  # the next call
    now[0] = 20.0
    view.tell(Event("inspected", {"round": 2}))
    text = drawn(view)
    assert "90 judged · $0.6000" in text
    assert "at most 60 s left" in text
    view.tell(Event("searched", {"best": "c2"}))
    assert "meets the champion on the holdout" in drawn(view)


def test_the_view_follows_the_folds_of_a_cross_fitted_search():
    view = SearchView(8, lambda: 0.0)
    view.tell(Event("inspected", {"round": 0}))
    view.tell(Event("proposed", {"candidate": "c1"}))
    assert "drafted from all labels" in drawn(view)
    view.tell(Event("fold", {"fold": 2, "of": 6, "rows": 40, "candidate": "c2"}))
    assert "fold 2 of 6" in drawn(view)
    view.tell(Event("searched", {"best": "c1"}))
    assert "is decided by what was drafted for each fold" in drawn(view)


@pytest.mark.parametrize(
    ("passed", "guards", "words"),
    [
        (False, [], "not asked without a passed test"),
        (True, [], "too few rows for any"),
        (True, [{"state": "holds"}, {"state": "unclear"}], "1 hold, 1 cannot be told of 2 grades and slices"),
    ],
)
def test_the_view_says_what_became_of_the_guards(passed, guards, words):
    promotion = {"passed": passed, "reason": "why", "fixed": 3, "broke": 1, "n": 60, "groups": 10, "guards": guards,
                 "gain": {"mean": 0.1, "low": -0.1, "high": 0.3, "p_value": 0.2}}  # fmt: skip
    report = EvolveReport(
        run="r", champion="c", seed_instruction="s", proposal=None, calls=1, cost_usd=0.0, rounds=1,
        promotions=[promotion], holdout={}, test={}, attribution=[], detectable="", ceiling=None, stopped="",
    )  # fmt: skip
    line = next(line for line in drawn(evolve_view(report, accepted=False)).splitlines() if "guards" in line)
    assert words in line


@pytest.mark.parametrize(("ceiling", "of_one", "words"), [(None, 40, "cannot be told"), (0.87, 3, "on 87 %")])
def test_the_view_gives_a_ceiling_only_where_more_than_one_person_spoke(ceiling, of_one, words):
    report = EvolveReport(
        run="r", champion="c", seed_instruction="s", proposal=None, calls=1, cost_usd=0.0, rounds=1, promotions=[],
        holdout={}, test={}, attribution=[], detectable="", ceiling=ceiling, of_one=of_one, stopped="",
    )  # fmt: skip
    line = next(line for line in drawn(evolve_view(report, accepted=False)).splitlines() if "ceiling" in line)
    assert words in line


def test_the_view_names_the_rules_that_had_better_go():
    loss = {"mean": -0.1, "low": -0.2, "high": -0.05, "p_value": 1.0}
    worths = [
        {"rule": "R01", "cited": 9, "state": "helps", "gain": {}},
        {"rule": "R02", "cited": 0, "state": "dead", "gain": None},
        {"rule": "R03", "cited": 40, "state": "harms", "gain": loss},
    ]
    report = EvolveReport(
        run="r", champion="c", seed_instruction="s", proposal=None, calls=1, cost_usd=0.0, rounds=1, promotions=[],
        holdout={}, test={}, attribution=worths, detectable="", ceiling=None, stopped="",
    )  # fmt: skip
    text = drawn(evolve_view(report, accepted=False))
    assert "1 help, 1 harm, 1 are cited by no row" in text
    assert "take out R02: no row of dev and holdout cites it" in text
    assert "take out R03: -10.0 (-20.0 to -5.0) points on the 40 rows that cite it" in text
