"""Each way a search can end, told alike by the page's first heading, the terminal's first line and the JSON."""

import json
import re
from io import StringIO

import pytest
from rich.console import Console

from piar.cli.render.evolve import evolve_view
from piar.cli.render.show import candidate_view
from piar.evolve.ending import HEADLINES
from piar.evolve.ending import ended as ended_as
from piar.evolve.last_search import tried
from piar.evolve.ledger import record
from piar.evolve.results import EvolveReport
from piar.evolve.run import EvolveSettings, evolve
from piar.evolve.settings import PromotionSettings
from piar.query.show import candidate, difference
from piar.report.page import report
from store.errors import UsageError
from store.types import Instruction, Rule
from tests.worlds import SEED, WordReviser, WordTeacher, loop_models, world

KNOWING = Instruction(SEED.preamble, (Rule("R01", "the title has w2", "2"),))
PLAIN = EvolveSettings(rounds=1, kept_back=0, redraft="none")
GUARDED = PLAIN.model_copy(update={"promotion": PromotionSettings(min_support=10)})


class Saying(WordReviser):
    """Offers one candidate, or none."""

    def __init__(self, *operations):
        super().__init__()
        self.operations = operations

    def say(self, request):
        return json.dumps({"candidates": [{"operations": self.operations}] if self.operations else []})


def add(word, grade):
    return {"op": "add", "grade": grade, "text": f"the title has {word}"}


class Shaky(WordTeacher):
    """Says something else when it is asked the same again."""

    def __init__(self):
        super().__init__()
        self.asked = set()

    def say(self, request):
        told = super().say(request)
        again = request.messages in self.asked
        self.asked.add(request.messages)
        return "1" if again and not told.startswith("1") else "0" if again else told


def elsewhere(group, words, rng):
    """What w0 means in train and dev, it does not mean in holdout."""
    return "0" if "w0" in words and group % 5 != 3 else "1"


GAIN = (add("w0", "0"), add("w1", "0"))
ENDINGS = {
    "proposed": (SEED, Saying(*GAIN), WordTeacher, PLAIN, None),
    "refused by test": (SEED, Saying(add("w0", "0")), WordTeacher, PLAIN, elsewhere),
    "refused by guard": (KNOWING, Saying(*GAIN, {"op": "drop", "rule": "R01"}), WordTeacher, GUARDED, None),
    "refused by audit": (SEED, Saying(*GAIN), Shaky, PLAIN, None),
    "nothing found": (SEED, Saying(), WordTeacher, PLAIN, None),
    "budget spent": (SEED, Saying(*GAIN), WordTeacher, PLAIN.model_copy(update={"max_calls": 412}), None),
}


def shown(view):
    out = StringIO()
    Console(file=out, width=400, markup=False, highlight=False).print(view)
    return out.getvalue()


def heading(store, folder, current):
    page = report(store, folder / "report.html", current=current)
    text = page.path.read_text()
    assert re.search(r"<h1>(.*?)</h1>", text, re.S)[1] == page.headline
    return page.headline, text


@pytest.fixture(scope="module")
def ended(request, tmp_path_factory):
    seed, reviser, teacher, settings, truth = ENDINGS[request.param]
    groups = 60 if seed is SEED else 120  # losing a whole grade takes more rows to be outweighed
    store, journal = world(tmp_path_factory.mktemp("ended"), groups=groups, truth=truth)
    found, standing = evolve(store, loop_models(teacher(), reviser), seed, settings, journal=journal)
    journal.close()
    return request.param, store, found, standing, seed


@pytest.mark.parametrize("ended", ENDINGS, indirect=True)
def test_page_terminal_and_json_say_what_was_decided(ended, tmp_path):
    ending, store, found, standing, seed = ended
    document = found.model_dump(mode="json")
    assert (document["ending"], bool(document["proposal"])) == (ending, ending == "proposed")
    assert document["headline"].startswith(HEADLINES[ending])
    lines = shown(evolve_view(found, accepted=False))
    assert lines.splitlines()[0].strip() == document["headline"]
    assert document["advice"] in lines
    first, text = heading(store, tmp_path, seed)
    if ending == "proposed":
        assert re.search(r"The proposed instruction is right \d+\.\d points more often than the one in force", first)
    else:
        assert first == document["headline"]
        assert "more often" not in text
        assert standing.id == seed.id
        assert "in force</span>" in text  # the mark in the list of versions
    assert ("label more groups" in document["advice"]) == (ending == "refused by test")


