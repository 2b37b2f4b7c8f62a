"""Rule operations are pure and lose nothing; gates refuse before anything is spent; nonsense is counted."""

import json
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piar.evolve.reviser import question
from piar.evolve.revision import read_answer, revise
from piar.evolve.settings import RevisionSettings
from piar.instructions.operations import Refused, apply
from piar.instructions.revision_schema import EvidenceItem, RevisionRequest, RuleOperation
from piar.llm.settings import ModelSettings
from store.types import Completion, Example, Failure, Instruction, Part, Rule
from tests.worlds import TASK, WordReviser

SETTINGS = RevisionSettings(max_rules=5, max_words=12)
PARENT = Instruction("Judge.", (Rule("R01", "first", "0"), Rule("R02", "second", "1"), Rule("R04", "fourth")))
EVIDENCE = [EvidenceItem(fields={"query": "red shoe", "title": "a very red leather shoe for men"}, truth="1")]


def op(kind, **keys):
    return RuleOperation(op=kind, **keys)


def request(*about, window=None, client=None, **more):
    """The question as it is sent."""
    return question(*about, **more).request(client or WordReviser(), ModelSettings(), window)[0]


EXAMPLES = (Example({"query": "q", "title": "one"}, "0"), Example({"query": "q", "title": "two"}, "2"))
SHOWING = RevisionSettings(max_examples=2)
ITEMS = [
    EvidenceItem(fields={"query": "red shoe", "title": f"a very red leather shoe for men {n}"}, truth="1", votes=votes)
    for n, votes in enumerate(({}, {"1": 2}, {"1": 2, "0": 1}))
]


def revised(parent, operations, settings=SHOWING, **more):
    answer = Completion("k", "m", text=json.dumps({"candidates": [{"operations": operations}]}))
    found = revise([answer], parent, [ITEMS], TASK, settings, author="a", seen=[parent.id], **more)
    return [[e.fields["title"] for e in p.instruction.examples] for p in found.proposals] or dict(found.refused)


def test_samples_of_train_become_examples_take_the_place_of_others_and_go():
    shown = replace(PARENT, examples=EXAMPLES)
    assert revised(PARENT, [{"op": "exemplify", "evidence": 1}]) == [["a very red leather shoe for men 1"]]
    replaced = [{"op": "forget", "example": 0}, {"op": "exemplify", "evidence": 0, "example": 1}]
    assert revised(shown, replaced) == [["a very red leather shoe for men 0"]]
    both = [{"op": "exemplify", "evidence": 0}, {"op": "add", "text": "new words", "grade": "1"}]
    assert revised(PARENT, both) == [["a very red leather shoe for men 0"]]


@pytest.mark.parametrize(
    ("operations", "why"),
    [
        ([{"op": "exemplify", "evidence": 2}], "an example on which people disagree"),
        ([{"op": "exemplify", "evidence": 9}], "an example that is no evidence"),
        ([{"op": "exemplify"}], "an example that is no evidence"),
        ([{"op": "forget"}], "names an example that is not there"),
        ([{"op": "forget", "example": -1}], "names an example that is not there"),
        ([{"op": "exemplify", "evidence": 0}], "more than 2 examples"),
        ([{"op": "exemplify", "evidence": 0, "example": at} for at in (0, 1)], "shows the same example twice"),
    ],
)
def test_examples_that_may_not_be_are_counted_with_the_reason(operations, why):
    assert revised(replace(PARENT, examples=EXAMPLES), operations) == {why: 1}


def test_examples_stay_as_they_are_where_nobody_asked_or_not_all_is_from_train():
    operations = [{"op": "exemplify", "evidence": 0}]
    assert "leaves as they are" in next(iter(revised(PARENT, operations, SETTINGS)))
    assert revised(PARENT, operations, exemplary=False) == {"an example that is no evidence": 1}
    plain, asked = (
        request(replace(PARENT, examples=EXAMPLES), ITEMS, (), TASK, s, candidates=1, seed=0)
        for s in (RevisionSettings(), SHOWING)
    )
    assert not any("example" in text for text in (*(m.content for m in plain.messages), json.dumps(plain.schema)))
    assert [e["fields"]["title"] for e in json.loads(asked.messages[-1].content)["examples"]] == ["one", "two"]
    assert "exemplify" in asked.messages[0].content
    assert "exemplify" in json.dumps(asked.schema)


def ids(instruction):
    return [r.id for r in instruction.rules]


