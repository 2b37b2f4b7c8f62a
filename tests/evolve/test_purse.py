"""A run's budget is divided in one place, and a forecast is never below what is asked."""

import json
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from piar.evolve.inputs import deal, forecast_rows, rows_of
from piar.evolve.purse import BudgetSpent, Needs, Purse, Rows
from piar.evolve.run import EvolveSettings, evolve
from piar.evolve.settings import AuditSettings, RevisionSettings
from piar.evolve.truth import load_truth
from store.errors import PiarError
from tests.worlds import SEED, WordReviser, WordTeacher, loop_models, world

ROWS = Rows(train=100, dev=40, holdout=30, test=30, largest=6)


class Generous(WordReviser):
    """Offers more candidates than it is asked for."""

    def say(self, request):
        *others, last = request.messages
        shown = json.dumps({**json.loads(last.content), "candidates": 9})
        return super().say(replace(request, messages=(*others, replace(last, content=shown))))


SETTINGS = st.builds(
    EvolveSettings,
    rounds=st.integers(0, 2),
    patience=st.integers(1, 3),
    seed=st.integers(0, 99),
    kept_back=st.sampled_from([0.0, 0.35, 0.8]),
    train_rows=st.sampled_from([1, 40, 4000]),
    redraft=st.sampled_from(["cross_validated", "none"]),
    max_calls=st.sampled_from([None, 240, 400]),
    revision=st.builds(
        RevisionSettings, candidates=st.integers(1, 4), evidence=st.sampled_from([None, 20]), max_rules=st.just(12)
    ),
    audit=st.builds(AuditSettings, items=st.sampled_from([0, 5, 50]), canary=st.sampled_from([0, 20])),
)


@settings(max_examples=4, deadline=None, derandomize=True)
@given(SETTINGS, st.sampled_from([WordReviser, Generous]), st.booleans())
def test_what_is_asked_is_never_more_than_was_forecast(chosen, reviser, again):
    with TemporaryDirectory() as folder:
        store, journal = world(Path(folder), groups=12)
        needs = Needs(chosen, forecast_rows(store, chosen), chosen.revision.evidence or 3000)
        for run in range(1 + again):  # the second one has a canary to ask
            teacher, wanted = WordTeacher(), chosen.model_copy(update={"seed": chosen.seed + run})
            try:
                evolve(store, loop_models(teacher, reviser()), SEED, wanted, journal=journal)
            except PiarError as refused:
                assert "too few" in refused.message or "prove nothing" in refused.message  # noqa: PT017
            assert teacher.calls <= needs.capped


def test_rows_are_counted_as_they_are_dealt(tmp_path):
    store, _ = world(tmp_path, groups=40)
    chosen = EvolveSettings(seed=3)
    assert forecast_rows(store, chosen) == rows_of(deal(store, load_truth(store), chosen))


def test_the_end_has_its_share_whatever_the_search_spends():
    chosen = EvolveSettings(max_calls=500, max_usd=10.0)
    needs = Needs(chosen, ROWS, evidence=3000)
    purse = Purse(chosen, needs)
    assert purse.budget.max_calls == 500 - needs.end - needs.redraft
    while purse.budget.reserve():
        pass
    with pytest.raises(BudgetSpent):
        purse.afford(1)
    purse.keep_for_the_end(usd=0.01, tokens=0)
    assert purse.budget.max_usd == pytest.approx(10 - 1.2 * 0.01 * needs.end)
    purse.open_redraft()
    purse.afford(needs.redraft)
    purse.open_end()
    purse.afford(needs.end + needs.redraft)
    assert (purse.budget.max_calls, purse.budget.max_usd) == (500, 10.0)


def test_a_cap_that_leaves_nothing_to_search_with_is_refused():
    chosen = EvolveSettings(max_calls=200)
    with pytest.raises(PiarError, match="200 calls are too few"):
        Purse(chosen, Needs(chosen, Rows(100, 41, 30, 70, 6), evidence=40))
