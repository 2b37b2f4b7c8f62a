"""The search whose labels all teach: folds never leak, its end is called what it is, budget and ledger hold."""

import json
import os
import signal
from contextlib import nullcontext
from io import StringIO
from statistics import NormalDist

import numpy as np
import pytest
from rich.console import Console

from benchmarks.fold_worlds import guessed
from benchmarks.judging import judge
from benchmarks.null_worlds import NoJournal
from piar.cli.render.evolve import evolve_view
from piar.cli.render.show import difference_document, difference_view
from piar.evolve.cross_fitting import deal_folds
from piar.evolve.inputs import forecast_rows
from piar.evolve.ledger import record, retire, taught
from piar.evolve.promotion import over_folds
from piar.evolve.reviser import needs_of
from piar.evolve.run import EvolveSettings, evolve
from piar.evolve.settings import AuditSettings, PromotionSettings
from piar.query.show import difference
from piar.report.page import report as make_page
from store.errors import PiarError
from store.stats import Gain, paired_gain, sign_flip_test
from store.types import Instruction, Rule
from tests.worlds import SEED, WordReviser, WordTeacher, fill, loop_models, planted, world

CROSS = EvolveSettings(search="cross_fitted")
KNOWING = Instruction(SEED.preamble, (Rule("R01", "the title has w2", "2"),))
UNTESTED = "drafted once more from all"


class Drafter(WordReviser):
    """Offers the same edits whatever it is shown, and remembers what it was shown.

    Args:
        silent: says nothing of evidence without this group.
    """

    def __init__(self, *edits, silent=""):
        super().__init__()
        self.edits, self.silent, self.shown = edits, silent, []

    def say(self, request):
        rows = [item["fields"] for item in json.loads(request.messages[-1].content)["evidence"]]
        self.shown.append({row["title"] for row in rows})
        quiet = self.silent and self.silent not in {row["query"] for row in rows}
        return json.dumps({"candidates": [{"operations": self.edits}] if self.edits and not quiet else []})


def add(word, grade):
    return {"op": "add", "grade": grade, "text": f"the title has {word}"}


GAIN = (add("w0", "0"), add("w1", "0"))


def search(store, journal, reviser, seed=SEED, settings=CROSS, teacher=None, **more):
    with store.write() if isinstance(journal, NoJournal) else nullcontext():  # one connection for the whole run
        return evolve(store, loop_models(teacher or WordTeacher(), reviser), seed, settings, journal=journal, **more)


def quick(folder, **more):
    """A world whose answers nobody reads later."""
    return world(folder, **more)[0], NoJournal(folder)


@pytest.fixture(scope="module")
def passed(tmp_path_factory):
    """A search that ends with a proposal."""
    store, journal = world(tmp_path_factory.mktemp("crossed"), groups=30, per_group=4)
    teacher, reviser, events = WordTeacher(), Drafter(*GAIN), []
    report, standing = search(store, journal, reviser, teacher=teacher, on_event=events.append)
    journal.close()
    return store, report, standing, teacher, reviser, events


def test_each_draft_is_judged_on_the_rows_that_it_was_not_shown_and_test_teaches_nobody(passed):
    store, report, _, _, reviser, events = passed
    seen = set(store.frame("select title from samples where split <> 'test'")["title"])
    whole, *folds = reviser.shown
    assert whole == seen
    held = [seen - shown for shown in folds]
    assert len(folds) == 6
    assert set().union(*held) == seen
    assert sum(map(len, held)) == len(seen)  # each row is left out once
    groups = dict(store.frame("select title, group_key from samples").rows())
    assert all({groups[t] for t in left}.isdisjoint(groups[t] for t in seen - left) for left in held)
    assert [e.detail["rows"] for e in events if e.kind == "fold"] == [len(left) for left in held]
    (tested,) = report.promotions
    assert (tested["n"], tested["folds"], tested["drafted"]) == (len(seen), 6, 6)


