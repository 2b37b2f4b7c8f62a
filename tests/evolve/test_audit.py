"""Asking again: a teacher that changes its mind cannot carry a small gain, an endpoint that changed is noticed."""

from dataclasses import replace

import pytest

from piar.evolve.run import EvolveSettings, evolve
from piar.evolve.settings import AuditSettings
from piar.judging.neighbours import Neighbours
from piar.judging.settings import LabelSettings
from store.types import Completion
from tests.worlds import SEED, WordReviser, WordTeacher, loop_models, world

FAST = EvolveSettings(rounds=2, patience=1)


class Fickle(WordTeacher):
    """Answers a question that it has seen before with another grade, in a share of cases."""

    def __init__(self, share):
        super().__init__()
        self.share, self.seen = share, {}

    def say(self, request):
        said = super().say(request)
        content = tuple(m.content for m in request.messages)
        self.seen[content] = self.seen.get(content, -1) + 1
        flips = self.seen[content] and hash(content) % 100 < 100 * self.share
        return str((int(said[0]) + 1) % 3) if flips else said


def run(store, journal, teacher, settings=FAST, **more):
    events = []
    models = loop_models(teacher, WordReviser())
    report, _ = evolve(store, models, SEED, settings, journal=journal, on_event=events.append, **more)
    return report, {e.kind: e.detail for e in events}


def test_a_steady_teachers_gain_is_claimed_and_the_audit_is_told(tmp_path):
    store, journal = world(tmp_path)
    report, events = run(store, journal, WordTeacher())
    assert report.promotions[0]["passed"]
    assert report.promotions[0]["audit"] == {"asked": 50, "flipped": 0}
    assert events["audit"]["flipped"] == 0


def test_a_gain_below_the_teachers_own_flip_rate_is_not_claimed(tmp_path):
    store, journal = world(tmp_path)
    report, events = run(store, journal, Fickle(0.9))
    promotion = report.promotions[0]
    assert promotion["p_value"] <= promotion["level"]
    assert not promotion["passed"]
    assert report.proposal is None
    assert "changes its own answer" in promotion["reason"]
    assert events["audit"]["flipped"] > 30
    with store.read() as con:
        kept = con.execute("select count(*) from completions where role = 'audit'").fetchone()[0]
        asked_twice = con.execute("select count(*) from verdicts where vote > 0").fetchone()[0]
    assert (kept, asked_twice) == (50, 0)


def test_both_can_be_turned_off(tmp_path):
    store, journal = world(tmp_path, groups=20)
    teacher = WordTeacher()
    settings = FAST.model_copy(update={"audit": AuditSettings(items=0, canary=0), "redraft": "none"})
    report, events = run(store, journal, teacher, settings)
    assert not {"audit", "canary"} & set(events)
    assert report.calls == teacher.calls + report.rounds


@pytest.mark.parametrize(("changed", "alarmed"), [(False, False), (True, True)])
def test_the_canary_notices_an_endpoint_that_changed(tmp_path, changed, alarmed):
    store, journal = world(tmp_path, groups=20)
    first, events = run(store, journal, WordTeacher("1"))
    assert events["canary"]["asked"] == 0
    assert len(events["canary"]["grades"]) == 20
    assert not any("changed" in w for w in first.warnings)
    teacher = WordTeacher("0" if changed else "1")  # the same name, another mind
    second, events = run(store, journal, teacher, restart=True)
    assert events["canary"]["asked"] == 20
    assert any("has probably changed" in w for w in second.warnings) == alarmed


class Copier(WordTeacher):
    """Says what the nearest labelled row that it is shown has."""

    def say(self, request):
        return request.messages[0].content[-1]


def test_a_canary_whose_neighbours_changed_is_begun_anew(tmp_path):
    """Labels of train that changed are no other endpoint."""
    store, journal = world(tmp_path, groups=20)

    def again(**more):
        models, events = loop_models(Copier(), WordReviser()), []
        beside = Neighbours(store, LabelSettings(neighbours=1))
        models = replace(models, teacher=replace(models.teacher, neighbours=beside))
        settings = FAST.model_copy(update={"redraft": "none", "rounds": 1})
        report, _ = evolve(store, models, SEED, settings, journal=journal, on_event=events.append, **more)
        return report.warnings, next(e.detail for e in events if e.kind == "canary")

    assert again()[1]["model"] == "words+1-neighbours"
    assert again(restart=True)[1]["asked"] == 20
    with store.write() as con:
        con.execute("update labels set grade = ((grade::int + 1) % 3)::varchar where sample_id in "
                    "(select sample_id from samples where split = 'train')")  # fmt: skip
    warnings, canary = again(restart=True)
    assert (canary["asked"], len(canary["keys"])) == (0, 20)
    assert not any("endpoint" in warning for warning in warnings)


def test_failed_answers_are_not_flips(tmp_path):
    class Failing(WordTeacher):
        def _one(self, request, on_completion):
            if self.calls > 400:  # nothing but noise from here on
                completion = Completion(request.key, self.model, "I would rather not.")
                on_completion(completion)
                return completion
            return super()._one(request, on_completion)

    store, journal = world(tmp_path, groups=20)
    run(store, journal, WordTeacher())
    broken = Failing()
    broken.calls = 500
    report, events = run(store, journal, broken, FAST.model_copy(update={"seed": 1}))
    assert events["canary"] == {"model": "words", "asked": 0, "flipped": 0, "warning": None}
    assert not any("changed" in w for w in report.warnings)
