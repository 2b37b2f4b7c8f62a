"""The loop: learns what is there, promotes nothing else, resumes to the same end, keeps its budget."""

import json
import os
import signal
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from benchmarks.judging import judge
from piar.evolve.ledger import fingerprints, record
from piar.evolve.resume import Event
from piar.evolve.run import EvolveSettings, evolve
from piar.evolve.settings import ReviserSettings, RevisionSettings
from piar.llm.cost import Price
from piar.llm.settings import ModelSettings
from store.errors import PiarError, UsageError
from store.types import Completion, Failure
from tests import ROOT, SOAK
from tests.worlds import SEED, WordReviser, WordTeacher, fill, loop_models, world

FAST = EvolveSettings(rounds=4, patience=2)


def run(store, journal, settings=FAST, teacher=None, reviser=None, **more):
    models = loop_models(teacher or WordTeacher(), reviser or WordReviser())
    return evolve(store, models, SEED, settings, journal=journal, **more)


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """One uninterrupted run, to compare with."""
    store, journal = world(tmp_path_factory.mktemp("finished"))
    teacher, reviser, events = WordTeacher(), WordReviser(), list[Event]()
    report, standing = run(store, journal, teacher=teacher, reviser=reviser, on_event=events.append)
    journal.close()
    return store, journal, report, standing, (teacher, reviser), events


def test_it_learns_what_is_there_and_proposes_it(finished):
    store, _, report, standing, asked, events = finished
    assert report.proposal == standing.id == report.champion != SEED.id
    texts = {r.text: r.grade for r in standing.rules}
    assert texts["the title has w0"] == texts["the title has w1"] == "0"
    assert texts["the title has w2"] == "2"
    assert report.promotions[0]["passed"]
    assert report.promotions[0]["fixed"] > report.promotions[0]["broke"]
    assert report.test["gold"]["gain"]["low"] > 0.2
    assert report.calls == sum(client.calls for client in asked)
    assert {e.kind for e in events} >= {"opened", "inspected", "proposed", "survived", "promotion"}
    assert store.instruction(standing.id).rules == standing.rules
    with store.read() as con:
        assert con.execute("select kind, outcome from decisions").fetchall() == [("promotion", "proposed")]


def test_the_same_command_again_costs_nothing(finished):
    store, journal, report, standing, _, _ = finished
    teacher = WordTeacher()
    again, same = run(store, journal, teacher=teacher)
    assert (again, same.id, teacher.calls) == (report, standing.id, 0)


# What a run kept of its settings before some became constants and two strategies had names.
EARLIER = {
    "rounds": 4, "patience": 2, "truth": "gold", "kept_back": 0.35, "train_rows": 4000, "redraft": True, "block": 100,
    "max_calls": None, "max_usd": None, "max_tokens": None,
    "revision": {"candidates": 4, "evidence": None, "max_rules": 40, "max_operations": 8, "max_words": 60,
                 "max_length": 4000, "diagnose": True},
    "promotion": {"alpha": 0.05, "metric": "recall", "margin": 0.05, "guard_alpha": 0.1, "min_support": 30,
                  "warn_uses": 3, "max_uses": 8},
    "audit": {"items": 50, "canary": 20},
}  # fmt: skip


def test_a_run_that_an_earlier_version_kept_is_the_same_run(finished):
    store, _, report, _, _, _ = finished
    with store.read() as con:
        kept = json.loads(con.execute("select config from runs where run_id = ?", [report.run]).fetchone()[0])
    assert kept["settings"] == EARLIER


DIE = """
import os, signal, sys
from pathlib import Path
from tests.worlds import SEED, TASK, WordReviser, WordTeacher, loop_models
from piar.evolve.run import EvolveSettings, evolve
from store.db import Store
from store.journal import Journal

class Dying(WordTeacher):
    def say(self, request):
        if self.calls == int(sys.argv[2]):
            os.kill(os.getpid(), signal.SIGKILL)
        return super().say(request)

folder = Path(sys.argv[1])
store = Store.open(folder / "piar.duckdb", TASK)
settings = EvolveSettings.model_validate_json(sys.argv[3])
evolve(store, loop_models(Dying(), WordReviser()), SEED, settings, journal=Journal(folder / "journal"))
"""


