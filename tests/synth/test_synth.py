"""Synthesis: thin cells, drafts by four methods, each screen alone, and what reaches the store."""

import json
from collections import Counter
from dataclasses import replace

import pytest

from benchmarks.judging import judge, session
from piar.judging.outcome import Progress
from piar.llm.base import Completion, Usage
from piar.llm.cost import Budget
from piar.offline.teacher import RulebookClient
from piar.shop.world import make_shop
from store.db import Store
from store.errors import PiarError, UsageError
from store.importers import ImportMapping, import_files
from store.journal import Journal
from store.types import Trace, Verdict
from synth import SynthSettings, synthesize
from synth.drafts import METHODS, Draft, Parent, Target, Want
from synth.generate import ByModel, read_samples
from synth.offline import Neighbours, Offline
from synth.screen import (
    Evidence,
    Match,
    agreement,
    diversity,
    duplicate,
    leak,
    near_duplicate,
    rule_fires,
    schema,
    status,
)
from synth.targets import find_parents, find_targets, make_cited

WORLD = make_shop(500, 3)
TASK, ORACLE = WORLD.task, WORLD.oracle
SETTINGS = SynthSettings(n=24, thin=4, buckets=("mid",), votes=2)
TARGET = Target("R02", "0", "mid", 1, 3)
PARENT = Parent("p", "red mouse", {"query": "red mouse", "title": "Rasko Red Mouse"}, "3", "R25", ("Red Mouse",))


def draft(fields=None, parent=PARENT) -> Draft:
    return Draft(fields or {"query": "red mouse", "title": "Rasko Red Toy Mouse"}, TARGET, "contrast", parent)


def said(*answers: tuple[str | None, tuple[str, ...]]) -> tuple[Verdict, ...]:
    return tuple(
        Verdict("k", "s", "teacher:t", "i", n, grade, trace=Trace(grade, rules=rules) if grade else None)
        for n, (grade, rules) in enumerate(answers)
    )


@pytest.fixture
def shop(tmp_path):
    """A judged shop whose rare rules are thinned to one training sample each."""
    store = Store.create(tmp_path / "piar.duckdb", TASK)
    WORLD.pairs.write_csv(tmp_path / "pairs.csv")
    mapping = ImportMapping(fields={"query": "query", "title": "title"}, gold="grade", group="query")
    import_files(store, [tmp_path / "pairs.csv"], mapping, "import-1", 0)
    journal = Journal(tmp_path / "journal")
    judge(store, RulebookClient(), ORACLE, store.samples("train"), journal=journal)
    yield store, journal
    journal.close()


# -- screens, each alone --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("fields", "passes"),
    [
        ({"query": "a b", "title": "c"}, True),
        ({"query": "a"}, False),
        ({"query": "a", "title": "b", "grade": "3"}, False),
        ({"query": "a", "title": 3}, False),
        ({"query": "a", "title": ""}, False),
        ({"query": "a", "title": "…"}, False),
        ({"query": "a", "title": "..."}, False),
        ({"query": "a", "title": "b\x07"}, False),
        ({"query": "a", "title": "x" * 30_000}, False),
    ],
)
def test_schema_wants_exactly_the_fields_as_plain_text(fields, passes):
    passed, reason = schema(draft(fields), Evidence(), TASK, SETTINGS)
    assert passed is passes
    assert passed or reason.startswith("schema")


@pytest.mark.parametrize(
    ("screen", "evidence", "reason"),
    [
        (duplicate, Evidence(), ""),
        (duplicate, Evidence(repeats=True), "duplicate"),
        (duplicate, Evidence((Match("s", "train", "0", 1.0),)), "duplicate"),
        (duplicate, Evidence((Match("s", "train", "0", 0.9),)), ""),
        (leak, Evidence((Match("s", "train", "0", 1.0),), "train"), ""),
        (leak, Evidence((Match("s", "test", "0", 0.9),)), "leak: near a closed sample"),
        (leak, Evidence(group_split="dev"), "leak: group of a closed split"),
        (near_duplicate, Evidence((Match("s", "train", "0", 0.9),)), "near duplicate"),
        (near_duplicate, Evidence((Match("s", "train", "3", 0.9),)), ""),
        (agreement, Evidence(verdicts=said(("0", ("R02",)), ("0", ("R02",)))), ""),
        (agreement, Evidence(verdicts=said(("0", ("R02",)), ("1", ("R06",)))), "teacher disagrees"),
        (agreement, Evidence(verdicts=said((None, ()))), "teacher disagrees"),
        (agreement, Evidence(), "teacher disagrees"),
        (rule_fires, Evidence(verdicts=said(("0", ("R02",)))), ""),
        (rule_fires, Evidence(verdicts=said(("0", ("R01",)))), "another rule decides"),
        (rule_fires, Evidence(verdicts=said(("0", ("R02", "R01")))), "another rule decides"),
        (diversity, Evidence(siblings=2), ""),
        (diversity, Evidence(siblings=3), "too many of one parent"),
    ],
)
def test_each_screen_answers_with_its_reason(screen, evidence, reason):
    assert screen(draft(), evidence, TASK, SETTINGS) == (not reason, reason)