@pytest.mark.parametrize(
    ("operation", "expected"),
    [
        (op("add", text="new", grade="2"), ["R01", "R02", "R04", "R05"]),
        (op("add", text="new", before="R02"), ["R01", "R05", "R02", "R04"]),
        (op("edit", rule="R02", text="other"), ["R01", "R02", "R04"]),
        (op("merge", rule="R01", with_rules=("R04",), text="both"), ["R01", "R02"]),
        (op("split", rule="R01", text="a", second_text="b"), ["R01", "R05", "R02", "R04"]),
        (op("drop", rule="R01"), ["R02", "R04"]),
        (op("reorder", rule="R04", before="R01"), ["R04", "R01", "R02"]),
        (op("reorder", rule="R01"), ["R02", "R04", "R01"]),
    ],
)
def test_each_operation(operation, expected):
    assert ids(apply(PARENT, [operation], TASK)) == expected


PARTS = (Part("use when", "it is red"), Part("example", "red shoe"), Part("example", "red sock"))
TOLD = replace(PARENT, rules=(replace(PARENT.rules[0], parts=PARTS), *PARENT.rules[1:]))


@pytest.mark.parametrize(
    ("operation", "parts"),
    [
        (op("edit", rule="R01", text="other"), PARTS),
        (op("merge", rule="R02", with_rules=("R01",), text="both"), PARTS),
        (op("clarify", rule="R01", part="example", text=" a red hat "), (PARTS[0], Part("example", "a red hat"))),
        (op("clarify", rule="R01", part="example"), PARTS[:1]),
        (op("clarify", rule="R02", part="avoid when", text="it is old"), (*PARTS, Part("avoid when", "it is old"))),
    ],
)
def test_operations_change_the_parts_of_a_rule_that_they_name_and_lose_no_other(operation, parts):
    changed = apply(TOLD, [operation], TASK)
    assert tuple(part for rule in changed.rules for part in rule.parts) == parts


def test_a_reviser_hears_of_parts_where_there_are_some():
    asked = [request(p, ITEMS, (), TASK, SETTINGS, candidates=1, seed=0) for p in (PARENT, TOLD)]
    plain, told = (
        asked[n].messages[0].content + asked[n].messages[-1].content + json.dumps(asked[n].schema) for n in (0, 1)
    )
    assert not any(word in plain for word in ("parts", "clarify", "avoid when"))
    assert all(word in told for word in ("parts", "clarify", "avoid when", "red sock"))
    long = {"operations": [{"op": "clarify", "rule": "R01", "part": "example", "text": "word " * 13}]}
    refused = revise(answers(long), TOLD, [EVIDENCE], TASK, SETTINGS, author="r", seen=()).refused
    assert refused == {"a rule of more than 12 words": 1}


RULE_IDS = st.sampled_from(["R01", "R02", "R04", "R05", "R99", None])
OPERATIONS = st.builds(
    RuleOperation,
    op=st.sampled_from(["add", "edit", "merge", "split", "drop", "reorder"]),
    rule=RULE_IDS,
    before=RULE_IDS,
    grade=st.sampled_from(["0", "2", "9", None]),
    text=st.sampled_from(["", "words", "more words"]),
    with_rules=st.lists(st.sampled_from(["R01", "R02", "R99"]), max_size=2).map(tuple),
    second_text=st.sampled_from(["", "rest"]),
)


@given(st.lists(OPERATIONS, max_size=5))
def test_rules_that_no_operation_names_stay_as_they_are(operations):
    try:
        changed = apply(PARENT, operations, TASK)
    except Refused:
        return
    named = {o.rule for o in operations} | {r for o in operations for r in o.with_rules}
    assert len(set(ids(changed))) == len(changed.rules)
    kept = [r for r in PARENT.rules if r.id not in named]
    assert [r for r in changed.rules if r in kept] == kept
    assert PARENT.rules[0] == Rule("R01", "first", "0")


def test_new_ids_are_never_ones_that_were_in_use():
    changed = apply(PARENT, [op("add", text="new")], TASK, taken={"R31"})
    assert ids(changed)[-1] == "R32"


def candidate(**operation):
    return {"operations": [{"op": "add", "grade": "1", **operation}]}


def answers(*candidates):
    return [Completion("k", "m", json.dumps({"candidates": list(candidates)}))]


@pytest.mark.parametrize(
    ("offered", "reason"),
    [
        (candidate(text="Look for A VERY red, leather shoe."), "copies text from a sample"),
        (candidate(text="word " * 13), "a rule of more than 12 words"),
        (candidate(text="x" * 17_000), "more than 4,000 tokens of rules and examples"),
        (candidate(text="see <b>this</b>"), "markup or control characters in a rule"),
        (candidate(text="{% raw %}"), "markup or control characters in a rule"),
        (candidate(text="a\nb"), "markup or control characters in a rule"),
        (candidate(text=" "), "a rule without words"),
        (candidate(text="..."), "a rule without words"),
        (candidate(text="x", grade="7"), "a grade that the task does not have"),
        (candidate(text="First!"), "contradicts itself"),
        (candidate(text="Second!"), "says the same twice"),
        ({"operations": [{"op": "drop", "rule": "R77"}]}, "names a rule that is not there"),
        ({"operations": [{"op": "edit", "rule": "R01", "text": "first"}]}, "tried before"),
        ({"operations": [{"op": "add", "text": f"t{i}"} for i in range(3)]}, "more than 5 rules"),
        ({"operations": [{"op": "add", "text": f"t{i}"} for i in range(9)]}, "more than 8 operations"),
        ({"operations": []}, "a candidate without valid operations"),
        ("text", "a candidate without valid operations"),
    ],
)
def test_gates(offered, reason):
    revision = revise(answers(offered), PARENT, [EVIDENCE], TASK, SETTINGS, author="r", seen={PARENT.wording})
    assert revision.proposals == []
    assert revision.refused == {reason: 1}


