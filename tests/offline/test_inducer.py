"""The offline reviser: readable rules from shown evidence, supported by several groups, nothing memorised."""

import json
import random
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.judging import judge_messages
from piar.instructions.prompts import judge_prefix
from piar.instructions.revision_schema import (
    EvidenceItem,
    GradeShown,
    RevisionAnswer,
    RevisionBudget,
    RevisionRequest,
    RuleShown,
)
from piar.llm.base import Message, Request
from piar.offline.grammar import parse, sentence
from piar.offline.reviser import answer_revision
from piar.offline.teacher import RulebookClient
from piar.shop.world import make_shop
from store.types import Rule

WORLD = make_shop(1500, seed=9)
GRADES = tuple(GradeShown(symbol=g.symbol, name=g.name, value=g.value) for g in WORLD.task.grades)
CLIENT = RulebookClient()


def shown(frame, grade):
    return tuple(
        EvidenceItem(fields={"query": q, "title": t}, truth=g, group=q)
        for q, t, g in frame.select("query", "title", grade).rows()
    )


def request(evidence, rules=None, **more):
    rules = tuple(RuleShown(id=r.id, text=r.text, grade=r.grade) for r in WORLD.seed.rules) if rules is None else rules
    return RevisionRequest(grades=GRADES, rules=rules, evidence=evidence, **more)


def revise(asked):
    messages = (Message("system", "Improve the rules."), Message("user", asked.model_dump_json()))
    completion = CLIENT.generate([Request("k", messages)])[0]
    return RevisionAnswer.model_validate_json(completion.text).candidates


def applied(rules, operations):
    """The rules after the operations, written for this test."""
    rules = list(rules)
    for number, op in enumerate(operations):
        at = next((i for i, r in enumerate(rules) if r.id == op.rule), None)
        if op.op == "edit":
            rules[at] = Rule(op.rule, op.text, op.grade)
            continue
        moved = Rule(f"N{number}", op.text, op.grade) if op.op == "add" else rules.pop(at)
        if op.op != "drop":
            before = next((i for i, r in enumerate(rules) if r.id == op.before), len(rules))
            rules.insert(before, moved)
    return tuple(rules)


def accuracy(rules, frame, truth):
    prompt = judge_prefix(WORLD.task, replace(WORLD.seed, rules=rules))
    pairs = frame.select("query", "title").to_dicts()
    answers = CLIENT.generate([Request("k", judge_messages(prompt, p), WORLD.task.symbols) for p in pairs])
    return sum(a.text[0] == t for a, t in zip(answers, truth, strict=True)) / len(truth)


QUERIES = sorted(set(WORLD.pairs["query"]))
SHOWN = set(QUERIES[::2])
TRAIN = WORLD.pairs.filter(WORLD.pairs["query"].is_in(SHOWN))
REST = WORLD.pairs.filter(~WORLD.pairs["query"].is_in(SHOWN))
REST_TRUE = WORLD.answers.filter(~WORLD.pairs["query"].is_in(SHOWN))["true_grade"].to_list()
CANDIDATES = revise(request(shown(TRAIN, "grade"), candidates=2))


def test_one_revision_gains_on_queries_that_were_not_shown():
    """From evidence whose gold is wrong in 4 % of rows; measured against the truth on other queries."""
    before = accuracy(WORLD.seed.rules, REST, REST_TRUE)
    after = accuracy(applied(WORLD.seed.rules, CANDIDATES[0].operations), REST, REST_TRUE)
    assert after > before + 0.15


def test_induced_rules_are_sentences_that_read_back():
    for candidate in CANDIDATES:
        for op in candidate.operations:
            if op.op in ("add", "edit") and op.text != "Otherwise.":
                read = parse(op.text, ("query", "title"))
                assert read is not None, op.text
                assert sentence(read) == op.text


def test_operations_name_rules_that_exist_and_evidence_that_was_shown():
    known = {rule.id for rule in WORLD.seed.rules}
    for candidate in CANDIDATES:
        assert 0 < len(candidate.operations) <= RevisionBudget().max_operations
        for op in candidate.operations:
            assert op.rule in known or op.op == "add"
            assert op.before is None or op.before in known
            assert all(0 <= i < TRAIN.height for i in op.because)


def test_the_same_request_gets_the_same_answer():
    asked = request(shown(TRAIN.head(200), "grade"), candidates=2)
    assert revise(asked) == revise(asked)


def test_budgets_are_kept():
    budget = RevisionBudget(max_rules=5, max_operations=2, max_words=12)
    for candidate in revise(request(shown(TRAIN, "grade"), budget=budget, candidates=3)):
        assert len(candidate.operations) <= 2
        assert len(applied(WORLD.seed.rules, candidate.operations)) <= 5
        assert all(len(op.text.split()) <= 12 for op in candidate.operations)