def die_at(folder, call):
    """Run `evolve` in a process that is killed, as by kill -9, when the teacher is asked for the n-th time."""
    command = [sys.executable, "-c", DIE, str(folder), str(call), FAST.model_dump_json()]
    ended = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(ROOT)}, check=False, timeout=120)
    assert ended.returncode == -signal.SIGKILL


@pytest.mark.parametrize("at", [[1, 90], [400]])
def test_a_killed_run_ends_as_an_uninterrupted_one(tmp_path, finished, at):
    store, journal = world(tmp_path)
    for call in at:
        die_at(tmp_path, call)
    check_same_end(store, journal, finished, sum(at) - len(at))


def check_same_end(store, journal, finished, asked_before):
    _, _, report, standing, (uninterrupted, _), events = finished
    teacher, seen = WordTeacher(), []
    again, same = run(store, journal, teacher=teacher, on_event=seen.append)
    assert same.id == standing.id
    assert again.model_dump(exclude={"run"}) == report.model_dump(exclude={"run"})
    assert teacher.calls + asked_before == uninterrupted.calls
    with store.read() as con:
        kinds = con.execute("select status from run_events order by rowid").fetchall()
    assert [k for (k,) in kinds] == [e.kind for e in events] + ["done"]


@pytest.mark.integration
def test_kills_at_any_call_change_nothing(tmp_path, finished):
    rng = np.random.default_rng(0)
    total = finished[4][0].calls
    for trial in range(25 if SOAK else 8):
        folder = tmp_path / str(trial)
        folder.mkdir()
        store, journal = world(folder)
        first = int(rng.integers(1, total - 20))
        second = int(rng.integers(1, total - first - 2))
        die_at(folder, first)
        die_at(folder, second)
        check_same_end(store, journal, finished, first + second - 2)


def test_a_cut_off_run_refuses_what_has_changed(tmp_path):
    store, journal = world(tmp_path, groups=20)

    class Interrupting(WordTeacher):
        def say(self, request):
            if self.calls == 60:
                os.kill(os.getpid(), signal.SIGINT)
            return super().say(request)

    with pytest.raises(KeyboardInterrupt):
        run(store, journal, teacher=Interrupting())
    with pytest.raises(UsageError, match="the seed") as caught:
        run(store, journal, FAST.model_copy(update={"seed": 1}))
    assert "--restart" in caught.value.fix
    with store.write() as con:
        con.execute("update labels set grade = '0' where grade = '1'")
    with pytest.raises(UsageError, match="samples, their splits or labels"):
        run(store, journal)
    report, _ = run(store, journal, restart=True)
    assert report.run


@pytest.mark.parametrize("cap", [500, 700])
def test_calls_never_pass_the_cap_and_the_test_is_still_made(tmp_path, cap):
    store, journal = world(tmp_path)
    teacher, reviser = WordTeacher(), WordReviser()
    report, _ = run(store, journal, FAST.model_copy(update={"max_calls": cap}), teacher, reviser)
    assert report.calls == teacher.calls + reviser.calls <= cap
    assert "gold" in report.test
    with pytest.raises(PiarError, match="too few"):
        run(store, journal, FAST.model_copy(update={"max_calls": 100}), restart=True)


class Dear(WordReviser):
    """An answer costs half a dollar."""

    def _one(self, request, on_completion):
        completion = replace(super()._one(request, None), cost_usd=0.5)
        on_completion(completion)
        return completion


