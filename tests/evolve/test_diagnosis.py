"""A reviser that reads is asked for causes first, and is shown its own findings; one that counts never is."""

import json

import pytest

from piar.evolve.reviser import Diagnosis, read_diagnoses
from piar.evolve.run import EvolveSettings, evolve
from piar.evolve.settings import RevisionSettings
from store.types import Completion
from tests.worlds import SEED, WordReviser, WordTeacher, loop_models, world

FAST = EvolveSettings(rounds=1, revision=RevisionSettings(candidates=2))


class Reader(WordReviser):
    """Answers like a language model that was asked for causes, then for edits."""

    model = "reader"
    simulated = False

    def __init__(self):
        super().__init__()
        self.shown = []

    def say(self, request):
        if request.messages[0].content.startswith("You find out why"):
            return "Let me see.\n" + json.dumps(
                {"diagnoses": [
                    {"cause": "knowledge", "errors": [0], "finding": "No rule knows w0."},
                    {"cause": "suspect", "errors": [1], "finding": "People are divided."},
                    {"cause": "boredom", "finding": "?"},
                    {"cause": "knowledge", "errors": [2], "finding": "one plain sentence"},
                ]}
            )  # fmt: skip
        self.shown.append(json.loads(request.messages[-1].content))
        return super().say(request)


def run(tmp_path, reviser, settings=FAST):
    store, journal = world(tmp_path, groups=30)
    events = []
    report, _ = evolve(
        store, loop_models(WordTeacher(), reviser), SEED, settings, journal=journal, on_event=events.append
    )
    return report, events


def test_the_findings_reach_the_reviser_and_what_is_suspect_does_not(tmp_path):
    reviser = Reader()
    report, events = run(tmp_path, reviser)
    assert reviser.shown
    assert all(s["diagnosis"] == ["knowledge, evidence 0: No rule knows w0."] for s in reviser.shown)
    assert reviser.calls == 2 * len(reviser.shown)
    found = [e.detail["findings"] for e in events if e.kind == "diagnosed"]
    assert len(found[0]) == 2 * len(reviser.shown)
    assert report.calls >= reviser.calls
    assert any("more" in h or "wrong" in h or "share" in h for s in reviser.shown for h in s["hints"])


def test_it_can_be_turned_off(tmp_path):
    reviser = Reader()
    run(tmp_path, reviser, FAST.model_copy(update={"revision": RevisionSettings(candidates=2, diagnose="none")}))
    assert reviser.calls == len(reviser.shown)
    assert all(s["diagnosis"] == [] for s in reviser.shown)


@pytest.mark.parametrize("text", [None, "no idea", "{}", '{"diagnoses": 3}', '{"diagnoses": [{"cause": "x"}, 7]}'])
def test_an_answer_that_cannot_be_read_is_no_finding(text):
    assert read_diagnoses(Completion("k", "m", text)) == []


def test_a_finding_is_one_line():
    said = Diagnosis(cause="routing", finding="R02 \n comes first.", errors=(1, 2), rule="R02").sentence()
    assert said == "routing (rule R02), evidence 1, 2: R02 comes first."