def planted(groups, rows_each, seed=0, word="zubzub"):
    """Rows of which those with the word are 0 and the others 3."""
    rng = random.Random(seed)
    words = [f"word{c}" for c in "abcdefghijklmnop"]
    items = []
    for g in range(40):
        for i in range(6):
            marked = g < groups and i < rows_each
            title = " ".join([*rng.sample(words, 4), *([word] if marked else [])])
            items.append(EvidenceItem(fields={"query": f"query {g}", "title": title}, truth="0" if marked else "3",
                                      group=f"g{g}"))  # fmt: skip
    return tuple(items)


EVERYTHING = (RuleShown(id="R01", text="Otherwise.", grade="3"),)


def test_a_word_that_recurs_across_groups_becomes_a_rule():
    first = revise(request(planted(8, 2), EVERYTHING))[0]
    assert len(first.operations) == 1
    assert first.operations[0].text == 'The title contains "zubzub".'
    assert (first.operations[0].grade, first.operations[0].before) == ("0", "R01")


def test_a_word_of_one_group_does_not():
    candidates = revise(request(planted(1, 6), EVERYTHING, candidates=4))
    assert all("zubzub" not in op.text for c in candidates for op in c.operations)


def test_nothing_is_proposed_where_grades_have_nothing_to_do_with_the_text():
    """By the cautious plan: an edit must beat its own variance between groups."""
    rng = random.Random(4)
    items = tuple(replace_truth(item, rng.choice("03")) for item in planted(0, 0))
    bold = revise(request(items, EVERYTHING))
    texts = [op.text for c in bold for op in c.operations]
    assert len(texts) <= 3


def replace_truth(item, truth):
    return item.model_copy(update={"truth": truth})


@pytest.mark.parametrize(
    ("word", "groups", "found"),
    [("zubzub", 3, False), ("zubzub", 4, True), ("363", 6, False), ("363", 7, True), ("du", 6, False), ("du", 7, True)],
)
def test_a_word_needs_several_groups_and_a_number_more(word, groups, found):
    assert any(f'"{word}"' in text for text in told(planted(groups, 3, word=word))) == found


@pytest.mark.parametrize(("meaningless", "found"), [(3, True), (8, False)])
def test_a_word_must_mend_clearly_more_groups_than_it_breaks(meaningless, found):
    items = [
        item.model_copy(update={"truth": "3"}) if int(item.group[1:]) < meaningless and "zubzub" in item.fields["title"]
        else item for item in planted(8 + meaningless, 3)
    ]  # fmt: skip
    assert any('contains "zubzub"' in text for text in told(tuple(items))) == found


def told(items):
    return [op.text for c in revise(request(items, EVERYTHING)) for op in c.operations]


def test_disputed_samples_count_for_less():
    agreed = planted(4, 1)
    disputed = tuple(
        item.model_copy(update={"votes": {"0": 1, "3": 3}}) if item.truth == "0" else item for item in agreed
    )
    assert revise(request(agreed, EVERYTHING))
    assert not [op for c in revise(request(disputed, EVERYTHING)) for op in c.operations if "zubzub" in op.text]


def test_a_harmful_rule_is_dropped_or_mended():
    rules = (RuleShown(id="R01", text="The title has at least 1 word.", grade="0"),
             RuleShown(id="R02", text="Otherwise.", grade="3"))  # fmt: skip
    operations = revise(request(planted(0, 0), rules))[0].operations
    assert {(op.op, op.rule) for op in operations} <= {("drop", "R01"), ("edit", "R01")}
    assert operations


def test_rules_that_cannot_be_followed_are_left_alone():
    rules = (
        RuleShown(id="R01", text="The product is tasteful.", grade="0"),
        RuleShown(id="R02", text="Otherwise.", grade="3"),
    )
    for candidate in revise(request(planted(8, 2), rules, candidates=4)):
        assert all(op.rule != "R01" for op in candidate.operations)


@pytest.mark.parametrize(
    "data",
    [
        {"task": "revise", "evidence": []},
        {"task": "revise", "evidence": [1, 2], "grades": "x"},
        {"task": "revise", "evidence": [{"fields": {}, "truth": "0"}], "grades": [{"symbol": "0"}, {"symbol": "1"}]},
        {"task": "revise", "evidence": [{"fields": {"a": "b"}, "truth": "9"}], "grades": [{"symbol": "0"}]},
    ],
)
def test_a_request_with_nothing_to_learn_from_gets_no_candidates(data):
    completion = CLIENT.generate([Request("k", (Message("user", json.dumps(data)),))])[0]
    assert RevisionAnswer.model_validate_json(completion.text).candidates == ()


@settings(max_examples=8, deadline=None)
@given(
    st.lists(st.tuples(st.text(max_size=20), st.text(max_size=20), st.sampled_from("0123")), min_size=1, max_size=30)
)
def test_any_evidence_is_survived(rows):
    evidence = tuple(EvidenceItem(fields={"query": q, "title": t}, truth=g, group=q) for q, t, g in rows)
    assert revise(request(evidence)) is not None


def test_nothing_worth_changing_is_an_answer_and_not_nonsense():
    shown = {"grades": [{"symbol": g} for g in "01"], "evidence": [], "candidates": 2}
    for request in ({"task": "revise", **shown}, {"task": "revise", "grades": 7}):
        assert json.loads(answer_revision(request)) == {"candidates": []}
