"""A student from nothing: its tokenizer, how it starts, and its first lesson."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from store.task import sample_text
from store.trace import write_trace
from store.types import Trace
from tests.shards_fixture import TASK, write_shards
from tests.trainers.test_sft import TINY, records
from trainers import sft
from trainers.config import SftSettings
from trainers.layout import Item
from trainers.loading import wrap
from trainers.tiny import ASKS, lesson, phrases, tiny_model, tiny_tokenizer

RULES = ["R01", "R12"]
SAMPLE = sample_text({"query": "red lamp", "title": 'Red "desk" lamp {a}'})
ANSWER = write_trace(Trace("1", ("red lamp", "desk lamp"), {"kind": "yes"}, ("R12", "R01"), "1"), TASK)


@pytest.fixture(scope="module")
def tokenizer():
    return tiny_tokenizer([SAMPLE, ANSWER] * 20, TASK.symbols, 400, phrases(TASK, RULES))


def test_what_all_rows_repeat_is_one_token_each(tokenizer):
    pieces = [tokenizer.decode([i]) for i in tokenizer(SAMPLE + ASKS + ANSWER)["input_ids"]]
    for phrase in ('{"query": "', '", "title": "', '"}', ASKS, '\nevidence: "', '", "', '"\nkind: ', "R12"):
        assert phrase in pieces
    assert pieces[pieces.index(ASKS) + 1] == "1"


@given(st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=60))
def test_no_text_is_changed_by_the_tokenizer(tokenizer, text):
    whole = sample_text({"query": text, "title": text}) + ASKS + "1\nevidence: " + text
    assert tokenizer.decode(tokenizer(whole)["input_ids"]) == whole


def test_the_first_lesson_parts_words_by_whether_the_first_field_has_them():
    assert lesson(["red desk lamp", "Kelbor Red LAMP 40 cm"]) == "shared: Red LAMP\nother: Kelbor cm"
    assert lesson(["Red chair", "a red lamp", "chair"], first=1) == "shared: Red\nother: chair chair"
    assert lesson(["", ""]) == "shared: \nother: "


def test_spellings_of_a_word_start_alike_and_tokens_look_for_their_like():
    words = ["lamp", " Lamp", " desk"]
    lm = tiny_model(3, hidden=128, layers=2, words=words)
    near = torch.nn.functional.cosine_similarity(*lm.get_input_embeddings().weight[:2], dim=0)
    far = torch.nn.functional.cosine_similarity(*lm.get_input_embeddings().weight[1:], dim=0)
    assert near > 0.8 > far
    plain = tiny_model(3, hidden=128, layers=2)
    attention = plain.get_decoder().layers[0].self_attn
    assert torch.equal(attention.q_proj.weight[:64], attention.k_proj.weight)
    assert not torch.equal(attention.q_proj.weight[64:], attention.k_proj.weight)
    assert wrap(plain).shares


def test_only_labelled_rows_go_through_the_last_feed_forward():
    policy = wrap(tiny_model(50, hidden=64, layers=2))
    seen = []
    policy.lm.get_decoder().layers[-1].mlp.register_forward_hook(lambda _, given, out: seen.append(given[0].shape[1]))
    packs = policy.pack([Item([1, 2, 3, 4, 5], [[6, 7], [8]])])
    policy(packs, lambda hidden, head: head(hidden))
    assert seen == [3]


def test_a_student_from_nothing_begins_with_words_then_grades_then_traces(tmp_path):
    write_shards(tmp_path / "shards", 60)
    settings = SftSettings(steps=10, batch_size=4, log_every=1, words_first=0.3, grade_first=0.3)
    sft.train(tmp_path / "shards", tmp_path / "out", student=TINY, settings=settings)
    kinds = ["words" if "words_loss" in r and "grade_loss" not in r else "trace" if r["trace_loss"] else "grade"
             for r in records(tmp_path / "out")[:10]]  # fmt: skip
    assert kinds == ["words"] * 3 + ["grade"] * 3 + ["trace"] * 4