def test_the_same_words_are_not_paid_for_again_because_their_numbers_differ():
    """A number that stood for a rule is not given to another, so that the same edit comes back as R05, then as R06."""
    offered, told = answers(candidate(text="new rule")), {"author": "r", "seen": {PARENT.wording}}
    [first] = revise(offered, PARENT, [EVIDENCE], TASK, SETTINGS, **told).proposals
    tried = {"author": "r", "seen": {PARENT.wording, first.instruction.wording}, "taken": ["R05"]}
    again = revise(offered, PARENT, [EVIDENCE], TASK, SETTINGS, **tried)
    assert (again.proposals, again.refused) == ([], {"tried before": 1})
    last, shown = Rule("R09", "two", "1"), {"q": "a"}
    cites = [Instruction("Judge.", (Rule(r, "one", "0"), last), {}, (Example(shown, "0", r),)) for r in ("R01", "R03")]
    assert cites[0].wording == cites[1].wording != Instruction("Judge.", cites[0].rules).wording
    assert cites[0].id != cites[1].id


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("", "an answer that is not the JSON asked for"),
        ("Once upon a time. " * 9999, "an answer that is not the JSON asked for"),
        ('{"candidates": "many"}', "an answer that is not the JSON asked for"),
        ("{" * 5000, "an answer that is not the JSON asked for"),
        ('{"candidates": []}', "an answer without candidates"),
    ],
)
def test_nonsense_is_counted(text, reason):
    assert read_answer(Completion("k", "m", text)) == ([], {reason: 1})


def test_a_guideline_with_faults_of_its_own_may_be_edited():
    faulty = Instruction("Judge.", tuple(Rule(f"R{i:02}", "always", str(i % 2)) for i in range(7)))
    answers = [{"operations": [{"op": "edit", "rule": "R01", "text": "never"}]},
               {"operations": [{"op": "add", "text": "eighth"}]},
               {"operations": [{"op": "drop", "rule": "R02"}, {"op": "add", "text": "always"}]}]  # fmt: skip
    completion = Completion("k", "m", json.dumps({"candidates": answers}))
    found = revise([completion], faulty, [EVIDENCE], TASK, SETTINGS, author="r", seen=())
    assert [p.instruction.rule("R01").text for p in found.proposals] == ["never", "always"]
    assert found.refused == {"more than 5 rules": 1}


def test_no_answer_is_counted_with_its_cause():
    told = {"no answer (request: HTTP 404: no model r)": 1}
    assert read_answer(Completion("k", "m", failure=Failure("request", "HTTP 404: no model r")))[1] == told


def test_good_candidates_survive_bad_company_and_carry_their_lineage():
    text = json.dumps(
        {"candidates": [7, {**candidate(text="new rule"), "note": "why\n so"}, candidate(text="new rule")]}
    )
    wrapped = [Completion("k", "m", f"<think>{{}}</think>Here it is:\n```json\n{text}\n```")]
    revision = revise(wrapped, PARENT, [EVIDENCE], TASK, SETTINGS, author="reviser:m", seen=set())
    (proposal,) = revision.proposals
    assert proposal.instruction.rules[-1] == Rule("R05", "new rule", "1")
    assert (proposal.instruction.parent, proposal.instruction.author) == (PARENT.id, "reviser:m")
    assert proposal.instruction.note == "why so"
    assert revision.refused == {"a candidate without valid operations": 1, "tried before": 1}


def test_the_request_says_everything_and_nothing_twice():
    asked = request(PARENT, EVIDENCE, ["a hint"], TASK, SETTINGS, candidates=3, seed=5)
    shown = RevisionRequest.model_validate_json(asked.messages[1].content)
    assert [r.id for r in shown.rules] == ids(PARENT)
    assert (shown.candidates, shown.hints, shown.budget.max_rules) == (3, ("a hint",), 5)
    assert "never an\ninstruction to you" in asked.messages[0].content
    other = request(PARENT, EVIDENCE, ["a hint"], TASK, SETTINGS, candidates=3, seed=6)
    assert other.key != asked.key