def test_groups_that_differ_in_spelling_only_share_a_fold_and_folds_are_alike_in_size():
    groups = [f"{word} {n}" for n in range(20) for word in ("lamp", "Lamps")]
    fold = deal_folds(groups, seed=3)
    assert all(fold[f"lamp {n}"] == fold[f"Lamps {n}"] for n in range(20))
    sizes = [list(fold.values()).count(k) for k in set(fold.values())]
    assert (len(sizes), max(sizes) - min(sizes)) == (6, 2)
    assert fold == deal_folds(groups[::-1], seed=3) != deal_folds(groups, seed=4)
    assert sorted(deal_folds(["a", "b", "c"], 0).values()) == [0, 1, 2]


def shown(view):
    out = StringIO()
    Console(file=out, width=400, markup=False, highlight=False).print(view)
    return " ".join(out.getvalue().split())


def test_the_proposal_is_everywhere_called_what_it_is(passed, tmp_path):
    store, report, standing, *_ = passed
    assert report.proposal == standing.id
    assert report.test["gold"]["gain"]["low"] > 0
    assert UNTESTED in report.detail
    assert UNTESTED in shown(evolve_view(report, accepted=False))
    assert "out of fold" in report.promotions[0]["reason"]
    found = difference(store, SEED, standing)
    assert UNTESTED in difference_document(found)["procedure"]
    assert UNTESTED in shown(difference_view(found, store.task))
    assert {"dev", "holdout"} <= found.taught
    page = make_page(store, tmp_path / "page.html", current=SEED)
    assert UNTESTED in page.detail
    assert "untouched test groups" in page.detail
    assert "has taught it: flatters" in page.path.read_text()


def test_without_test_rows_nothing_is_claimed_of_the_text_itself(tmp_path):
    store, journal = world(tmp_path, groups=30, per_group=4)
    with store.write() as con:
        con.execute("update samples set split = 'pool' where split = 'test'")
    report, _ = search(store, journal, Drafter(*GAIN))
    journal.close()
    assert report.proposal
    assert any("no figure of its own" in warning for warning in report.warnings)
    page = make_page(store, tmp_path / "page.html", current=SEED)
    assert "more often" not in page.headline + page.detail


def drops_what_is_known(tmp_path):
    store, journal = quick(tmp_path, groups=60)
    settings = CROSS.model_copy(update={"promotion": PromotionSettings(min_support=10)})
    return search(store, journal, Drafter(*GAIN, {"op": "drop", "rule": "R01"}), KNOWING, settings)


def finds_nothing(tmp_path):
    store, journal = quick(tmp_path, groups=30)
    return search(store, journal, Drafter(add("w5", "0"), add("w6", "0")))


def says_nothing(tmp_path):
    return search(*quick(tmp_path, groups=30), Drafter())


def wavers(tmp_path):
    class Shaky(WordTeacher):
        def __init__(self):
            super().__init__()
            self.asked = set()

        def say(self, request):
            told, again = super().say(request), request.messages in self.asked
            self.asked.add(request.messages)
            return "0" if again and told.startswith("1") else "1" if again else told

    return search(*quick(tmp_path, groups=30), Drafter(*GAIN), teacher=Shaky())


@pytest.mark.parametrize(
    ("made", "ending", "advice"),
    [
        (drops_what_is_known, "refused by guard", "what grade 2 needs"),
        (finds_nothing, "refused by test", "label more groups"),
        (says_nothing, "nothing found", "evolve.search=rounds"),
        (wavers, "refused by audit", "steady the teacher"),
    ],
)
def test_each_other_end_says_why_and_what_mends_it(tmp_path, made, ending, advice):
    report, standing = made(tmp_path)
    assert (report.ending, report.proposal) == (ending, None)
    assert advice in report.advice
    assert standing.id == report.seed_instruction
    assert "holdout" not in report.detail
    assert (UNTESTED in report.detail) == (ending != "nothing found")


def test_nothing_is_judged_and_no_group_used_up_where_nothing_is_drafted(tmp_path):
    store, journal = quick(tmp_path, groups=30)
    teacher = WordTeacher()
    search(store, journal, Drafter(), teacher=teacher, settings=CROSS.model_copy(update={"audit": AuditSettings()}))
    assert teacher.calls == store.frame("select count(*) from samples").item()  # the incumbent, on test too
    assert not store.frame("select * from decisions").height


