"""One model name at two endpoints: verdicts of one are not taken for answers of the other, and that is said."""

import json
import warnings

import pytest

from benchmarks.judging import session
from piar.evolve.run import identity
from piar.evolve.settings import EvolveSettings
from piar.judging.ask_once import ask_once
from piar.judging.labeller import Labeller
from piar.judging.origin import Origin
from piar.judging.requests import Assignment
from piar.llm.base import Message, Request
from piar.llm.settings import ModelSettings
from store.db import Store
from store.journal import Journal
from tests.judging.test_label import INSTRUCTION, TASK, Scripted, samples
from tests.worlds import loop_models

A, B = "https://a.example/v1", "https://b.example/v1"


class World:
    """One project whose teacher's endpoint can be changed."""

    def __init__(self, folder):
        self.store, self.journal = Store.create(folder / "s.duckdb", TASK), Journal(folder / "journal")
        self.client, self.news = Scripted(cost=0.5), []

    def asked(self, url, *, reuse=False, served_by="", dry=False):
        """How many requests labelling three rows takes at an endpoint."""
        model = ModelSettings(model="openai:scripted", base_url=url, served_by=served_by)
        before = len(self.client.asked)
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            asking = session(self.store, self.client, self.journal, model=model)
            with Labeller(asking, reuse=reuse) as labeller:
                assignment = [Assignment(INSTRUCTION, samples(3))]
                found = len(list(labeller.agenda.pending(assignment))) if dry else labeller.judge(assignment).asked
        self.news = [str(warning.message) for warning in caught]
        assert dry or found == len(self.client.asked) - before
        return found


@pytest.fixture
def world(tmp_path):
    world = World(tmp_path)
    yield world
    world.journal.close()


def test_another_endpoint_is_asked_anew_and_told_once(world):
    assert (world.asked(A), world.news) == (3, [])
    assert world.asked(B, dry=True) == 3
    assert world.asked(B) == 3
    [news] = world.news
    assert f"at {B} (https://b.example) now, and was at {A}" in news
    assert "3 verdicts of teacher:scripted are not taken for its answers" in news
    assert "asked anew, for about $1.50" in news
    assert (world.asked(B), world.news) == (0, [])
    assert world.asked(A) == 0  # the first one's verdicts are still its own
    assert "still hold" in world.news[0]


def test_a_person_may_say_that_both_are_the_same(world):
    assert world.asked(A) == 3
    assert world.asked(B, reuse=True) == 0
    assert "still hold" in world.news[0]
    assert world.asked(B) == 0  # from then on


def test_a_dry_run_may_take_both_for_the_same_and_notes_nothing(world):
    assert world.asked(A) == 3
    assert world.asked(B, reuse=True, dry=True) == 0
    assert world.asked(B) == 3


@pytest.mark.parametrize("served_by", ["", "https://a.example"])
def test_what_a_reviser_wrote_elsewhere_is_no_answer_here(world, served_by):
    def written(url, served_by=""):
        model = ModelSettings(model="openai:scripted", base_url=url, served_by=served_by)
        origin, before = Origin(world.store, "reviser:scripted", model, "answers"), len(world.client.asked)
        request = Request("k", (Message("user", "{}"),))
        ask_once(
            session(world.store, world.client, world.journal, model=model), [request], role="reviser", origin=origin
        )
        world.journal.fold(world.store)
        return len(world.client.asked) - before

    assert (written(A), written(A)) == (1, 0)
    with pytest.warns(UserWarning, match="1 answers of reviser:scripted") as told:
        assert written(B, served_by) == (0 if served_by else 1)
    assert served_by or 'for about $0.50. If the model is the same, `served_by = "https://a.example"`' in str(told[0])
    assert written(B, served_by) == 0


def test_a_search_that_was_cut_off_does_not_go_on_at_another_endpoint(world):
    def identified(url, **kinds):
        settings = {
            role: ModelSettings(model="openai:scripted", base_url=kinds.get(role, url))
            for role in ("teacher", "reviser")
        }
        models = loop_models(world.client, world.client, settings["teacher"], settings["reviser"])
        return identity(world.store, models, INSTRUCTION, EvolveSettings())

    before = identified(A)
    assert world.asked(A) == 3
    assert identified(A) == before
    assert identified(B)["teacher"] == "scripted at https://b.example"
    assert identified(B, teacher=A) == before  # the reviser was not asked yet


def test_another_port_of_this_machine_is_the_same_aloud(world):
    assert world.asked("http://127.0.0.1:8000/v1") == 3
    assert world.asked("http://localhost:8001/v1") == 0
    assert "3 verdicts of teacher:scripted still hold" in world.news[0]
    assert world.asked("http://localhost:8001/v1", served_by="the quantised one") == 3
    assert "not taken for its answers" in world.news[0]


def test_another_port_or_path_of_a_host_is_the_same(world):
    assert world.asked(A) == 3
    assert world.asked("https://a.example:8443/openai/v1") == 0


def test_verdicts_of_before_are_taken_to_be_from_the_endpoint_that_is_asked_first(world):
    assert world.asked(A) == 3
    with world.store.write() as con:
        con.execute("delete from meta where key like 'origins of %'")
    assert world.asked(B) == 0
    assert "taken to be from https://b.example" in world.news[0]
    assert (world.asked(B), world.news) == (0, [])


def test_what_is_noted_is_data(world):
    world.asked(A, served_by="x'); drop table verdicts; --")
    [(value,)] = world.store.frame("select value from meta where key = 'origins of teacher:scripted'").rows()
    assert json.loads(value)["same"] == ["x'); drop table verdicts; --"]
