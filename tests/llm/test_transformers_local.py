import random

import pytest

from piar.connect import connect
from piar.llm.base import Message, Request
from piar.llm.settings import ModelSettings
from store.errors import PiarError
from tests.tiny_model import make_tiny_model

pytestmark = pytest.mark.precision
GRADES = ("0", "1", "2")
SYSTEM = "Judge how well a product answers a search query. " * 12


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("tiny"))


def client_for(folder, **extra):
    return connect(ModelSettings(model=f"hf:{folder}", extra={"device": "cpu", **extra}))


def requests(count, seed=0, **more):
    draw = random.Random(seed)
    texts = [
        " ".join(draw.choices(["wireless", "mouse", "desk", "für", "5 cm"], k=draw.randrange(1, 30)))
        for _ in range(count)
    ]
    return [
        Request(f"k{i}", (Message("system", SYSTEM), Message("user", t)), GRADES, **more) for i, t in enumerate(texts)
    ]


def whole_prompt_probs(folder, request):
    """The reference: each prompt by itself, through the model's own head, no cache."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    chat = [{"role": m.role, "content": m.content} for m in request.messages]
    text = tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    with torch.inference_mode():
        logits = model(**tokenizer(text, return_tensors="pt", add_special_tokens=False)).logits[0, -1]
    ids = [tokenizer(g, add_special_tokens=False)["input_ids"][0] for g in GRADES]
    return logits[ids].softmax(-1).tolist()


@pytest.mark.parametrize("batch_tokens", [200, 8192])
def test_sharing_the_prefix_changes_no_probability(folder, batch_tokens, monkeypatch):
    monkeypatch.setattr("trainers.scoring.BATCH_TOKENS", batch_tokens)
    asked = requests(12)
    arrived = []
    done = client_for(folder).generate(asked, arrived.append)
    assert [c.key for c in done] == [r.key for r in asked]
    assert sorted(c.key for c in arrived) == sorted(r.key for r in asked)
    for request, completion in zip(asked, done, strict=True):
        assert list(completion.probs.values()) == pytest.approx(whole_prompt_probs(folder, request), abs=1e-4)
        assert completion.text == max(completion.probs, key=completion.probs.get)


def test_instructions_are_not_mixed_up(folder):
    one, other = requests(3), requests(3, seed=1)
    other = [Request(f"o{r.key}", (Message("system", "Other words."), r.messages[1]), GRADES) for r in other]
    mixed = [r for pair in zip(one, other, strict=True) for r in pair]
    done = client_for(folder).generate(mixed)
    for request, completion in zip(mixed, done, strict=True):
        assert completion.key == request.key
        assert list(completion.probs.values()) == pytest.approx(whole_prompt_probs(folder, request), abs=1e-4)


def test_the_trace_follows_the_grade(folder):
    client = client_for(folder, trace=True)
    done = client.generate(requests(4, max_tokens=8))
    plain = client_for(folder).generate(requests(4))
    assert [c.text[0] for c in done] == [c.text for c in plain]
    assert any(len(c.text) > 1 for c in done)
    assert all(c.usage.completion <= 8 for c in done)


def test_free_text_has_no_probabilities(folder):
    (done,) = client_for(folder).generate([Request("k", (Message("user", "Hello"),), max_tokens=5)])
    assert done.text
    assert done.probs is None


def test_votes_are_drawn_by_key_and_seed_alone(folder):
    client = client_for(folder)
    votes = [Request(f"k{i}", r.messages, GRADES, temperature=1.0, seed=i) for i in range(60) for r in requests(1)]
    first, second = client.generate(votes), client.generate(list(reversed(votes)))
    assert [c.text for c in first] == [c.text for c in reversed(second)]
    assert len({c.text for c in first}) > 1


def test_a_prompt_that_is_too_long_fails_alone(folder):
    long = Request("long", (Message("system", SYSTEM), Message("user", "mouse " * 5000)), GRADES)
    done = client_for(folder).generate([*requests(2), long])
    assert [c.failure and c.failure.kind for c in done] == [None, None, "request"]


def test_bfloat16_stays_close(folder):
    exact, rough = (client_for(folder, dtype=t).generate(requests(10)) for t in ("float32", "bfloat16"))
    differences = [abs(a.probs[g] - b.probs[g]) for a, b in zip(exact, rough, strict=True) for g in GRADES]
    assert max(differences) < 0.2


def test_mistakes_are_explained(folder, tmp_path):
    with pytest.raises(PiarError, match="is empty"):
        client_for(tmp_path)
    with pytest.raises(PiarError, match="begin with the same token"):
        client_for(folder).generate([Request("k", (Message("user", "x"),), ("2", "2nd"))])
    with pytest.raises(PiarError, match="dtyp"):
        client_for(folder, dtyp="float32")