def test_dollars_and_tokens_of_the_reviser_are_reserved_too(tmp_path):
    store, journal = world(tmp_path, groups=40)
    dear = ReviserSettings(price=Price(input=1.0, output=60.0))  # at most about half a dollar
    models = loop_models(WordTeacher(), Dear(), reviser_settings=dear)
    report, _ = evolve(store, models, SEED, FAST.model_copy(update={"max_usd": 1.2}), journal=journal)
    assert 0.5 <= report.cost_usd <= 1.2
    assert report.stopped == "the budget for searching is spent"
    (tmp_path / "tokens").mkdir()
    store, journal = world(tmp_path / "tokens", groups=40)
    report, _ = run(store, journal, FAST.model_copy(update={"max_tokens": 25_000}))
    journal.fold(store)
    assert 0 < store.frame("select sum(tokens_in + tokens_out) from completions").item() <= 25_000
    assert report.stopped == "the budget for searching is spent"


def test_a_race_in_dollars_pays_for_nothing_that_decides_nothing(tmp_path):
    store, journal = world(tmp_path, groups=40)
    events = list[Event]()
    settings = FAST.model_copy(update={"max_usd": 0.65})
    run(store, journal, settings, teacher=WordTeacher(cost=0.001), on_event=events.append)
    journal.fold(store)
    ended = {e.detail["candidate"] for e in events if e.kind in ("dropped", "survived")}
    asked = store.frame("select instruction, count(*) as n from verdicts group by 1").rows()
    raced = {e.detail["candidate"] for e in events if e.kind == "proposed"} & {name for name, _ in asked}
    assert any(e.kind == "dropped" and "the budget is too small" in e.detail["reason"] for e in events)
    assert raced <= ended


def test_money_is_kept_for_the_end_where_judging_dev_costs_nothing(tmp_path):
    store, journal = world(tmp_path, groups=40)
    teacher = WordTeacher(cost=0.001)
    judge(store, teacher, SEED, store.samples(), journal=journal)  # `piar label` came first
    journal.fold(store)
    models = loop_models(teacher, WordReviser(), ModelSettings(price=Price(output=2.0)))  # at most what it costs
    report, _ = evolve(store, models, SEED, FAST.model_copy(update={"max_usd": 0.55}), journal=journal)
    assert report.promotions
    assert "gold" in report.test
    assert 0.2 < report.cost_usd <= 0.55


class Knowing(WordReviser):
    """Offers one candidate: what is planted, as much as it may say."""

    def __init__(self):
        super().__init__()
        self.shown = []

    def say(self, request):
        asked = json.loads(request.messages[-1].content)
        self.shown.append((len(asked["evidence"]), asked["budget"]["max_operations"]))
        operations = [
            {"op": "add", "grade": grade, "text": f"the title has {word}"}
            for word, grade in (("w0", "0"), ("w1", "0"), ("w2", "2"))
        ]
        return json.dumps({"candidates": [{"operations": operations[: asked["budget"]["max_operations"]]}]})