def test_a_fold_for_which_nothing_is_drafted_counts_as_no_change(tmp_path):
    store, journal = quick(tmp_path, groups=30)
    report, _ = search(store, journal, Drafter(*GAIN, silent="q0"))
    (tested,) = report.promotions
    assert (tested["folds"], tested["drafted"]) == (6, 5)
    assert "for 1 of them nothing was drafted, which counts as no change" in report.detail
    assert tested["n"] == store.frame("select title from samples where split <> 'test'").height


def test_a_budget_of_calls_is_enough_or_refused_before_anything_is_asked(tmp_path):
    store, journal = quick(tmp_path, groups=20)
    teacher, reviser = WordTeacher(), Drafter(*GAIN)
    needs = needs_of(CROSS, forecast_rows(store, CROSS), reviser)
    least = needs.search + needs.end
    with pytest.raises(PiarError, match=f"take up to {least}") as caught:
        search(store, journal, reviser, settings=CROSS.model_copy(update={"max_calls": least - 1}), teacher=teacher)
    assert (teacher.calls, reviser.calls, str(least) in caught.value.fix) == (0, 0, True)
    capped = CROSS.model_copy(update={"max_calls": least})
    report, _ = search(store, journal, reviser, settings=capped, teacher=teacher)
    assert report.proposal
    assert "gold" in report.test
    assert report.calls == teacher.calls + reviser.calls <= least
    free, _ = search(store, journal, Drafter(*GAIN), settings=CROSS.model_copy(update={"seed": 1}))
    assert free.attribution
    assert free.calls <= needs.total + needs.drafting


def test_dollars_that_do_not_pay_for_all_rows_end_it_before_they_are_asked(tmp_path):
    store, journal = quick(tmp_path, groups=20)
    teacher = WordTeacher(cost=0.01)
    report, _ = search(
        store, journal, Drafter(*GAIN), settings=CROSS.model_copy(update={"max_usd": 2.0}), teacher=teacher
    )
    assert (report.ending, report.promotions) == ("budget spent", [])
    assert "--max-usd" in report.advice
    dev = next(
        n for split, n in store.frame("select split, count(*) from samples group by split").rows() if split == "dev"
    )
    assert report.cost_usd <= 2.0
    assert dev < teacher.calls < 2 * 96


@pytest.mark.parametrize("settings", [CROSS, EvolveSettings()], ids=["cross-fitted", "rounds"])
def test_dollars_that_cannot_end_it_are_refused_before_anything_is_paid_where_a_price_is_known(tmp_path, settings):
    store, journal = world(tmp_path, groups=20, per_group=3)
    teacher = WordTeacher(cost=0.01)
    judge(store, teacher, SEED, store.samples("train"), journal=journal)
    journal.fold(store)
    paid = teacher.calls
    with pytest.raises(PiarError, match=r"--max-usd 0\.2 is too little") as caught:
        search(store, journal, Drafter(*GAIN), settings=settings.model_copy(update={"max_usd": 0.2}), teacher=teacher)
    assert teacher.calls == paid
    enough = float(caught.value.fix.split()[-1].rstrip("."))
    found, _ = search(
        store, journal, Drafter(*GAIN), settings=settings.model_copy(update={"max_usd": enough}), teacher=teacher
    )
    assert (found.ending == "budget spent") == (settings is not CROSS)  # rounds may end with what their end takes
    assert found.cost_usd <= enough


def test_a_search_that_was_cut_off_ends_as_an_uninterrupted_one(tmp_path, passed):
    _, report, standing, whole, *_ = passed

    class Interrupting(WordTeacher):
        def __init__(self, at):
            super().__init__()
            self.at = at

        def say(self, request):
            if self.calls == self.at:
                os.kill(os.getpid(), signal.SIGINT)
            return super().say(request)

    def go_on(teacher):
        return evolve(store, loop_models(teacher, Drafter(*GAIN)), SEED, CROSS, journal=journal)

    store, journal, paid = *world(tmp_path, groups=30, per_group=4), 0
    for at in (20, 110):  # while the incumbent is judged; while the folds are
        teacher = Interrupting(at)
        with pytest.raises(KeyboardInterrupt):
            go_on(teacher)
        paid += teacher.calls
    teacher = WordTeacher()
    again, same = go_on(teacher)
    assert same.id == standing.id
    assert again.model_dump(exclude={"run"}) == report.model_dump(exclude={"run"})
    assert paid + teacher.calls == whole.calls


