"""Answers of local models that are held to a schema: always readable, never longer than it allows."""

import json
import sys

import jsonschema
import pytest

from piar.connect import connect
from piar.evolve.revision import read_answer
from piar.instructions.revision_schema import (
    EvidenceItem,
    GradeShown,
    RevisionBudget,
    RevisionRequest,
    RuleShown,
    answer_schema,
)
from piar.llm.base import Message, Request
from piar.llm.openai.chat import chat_body
from piar.llm.settings import ModelSettings
from tests.tiny_model import make_tiny_model

SHOWN = RevisionRequest(
    grades=(GradeShown(symbol="0"), GradeShown(symbol="2")),
    rules=(RuleShown(id="R01", text="one"), RuleShown(id="R07", text="two")),
    evidence=(EvidenceItem(fields={"query": "q"}, truth="0"), EvidenceItem(fields={"query": "r"}, truth="2")),
    budget=RevisionBudget(max_words=2, max_operations=1),
    candidates=2,
)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("tiny"), layers=1)


def asked(count, schema, **more):
    return [
        Request(f"k{i}", (Message("user", f"Say {i}"),), schema=schema, temperature=1.5, seed=i, **more)
        for i in range(count)
    ]


def test_a_model_of_noise_writes_what_the_schema_allows_and_names_only_what_is_there(folder, monkeypatch):
    monkeypatch.setattr("piar.instructions.revision_schema.NOTE", 9)  # noise makes full use of every limit
    monkeypatch.setattr("piar.llm.constrained.WHITE", "[ ]")
    client = connect(ModelSettings(model=f"hf:{folder}", extra={"device": "cpu"}))
    schema = answer_schema(SHOWN.model_copy(update={"candidates": 1}))
    done = client.generate(asked(2, schema, max_tokens=500))
    for completion in done:
        found = json.loads(completion.text)
        jsonschema.validate(found, schema)
        candidates, refused = read_answer(completion)
        assert len(candidates) == len(found["candidates"])
        assert not refused or set(refused) == {"an answer without candidates"}
    assert len({c.text for c in done}) > 1
    assert any(json.loads(c.text)["candidates"] for c in done)


def test_free_and_held_answers_of_one_batch_are_not_mixed_up(folder):
    client = connect(ModelSettings(model=f"hf:{folder}", extra={"device": "cpu"}))
    schema = {"type": "object", "properties": {"a": {"type": "integer", "minimum": 3, "maximum": 5}},
              "required": ["a"], "additionalProperties": False}  # fmt: skip
    held, free = asked(2, schema, max_tokens=30), [Request("f", (Message("user", "Say"),), max_tokens=30)]
    first, plain, second = client.generate([held[0], *free, held[1]])
    assert {json.loads(c.text)["a"] for c in (first, second)} <= {3, 4, 5}
    assert not plain.text.startswith("{")


def test_an_answer_that_reaches_its_limit_keeps_every_edit_before_the_cut():
    whole = {"note": "n", "operations": [{"op": "drop", "rule": "R01"}, {"op": "drop", "rule": "R07"}]}
    text = json.dumps({"candidates": [whole, whole]})
    for cut in range(1, len(text)):
        candidates, refused = read_answer(type("C", (), {"failure": None, "text": text[:cut]})())
        edits = [op.rule for c in candidates for op in c.operations]
        assert edits == [["R01", "R07", "R01"], ["R01", "R07"], ["R01"], []][3 - len(edits)]
        assert sum(refused.values()) >= 1


def test_without_llguidance_it_answers_freely_and_says_so_once(folder, monkeypatch):
    monkeypatch.setitem(sys.modules, "llguidance.hf", None)
    client = connect(ModelSettings(model=f"hf:{folder}", extra={"device": "cpu"}))
    with pytest.warns(UserWarning, match=r"answers freely: .*llguidance.*pip install"):
        client.generate(asked(1, answer_schema(SHOWN), max_tokens=5))
    assert client.generate(asked(1, answer_schema(SHOWN), max_tokens=5))[0].text  # the second time without a word


def test_a_provider_is_sent_a_schema_that_strict_modes_take():
    def objects(schema):
        if isinstance(schema, dict):
            if schema.get("type") == "object":
                yield schema
            for value in schema.values():
                yield from objects(value)
        elif isinstance(schema, list):
            for value in schema:
                yield from objects(value)

    body = chat_body(asked(1, answer_schema(SHOWN))[0], "m")
    sent = body["response_format"]["json_schema"]
    assert sent["strict"]
    found = list(objects(sent["schema"]))
    assert all(one["additionalProperties"] is False and one["required"] == list(one["properties"]) for one in found)
    assert not any(limit in json.dumps(sent) for limit in ("maxLength", "maxItems", '"minimum"'))


@pytest.mark.parametrize("rules", [0, 1, 2])
def test_only_operations_that_can_apply_are_offered(rules):
    shown = SHOWN.model_copy(update={"rules": SHOWN.rules[:rules]})
    offered = json.dumps(answer_schema(shown))
    assert ('"drop"' in offered, '"merge"' in offered) == (rules > 0, rules > 1)
    full = shown.model_copy(update={"budget": RevisionBudget(max_rules=max(1, rules))})
    assert ('"add"' in json.dumps(answer_schema(full))) is (rules < 1)