@pytest.mark.parametrize("cap", [None, 700])
def test_the_winner_is_drafted_anew_from_train_and_dev_within_the_budget(tmp_path, cap):
    store, journal = world(tmp_path, groups=40)
    settings = FAST.model_copy(update={"rounds": 1, "max_calls": cap, "revision": RevisionSettings(max_operations=2)})
    teacher, reviser, events = WordTeacher(), Knowing(), list[Event]()
    report, standing = run(store, journal, settings, teacher, reviser, on_event=events.append)
    (rows, few), *folds, (more_rows, more) = reviser.shown
    splits = store.frame("select split, count(*) as n from samples group by split").rows()
    assert rows < dict(splits)["train"]
    assert more_rows == dict(splits)["train"] + dict(splits)["dev"]
    assert (few, more) == (2, -(-2 * more_rows // rows))
    assert len(folds) == 3
    assert sum(more_rows - shown for shown, _ in folds) == more_rows - rows  # each row of dev is left out once
    step = next(e.detail for e in events if e.kind == "redrafted")
    assert step["stands"]
    assert standing.id == step["candidate"] == report.proposal
    assert report.calls == teacher.calls + reviser.calls <= (cap or 10**6)
    alone, _ = run(store, journal, settings.model_copy(update={"redraft": "none"}), restart=True)
    assert alone.champion != standing.id


class Showing(WordReviser):
    """Reads, and makes two of the samples that it is shown examples."""

    simulated = False

    def say(self, request):
        shown = json.loads(request.messages[-1].content)
        edits = [{"op": "exemplify", "evidence": i} for i in range(min(2, len(shown["evidence"])))]
        return json.dumps({"candidates": [{"operations": edits}]})


def test_examples_come_from_train_and_race_like_rules(tmp_path):
    store, journal = world(tmp_path, groups=20)
    seen = []

    class Reading(WordTeacher):
        def say(self, request):
            seen.append(request.messages[0].content)
            return super().say(request)

    settings = EvolveSettings(rounds=1, revision=RevisionSettings(candidates=1, max_examples=2))
    events = list[Event]()
    run(store, journal, settings, Reading(), Showing(), on_event=events.append)
    journal.close()
    proposed = [store.instruction(e.detail["candidate"]) for e in events if e.kind == "proposed"]
    shown = {(e.fields["title"], e.grade) for candidate in proposed for e in candidate.examples}
    train = store.frame("select title, grade from samples join truth using (sample_id) where split = 'train'").rows()
    assert len(shown) == 2
    assert shown <= set(train)
    assert any(title in prompt for title, _ in shown for prompt in seen)  # the candidate was asked with them


class Confused(Knowing):
    """Says what is planted in a round, and nonsense when it is shown more."""

    def say(self, request):
        said = super().say(request)
        return said if len(self.shown) == 1 else adding("the title has a")


def test_a_new_draft_that_does_worse_on_rows_it_was_not_shown_is_not_taken(tmp_path):
    store, journal = world(tmp_path, groups=40)
    settings, events = FAST.model_copy(update={"rounds": 1}), list[Event]()
    report, standing = run(store, journal, settings, reviser=Confused(), on_event=events.append)
    step = next(e.detail for e in events if e.kind == "redrafted")
    assert not step["stands"]
    assert step["dev"] < next(e.detail["dev"] for e in events if e.kind == "survived")
    assert standing.id == report.proposal == step["winner"]


class Saying(WordReviser):
    """A reviser with one answer to everything."""

    def __init__(self, text):
        super().__init__()
        self.text = text

    def _one(self, request, on_completion):
        failure = self.text if isinstance(self.text, Failure) else None
        completion = Completion(request.key, self.model, None if failure else self.text, failure=failure)
        on_completion(completion)
        return completion


def adding(text, grade="0"):
    return json.dumps({"candidates": [{"operations": [{"op": "add", "grade": grade, "text": text}]}]})


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        ("I would rather talk about the weather. " * 500, "not the JSON"),
        ("", "not the JSON"),
        ('{"candidates": []}', "without candidates"),
        ('{"candidates": [{"operations": [{"op": "dance"}]}]}', "without valid operations"),
        (Failure("refused", "no"), "no answer (refused: no)"),
        (json.dumps({"candidates": [{"operations": [{"op": "add", "grade": "0", "text": "<b>now</b>"}]}]}), "markup"),
        (json.dumps({"candidates": [{"operations": [{"op": "add", "grade": "0", "text": "word " * 99}]}]}), "words"),
    ],
)
def test_a_useless_reviser_ends_the_search_with_its_reason(tmp_path, answer, reason):
    store, journal = world(tmp_path, groups=20)
    events = []
    report, standing = run(store, journal, reviser=Saying(answer), on_event=events.append)
    assert (report.proposal, standing.id) == (None, SEED.id)
    assert report.stopped == "no better candidate in 2 rounds"
    assert any(reason in why for e in events if e.kind == "refused" for why in e.detail["reasons"])
    [told] = [w for w in report.warnings if "said could be tried" in w and reason in w]
    assert ("piar doctor" in told) == isinstance(answer, Failure)