def test_a_split_teacher_makes_a_draft_borderline():
    split = Evidence(verdicts=said(("0", ("R02",)), ("1", ("R06",))))
    assert status(draft(), split, "teacher disagrees", SETTINGS) == "borderline"
    assert status(draft(), Evidence(verdicts=said(("1", ("R06",)))), "teacher disagrees", SETTINGS) == "dropped"
    assert status(draft(), split, "", SETTINGS) == "kept"


# -- targets --------------------------------------------------------------------------------------


def test_targets_are_thin_cells_of_rare_rules_first(shop):
    store, _ = shop
    with store.read() as con:
        make_cited(con, "teacher:rulebook", ORACLE.id)
        found = find_targets(con, ORACLE, SETTINGS)
        counts = dict(con.execute("select rule, count(*) from cited group by rule").fetchall())
        parents = find_parents(con, store)
    assert sum(t.wanted for t in found) > SETTINGS.n >= max(t.wanted for t in found)
    assert [counts.get(t.rule, 0) for t in found] == sorted(counts.get(t.rule, 0) for t in found)
    assert all(t.have + t.wanted <= SETTINGS.thin for t in found)
    assert {p.rule for p in parents} <= {r.id for r in ORACLE.rules}


@pytest.mark.parametrize(
    ("sql", "words"),
    [
        ("select 1 as rule", "grade"),
        ("selec", "--targets"),
        ("select 'R99' as rule, '0' as grade, 1 as wanted", "R99"),
        ("select 'R02' as rule, '3' as grade, 1 as wanted", "R02"),
    ],
)
def test_a_wrong_query_for_targets_is_said(shop, sql, words):
    store, _ = shop
    with store.read() as con:
        make_cited(con, "teacher:rulebook", ORACLE.id)
        with pytest.raises(UsageError, match=words):
            find_targets(con, ORACLE, SETTINGS, sql)


# -- drafts ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", METHODS)
def test_offline_drafts_are_new_repeatable_and_have_the_fields(shop, method):
    store, _ = shop
    with store.read() as con:
        make_cited(con, "teacher:rulebook", ORACLE.id)
        parents = find_parents(con, store)
    [drafts] = Offline(TASK, ORACLE, parents, seed=1).propose([Want(TARGET, method, 15)])
    texts = [tuple(d.fields.values()) for d in drafts]
    assert 1 <= len(texts) == len(set(texts)) <= 15
    assert not set(texts) & {tuple(p.fields.values()) for p in parents if p in [d.parent for d in drafts]}
    assert texts == [
        tuple(d.fields.values()) for d in Offline(TASK, ORACLE, parents, seed=1).propose([Want(TARGET, method, 15)])[0]
    ]


def test_words_are_exchanged_and_put_in_where_the_store_has_seen_them():
    titles = ["Acme AB1 Red Wool Rug", "Acme AB2 Blue Wool Rug", "Acme AB3 Blue Steel Lamp", "Toy Acme AB4 Red Rug"]
    seen = Neighbours(titles)
    assert seen.substitutes(["Acme", "XY9", "Red", "Wool", "Rug"], 2) == ["Blue"]  # an unknown model is a model
    assert seen.substitutes(["Acme", "AB1", "Red", "Wool", "Rug"], 1) == []  # no model is invented
    assert seen.substitutes(["Acme", "AB1", "Red", "Wool", "Rug"], 4) == []
    assert seen.places(["Acme", "AB1", "Red", "Wool", "Rug"], "toy") == [0]
    assert seen.places(["Acme", "AB1"], "voucher") == [0, 1, 2]  # never seen: anywhere


class Writer:
    """A model that answers with what it is told to, and remembers what it was asked."""

    model = "writer"

    def __init__(self, text: str) -> None:
        self.text, self.asked = text, []

    def generate(self, requests, on_completion=None):
        self.asked += requests
        answers = [Completion(r.key, self.model, self.text, usage=Usage(10, 0, 10), cost_usd=0.01) for r in requests]
        for answer in answers:
            if on_completion:
                on_completion(answer)
        return answers