@pytest.mark.parametrize("ended", [e for e in ENDINGS if e.startswith("refused")], indirect=True)
def test_a_refused_candidate_is_there_as_refused_and_says_why(ended, tmp_path):
    ending, store, found, _, seed = ended
    (tested,) = found.promotions
    told = candidate(store)
    assert (told.candidate, told.state, told.against) == (tested["candidate"], "refused", seed.id)
    view = shown(candidate_view(told, difference(store, seed, store.instruction(told.candidate)), store.task))
    assert "refused by piar" in view
    assert tested["reason"] in view
    _, text = heading(store, tmp_path, seed)
    assert "The candidate that was refused" in text
    table = shown(evolve_view(found, accepted=False)).splitlines()[1:4]
    assert "refused" in table[0]
    assert f"{100 * tested['gain']['mean']:+.1f}" in table[1]
    assert "–" in table[2]  # test was not opened for it
    if ending == "refused by guard":
        assert "grade 2 (" in found.headline
        assert "is harmed" in view
        assert "is harmed" in text


@pytest.mark.parametrize("ended", ["proposed"], indirect=True)
def test_what_people_decide_is_what_the_page_says(ended, tmp_path):
    _, store, found, standing, seed = ended
    assert tried(store).state == "waits"
    record(store, "rejection", standing.id, seed.id, "rejected", "rejected by Ada", {}, "Ada", "r1")
    first, text = heading(store, tmp_path, seed)
    assert first == "No change: the proposal was rejected by Ada"
    assert "The proposal that was rejected" in text
    edited = Instruction(standing.preamble, (*standing.rules, Rule("R09", "the title has w5", "0")), parent=standing.id)
    store.put_instruction(edited, "r2")
    record(store, "acceptance", edited.id, seed.id, "accepted", "accepted by Ada", {}, "Ada", "r2")
    page = report(store, tmp_path / "report.html", current=edited)
    assert page.headline.startswith("The instruction accepted last is right")
    assert edited.id in page.detail
    record(store, "acceptance", standing.id, seed.id, "accepted", "accepted by Ada", {}, "Ada", "r3")
    first, _ = heading(store, tmp_path, standing)
    assert re.search(
        r"The instruction in force is right \d+\.\d points more often than the one you started with", first
    )
    assert found.advice.startswith("piar show proposal")


@pytest.mark.parametrize("ended", ["refused by guard"], indirect=True)
def test_an_edit_since_the_decision_is_told(ended, tmp_path):
    _, store, _, _, seed = ended
    edited = Instruction(seed.preamble, (*seed.rules, Rule("R02", "the title has w5", "0")))
    page = report(store, tmp_path / "report.html", current=edited)
    assert f"That was not {edited.id}, which is in force" in page.detail


@pytest.mark.parametrize("ended", ["proposed", *(e for e in ENDINGS if e.startswith("refused"))], indirect=True)
def test_reports_that_earlier_versions_kept_are_told_alike(ended):
    ending, _, found, _, _ = ended
    old = found.model_dump(mode="json", exclude={"ending", "headline", "detail", "advice"})
    for tested in old["promotions"]:
        del tested["refused_by"], tested["accuracy"]
        for guard in tested["guards"]:
            del guard["note"]
    assert ended_as(old).ending == ending
    assert "passed" in shown(evolve_view(EvolveReport.model_validate(old), accepted=False))


def test_an_instruction_without_errors_is_told_from_a_search_that_failed(tmp_path):
    store, journal = world(tmp_path, groups=20, noise=0, truth=lambda *_: "1")
    found, _ = evolve(store, loop_models(WordTeacher(), Saying()), SEED, PLAIN, journal=journal)
    journal.close()
    assert (found.ending, found.errors) == ("nothing found", 0)
    assert "makes no error" in found.detail
    assert "nothing to gain" in found.advice


def test_nobody_was_tested_yet(tmp_path):
    store, journal = world(tmp_path, groups=10)
    journal.close()
    with pytest.raises(UsageError, match="No candidate has met"):
        candidate(store)


def test_a_gain_of_one_grade_for_all_over_another_is_called_that(tmp_path):
    store, journal = world(tmp_path, groups=60, truth=lambda _, words, rng: "2" if "w0" in words else "1")
    everything = Saying(*(add(f"w{i}", "1") for i in range(8)))
    found, _ = evolve(store, loop_models(WordTeacher("2"), everything), SEED, PLAIN, journal=journal)
    assert found.proposal  # it is a gain
    assert any('not shown to be better than giving "1" to every row' in warning for warning in found.warnings)


@pytest.mark.parametrize("ended", ["proposed"], indirect=True)
def test_a_proposal_that_beats_every_constant_is_not(ended):
    assert not any("to every row" in warning for warning in ended[2].warnings)