def test_the_same_edit_forever_ends_the_search(tmp_path):
    store, journal = world(tmp_path, groups=20)
    events = []
    report, _ = run(store, journal, reviser=Saying(adding("the title has nothing")), on_event=events.append)
    assert report.proposal is None
    reasons = {why for e in events if e.kind == "refused" for why in e.detail["reasons"]}
    assert reasons
    assert reasons <= {"tried before", "says the same twice"}


def answering(answer):
    class Stubborn(WordTeacher):
        def say(self, request):
            return answer

    return Stubborn()


def test_a_teacher_that_says_one_thing_ends_the_search_with_a_warning(tmp_path):
    store, journal = world(tmp_path, groups=20)
    report, standing = run(store, journal, teacher=answering("2"))
    assert (report.proposal, standing.id) == (None, SEED.id)
    assert report.test["gold"]["gain"]["mean"] == 0
    assert any("says 2 on all of" in w for w in report.warnings)


@pytest.mark.parametrize("answer", ["I cannot help with that.", "", "grade: two, I think"])
def test_a_teacher_that_never_grades_is_named_before_more_is_spent(tmp_path, answer):
    store, journal = world(tmp_path, groups=20)
    teacher, reviser = answering(answer), WordReviser()
    with pytest.raises(PiarError, match="gave no grade on any of") as caught:
        run(store, journal, teacher=teacher, reviser=reviser)
    assert "prompts/judge.j2" in caught.value.fix
    assert reviser.calls == 0
    journal.fold(store)
    with store.read() as con:
        assert con.execute("select count(*) from completions").fetchone()[0] == teacher.calls


def _decided(store, groups, times):
    detail = {"level": 0.001, "holdout_groups": fingerprints(groups)}
    for n in range(times):
        record(store, "promotion", f"c{n}", SEED.id, "refused", "chance", detail, "piar", f"earlier {n}")


def test_a_worn_holdout_is_refused(tmp_path):
    store, journal = world(tmp_path, groups=20)
    settings = FAST.model_copy(update={"rounds": 0})
    groups = [s.group for s in store.samples(where="split = 'holdout'")]
    for used, told in ((2, None), (3, "stricter")):
        _decided(store, groups, used)
        report, _ = run(store, journal, settings.model_copy(update={"seed": used}))
        assert [w for w in report.warnings if "tested on" in w] == [w for w in report.warnings if told and told in w]
        assert bool(told) == any("tested on" in w for w in report.warnings)
    _decided(store, groups, 8)
    with pytest.raises(PiarError, match="prove nothing more"):
        run(store, journal, settings.model_copy(update={"seed": 8}))


def test_unlabelled_data_is_refused_with_a_way_out(tmp_path):
    store, journal = fill(tmp_path, [("q1", "a", "train", None), ("q2", "b", "dev", None)])
    with pytest.raises(PiarError, match="No sample has gold labels") as caught:
        run(store, journal)
    assert "piar import" in caught.value.fix
    with store.write() as con:
        con.execute("update labels set grade = '1'")
    with pytest.raises(PiarError, match="fewer than two labelled groups"):
        run(store, journal)


def test_splits_that_a_file_named_are_told_apart_from_too_few_labels(tmp_path):
    rows = [(f"q{i}", f"title {i}", ("train", "test")[i % 2], str(i % 3)) for i in range(40)]
    store, journal = fill(tmp_path, rows)
    with pytest.raises(PiarError, match="in dev and holdout \\(train 20, dev 0, holdout 0, test 20\\)") as caught:
        run(store, journal)
    assert "without its split column" in caught.value.fix
    assert "Label more" not in caught.value.fix