@pytest.mark.parametrize("method", METHODS)
def test_a_model_is_shown_rule_grade_and_samples_and_its_json_is_read(method):
    writer = Writer(json.dumps({"samples": [{"query": "q", "title": "t"}, {"query": 3}]}))
    other = Parent("o", "g", {"query": "{{ 7 * 7 }}", "title": "x"}, "0", "R02", ())
    proposer = ByModel(writer.model, TASK, ORACLE, [PARENT, other], ask=writer.generate)
    [drafts] = proposer.propose([Want(TARGET, method, 4)])
    prompt = writer.asked[0].messages[0].content
    assert ORACLE.rule("R02").text in prompt
    assert ("{{ 7 * 7 }}" if method != "contrast" else "Rasko Red Mouse") in prompt
    assert [dict(d.fields) for d in drafts] == [{"query": "q", "title": "t"}, {"query": 3}]
    asked = writer.asked[0].schema["properties"]["samples"]
    assert (asked["items"]["required"], asked["minItems"], asked["maxItems"]) == (["query", "title"], 4, 4)


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ('{"samples": [{"a": "1"}, {"a": "2"}, {"a": "3', 2),  # it broke off
        ('Here they are:\n```json\n{"samples": [{"a": "1"}]}\n```\nAnd more:\n[{"a": "2"}, {"a": "3"}]', 3),
        ('{"a": "1"}\n{"a": "2"}', 2),  # one a line
        ('{"samples": [{"a": "{"}, {"a": "}"} {"a": "3"}]}', 3),  # a comma is missing
    ],
)
def test_what_is_whole_of_an_answer_is_read(text, found):
    assert [item["a"] for item in read_samples(text)] == ["1", "2", "3"][:found] or '"{"' in text
    assert len(read_samples(text)) == found


def test_many_drafts_are_asked_in_parts_and_together():
    batches = []

    def ask(requests):
        batches.append([r.key for r in requests])
        return [Completion(r.key, "m", json.dumps({"samples": [{"query": r.key, "title": "t"}] * 9})) for r in requests]

    parents = [replace(PARENT, grade="0", rule="R02", fields={"query": f"q{n}", "title": "t"}) for n in range(9)]
    wants = [Want(TARGET, method, 20) for method in METHODS]
    found = ByModel("m", TASK, ORACLE, [PARENT, *parents], ask=ask).propose(wants)
    assert [len(drafts) for drafts in found] == [20] * 4
    assert [len(batch) for batch in batches] == [20]
    assert len(set(batches[0])) == 20
    assert len({draft.parent.fields["query"] for draft in found[METHODS.index("paraphrase")]}) > 1


@pytest.mark.parametrize(
    "text", ["", "no json", "[1, 2]", '{"samples": 3}', '{"samples": ["a"]}', "[" * 5000, '{"a":' * 3000]
)
def test_answers_that_are_no_samples_give_none(text):
    assert read_samples(text) == []


# -- the whole walk -------------------------------------------------------------------------------


def test_thin_cells_fill_and_nothing_reaches_closed_splits(shop):
    store, journal = shop
    closed = store.frame(
        "select * exclude (created_at) from samples where split in ('dev', 'holdout', 'test') order by all"
    )
    heard = list[Progress]()
    report = synthesize(session(store, RulebookClient(), journal, on_progress=heard.append), ORACLE, SETTINGS)
    assert 0 == heard[0].done < heard[-1].done <= report.asked
    made = store.frame(
        "select s.*, y.rule, y.grade from samples s join synthesis y using (sample_id) where status = 'kept'"
    )
    assert SETTINGS.n >= report.kept == len(made) >= SETTINGS.n / 3
    assert set(made["split"]) == {"train"}
    assert set(made["origin"]) == {"synthetic"}
    assert made["parent_id"].null_count() == 0
    counts = Counter(store.frame("select status from synthesis")["status"])
    assert counts["kept"] + counts["dropped"] + counts["borderline"] == report.asked
    assert counts["dropped"] == report.dropped.total()
    after = store.frame(
        "select * exclude (created_at) from samples where split in ('dev', 'holdout', 'test') order by all"
    )
    assert after.equals(closed)
    groups = set(closed["group_key"])
    assert not groups & set(made["group_key"])
    verdicts = store.frame("select sample_id, grade, rules from verdict where vote = 0")
    joined = made.join(verdicts, on="sample_id", suffix="_said")
    assert (joined["grade"] == joined["grade_said"]).all()
    assert (joined["rules"].list.first() == joined["rule"]).all()
    again = synthesize(session(store, RulebookClient(), journal, run_id="synth-2"), ORACLE, SETTINGS)
    assert store.frame("select count(*) - count(distinct sample_id) from samples").item() == 0
    filled = {(t.rule, t.bucket) for t, kept in report.cells if kept == t.wanted}
    assert not filled & {(t.rule, t.bucket) for t, _ in again.cells}


