"""Labelling in part: what an edit can touch is asked, flips of the rest are counted, nothing kept is an answer."""

from dataclasses import replace

import pytest
from worlds import fill

from piar.judging.labeller import Batch, Labeller
from piar.offline.teacher import RulebookClient
from piar.partial import KEPT, label_since
from store.errors import UsageError
from store.types import Instruction, Rule

WORDS = ("zuzu", "lamo", "piri", "tego")
OLD = Instruction(
    "Grade it.",
    (Rule("R01", 'The title contains "zuzu".', "2"), Rule("R02", 'The title contains "lamo".', "1"),
     Rule("R03", "Otherwise.", "0")),
)  # fmt: skip
NEW = replace(OLD, rules=(OLD.rules[0], Rule("R02", 'The title contains "piri".', "1"), OLD.rules[2]))


class Moody(RulebookClient):
    """Changes its mind about one word in five once the instruction is another."""

    def generate(self, requests, on_completion=None):
        def moody(completion):
            flips = "piri" in prompts[completion.key].messages[0].content and int(completion.key[:2], 16) % 5 == 0
            return replace(completion, text="2\nrules: R01\nverdict: 2") if flips else completion

        prompts = {r.key: r for r in requests}
        found = [moody(c) for c in super().generate(requests)]
        for completion in found:
            on_completion(completion)
        return found


@pytest.fixture
def labelled(tmp_path):
    rows = [(f"q{i % 40}", f"{WORDS[i % 4]} n{i}", ("train", "pool")[i % 2], None) for i in range(400)]
    store, journal = fill(tmp_path, rows)
    return store, journal, store.samples()


def labeller(store, journal, client=None, run="r"):
    return Labeller(store, client or RulebookClient(), journal, run_id=run)


def under_old(store, journal, samples, client=None):
    with labeller(store, journal, client) as made:
        made.judge([Batch(OLD, samples)])


def grades(store, instruction):
    rows = store.frame("select sample_id::varchar, grade from verdict where instruction = ?", [instruction.id]).rows()
    return dict(rows)


def test_only_rows_that_the_edit_can_touch_are_asked_and_a_part_of_the_rest(labelled):
    store, journal, samples = labelled
    under_old(store, journal, samples)
    with labeller(store, journal, run="part") as made:
        found = label_since(made, OLD, NEW, samples, again=50)
    assert (found.asked, found.again, found.kept, found.unread) == (200, 50, 150, ())  # "lamo" and "piri"
    assert (found.flipped, found.flip_rate.value) == (0, 0.0)
    assert 0.05 < found.flip_rate.high < 0.2  # no flip in some thirty groups does not mean never
    partly = grades(store, NEW)
    with labeller(store, journal, run="all") as made:
        report = made.judge([Batch(NEW, samples)])
    assert (report.asked, report.cached) == (150, 250)  # what was kept is no answer
    assert partly == grades(store, NEW)
    with labeller(store, journal, run="again") as made:
        assert label_since(made, NEW, replace(NEW, preamble="Grade it now."), samples, again=5).asked == 400


def test_a_teacher_that_changes_its_mind_is_found_out(labelled):
    store, journal, samples = labelled
    under_old(store, journal, samples, Moody())
    with labeller(store, journal, Moody(), run="part") as made:
        found = label_since(made, OLD, NEW, samples, again=150)
    assert found.again == 150
    assert 0.05 < found.flip_rate.value < 0.25
    assert found.flip_rate.low < found.flip_rate.value < found.flip_rate.high


def test_kept_grades_are_not_kept_again(labelled):
    store, journal, samples = labelled
    under_old(store, journal, samples)
    with labeller(store, journal, run="part") as made:
        label_since(made, OLD, NEW, samples, again=10)
        newer = replace(NEW, rules=(*NEW.rules[:2], Rule("R04", 'The title contains "tego".', "2"), NEW.rules[2]))
        found = label_since(made, NEW, newer, samples, again=10)
    assert found.asked >= 190  # those that were only kept, and what the new rule touches
    kept = store.frame("select count(*) from verdicts where instruction = ? and starts_with(key, ?)", [newer.id, KEPT])
    assert kept.item() == found.kept


def test_a_rule_that_cannot_be_followed_may_touch_every_row(labelled):
    store, journal, samples = labelled
    under_old(store, journal, samples)
    vague = replace(OLD, rules=(Rule("R09", "It feels cheap to an expert.", "0"), *OLD.rules))
    with labeller(store, journal, run="part") as made:
        found = label_since(made, OLD, vague, samples, again=10)
    assert (found.asked, found.kept, found.unread, found.flip_rate.value) == (400, 0, ("R09",), None)


def test_it_refuses_closed_splits_and_to_look_away(labelled):
    store, journal, samples = labelled
    with labeller(store, journal) as made:
        with pytest.raises(UsageError, match="rest on what was asked"):
            label_since(made, OLD, NEW, [replace(samples[0], split="holdout")], again=10)
        with pytest.raises(UsageError, match="hides what changed"):
            label_since(made, OLD, NEW, samples, again=0)