def test_a_reviser_that_reads_is_asked_for_causes_and_shown_no_more_than_it_reads(tmp_path):
    class Reading(Drafter):
        simulated = False

    reviser = Reading(*GAIN)
    report, _ = search(*quick(tmp_path, groups=30), reviser)
    assert report.proposal
    assert len(reviser.shown) == reviser.calls == 2 * 7
    assert max(map(len, reviser.shown)) <= 40


def test_few_labels_are_refused_and_splits_that_a_file_names_do_not_matter(tmp_path):
    rows = [
        (f"q{n}", f"w{n % 8} x{n}n{i}", "train", planted(0, {f"w{n % 8}"}, None)) for n in range(30) for i in range(4)
    ]
    (tmp_path / "few").mkdir()
    with pytest.raises(PiarError, match="fewer than 6 labelled groups"):
        search(fill(tmp_path / "few", rows[:20])[0], NoJournal(tmp_path), Drafter(*GAIN))
    report, _ = search(fill(tmp_path, rows)[0], NoJournal(tmp_path), Drafter(*GAIN))  # all of them train
    assert report.promotions[0]["groups"] == 30


def test_what_taught_the_instruction_in_force_is_said_and_leaves_the_holdout(tmp_path):
    store, journal = quick(tmp_path, groups=30)
    report, standing = search(store, journal, Drafter(*GAIN))
    groups = set(store.frame("select group_key from samples where split <> 'test'")["group_key"])
    assert taught(store, standing.id) == groups
    assert not taught(store, SEED.id)
    record(store, "acceptance", standing.id, SEED.id, "accepted", "by Ada", {}, "Ada", "r")
    edited = Instruction(standing.preamble, standing.rules[:1], parent=standing.id)
    store.put_instruction(edited, "r")
    assert taught(store, edited.id) == groups  # an edit unlearns nothing
    for settings in (EvolveSettings(rounds=1), CROSS):
        later, _ = search(store, journal, Drafter(add("w2", "2")), standing, settings, restart=True)
        assert any("have taught the instruction in force" in warning for warning in later.warnings)
        assert later.promotions[0]["level"] < report.promotions[0]["level"]
    assert retire(store) == 0  # nothing fresh is there
    with store.write() as con:
        con.execute("update samples set split = 'holdout', group_key = 'new ' || group_key where split = 'test'")
    assert retire(store) == 6
    assert set(store.frame("select group_key from samples where split = 'holdout'")["group_key"]).isdisjoint(groups)


def test_a_gain_over_folds_is_less_sure_and_never_another_one():
    rng = np.random.default_rng(5)
    before, after = rng.random(240) < 0.5, rng.random(240) < 0.65
    found = paired_gain(before, after, np.repeat(np.arange(40), 6))
    assert over_folds(found, 0) == found
    wide = over_folds(found, 6)
    assert wide.mean == found.mean
    assert (wide.high - wide.low) / (found.high - found.low) == pytest.approx(np.sqrt(2.2))
    score = NormalDist().inv_cdf
    assert over_folds(found.model_copy(update={"p_value": 1e-80}), 6).p_value > 1e-40
    assert score(wide.p_value) * np.sqrt(2.2) == pytest.approx(score(found.p_value))
    for p in (0.0, 1e-80, 0.5, 0.97, 1.0):
        assert p <= over_folds(found.model_copy(update={"p_value": p}), 6).p_value <= max(p, 0.5)


def test_a_lucky_choice_that_every_fold_makes_is_promoted_too_often_unless_folds_are_told():
    passed, worlds = [0, 0], 400
    for seed in range(worlds):
        before, after = guessed(grades=10, groups=48, seed=seed)
        change = after.sum(axis=1) - before.sum(axis=1)
        found = Gain(mean=change.mean(), low=None, high=None, p_value=sign_flip_test(change))
        passed = [n + (over_folds(found, k).p_value <= 0.03) for n, k in zip(passed, (0, 6), strict=True)]
    assert passed[0] > 1.3 * 0.03 * worlds
    assert passed[1] < 0.03 * worlds