def test_a_models_rubbish_is_dropped_with_reasons_and_kept_for_reading(shop, monkeypatch):
    monkeypatch.setattr("synth.generate.EACH", 12)  # one answer
    store, journal = shop
    test = store.samples("test")[0]
    train = store.samples("train")[0]
    rubbish = [
        dict(test.fields),
        dict(train.fields),
        {"query": "x"},
        {"query": "x", "title": "'; drop table samples; --"},
    ]
    writer = Writer(json.dumps({"samples": rubbish}))
    settings = SynthSettings(n=1, thin=4, methods=("structured",), votes=1)
    sql = "select 'R02' as rule, '0' as grade, 1 as wanted"
    asked, writes = (session(store, client, journal) for client in (RulebookClient(), writer))
    report = synthesize(asked, ORACLE, settings, writer=writes, targets=sql)
    assert report.kept == 0
    assert report.dropped == {
        "leak: group of a closed split": 1,
        "duplicate": 1,
        "schema: other fields than the task's": 1,
        "another rule decides": 1,
    }
    assert store.frame("select count(*) from synthesis").item() == 4
    assert store.frame("select count(*), sum(cost_usd) from completions where role = 'synth'").row(0) == (1, 0.01)


CELL = "select 'R02' as rule, '0' as grade, 1 as wanted"


def written(shop, writer, run_id="s", budget=None):
    """Synthesis of one cell by a model that writes."""
    settings = SynthSettings(n=1, thin=4, methods=("structured", "paraphrase"), votes=1)
    store, journal = shop
    asked, writes = (session(store, c, journal, run_id=run_id, budget=budget) for c in (RulebookClient(), writer))
    return synthesize(asked, ORACLE, settings, writer=writes, targets=CELL)


def test_drafts_are_not_paid_for_twice(shop):
    writer = Writer('{"samples": [{"query": "x"}]}')
    assert written(shop, writer).kept == 0
    asked = len(writer.asked)
    assert written(shop, writer, "s2").kept == 0
    assert len(writer.asked) == asked > 0


def test_a_spent_budget_asks_for_no_drafts(shop):
    writer = Writer('{"samples": []}')
    assert written(shop, writer, budget=Budget(max_calls=0)).asked == 0
    assert not writer.asked


@pytest.mark.parametrize("text", ["I would rather not.", '{"samples": []}'])
def test_drafts_that_cannot_be_read_are_an_error_that_shows_them(shop, text):
    with pytest.raises(PiarError, match=r"none of . answers could be read") as caught:
        written(shop, Writer(text))
    assert text in caught.value.message


class Grader(Writer):
    """A model that writes a grade alone, always the same, and cites nothing; drafts when it is asked for them."""

    model = "grader"

    def generate(self, requests, on_completion=None):
        found = []
        for r in requests:
            drafts = [{"query": f"toy {r.key[:5]} {n}", "title": f"{r.key[:9]} {n}"} for n in range(4)]
            text = "0" if r.purpose == "judge" else json.dumps({"samples": drafts})
            found.append(Completion(r.key, self.model, text, {"0": 0.7, "3": 0.3} if r.grades else None))
            self.asked.append(r)
            if on_completion:
                on_completion(found[-1])
        return found


def test_where_the_teacher_cites_no_rules_cells_are_of_grades(shop):
    store, journal = shop
    client = Grader("")
    asked = session(store, client, journal)
    few = SynthSettings(n=200, thin=400, buckets=("mid",), votes=1, methods=("structured", "contrast"))
    report = synthesize(asked, ORACLE, few, writer=asked)
    assert [(t.rule, t.grade) for t, _ in report.cells] == [("", t.grade) for t, _ in report.cells]
    kept = {t.grade: kept for t, kept in report.cells}
    assert kept["0"] > 0 == sum(kept.values()) - kept["0"]
    assert set(report.dropped) <= {"teacher disagrees", "cell is full", "too many of one parent", "duplicate"}
    prompts = [r.messages[0].content for r in client.asked if r.purpose == "write"]
    assert all("# Rule" not in text and "right grade" in text for text in prompts)
    parents = store.frame(
        "select t.grade from synthesis y join truth t on t.sample_id = y.parent_id where y.method = 'structured' "
        "and y.grade <> t.grade"
    )
    assert parents.is_empty()
