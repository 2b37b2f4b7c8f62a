"""Chat templates from anywhere: hostile ones are stopped, broken ones explained, and thinking is off for everybody."""

import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer

from store.errors import PiarError
from tests.tiny_model import TEXT, make_tiny_model
from trainers import trial
from trainers.chat import BREAK, add_template, render
from trainers.folder import load_tokenizer
from trainers.loading import load_policy
from trainers.model import prompt_ids, turn_ends
from trainers.rollout import generate

CHAT = [{"role": "system", "content": "Judge it."}, {"role": "user", "content": "a mouse"}]
LOOP = "{% for i in range(99999) %}" * 3 + "{% endfor %}" * 3
GROW = "{% set n = namespace(s='xxxxxxxx') %}{% for i in range(60) %}{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}"
THINKS = (
    "{% for m in messages %}{{ m.content }}\n{% endfor %}Answer:"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}"
)
REFUSED = {
    "loops": (LOOP, "does not end"),
    "loops where a rubric is": (f"{{% if messages[0].role == 'system' %}}{LOOP}{{% endif %}}", "does not end"),
    "grows": (GROW, "more than a gigabyte"),
    "grows at once": ("{{ 'x'.center(10**11) }}", "more than a gigabyte"),
    "calls itself": ("{% macro f() %}{{ f() }}{% endmacro %}{{ f() }}", "recursion"),
    "reads a file": ("{% include '/etc/passwd' %}", "no loader"),
    "opens a file": ("{{ open('/etc/passwd').read() }}", "'open' is undefined"),
    "looks inside": ("{{ ''.__class__.__mro__ }}", "unsafe"),
    "divides by nothing": ("{{ 1 / 0 }}", "division by zero"),
    "asks for what is not there": ("{{ messages[9].content }}", "has no element"),
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model"), width=64, layers=1)


@pytest.fixture
def tokenizer(folder):
    return AutoTokenizer.from_pretrained(folder)


def _loaded(tokenizer):
    add_template(tokenizer)
    render(tokenizer, [CHAT[1:]])


@pytest.mark.parametrize("kind", REFUSED)
def test_a_template_that_harms_is_refused_with_what_it_does(tokenizer, monkeypatch, kind):
    tokenizer.chat_template, says = REFUSED[kind]
    if says == "does not end":  # the others do, some in more than a second of a slow processor
        monkeypatch.setattr(trial, "SECONDS", 1)
    monkeypatch.setattr(trial, "BYTES", 1 << 28)
    with pytest.raises(PiarError, match=says):
        _loaded(tokenizer)


def test_it_is_refused_when_a_model_is_loaded(folder, monkeypatch):
    monkeypatch.setattr(trial, "SECONDS", 1)
    kept = (folder / "chat_template.jinja").read_text()
    (folder / "chat_template.jinja").write_text(LOOP)
    try:
        with pytest.raises(PiarError, match="chat template does not end") as refused:
            load_policy(str(folder))
    finally:
        (folder / "chat_template.jinja").write_text(kept)
    assert "chat_template.jinja" in refused.value.fix


def test_thinking_is_off_for_whoever_loads_the_student(tokenizer, tmp_path):
    tokenizer.chat_template = THINKS
    asked = render(tokenizer, [CHAT])
    add_template(tokenizer)
    assert render(tokenizer, [CHAT]) == asked
    tokenizer.save_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True) == asked[0]
    assert asked[0].endswith("<think>\n\n</think>\n\n")
    add_template(theirs)
    assert theirs.chat_template == tokenizer.chat_template


def test_a_template_that_knows_no_thinking_stays_as_it_is(tokenizer):
    before = tokenizer.chat_template
    add_template(tokenizer)
    assert tokenizer.chat_template == before


def test_no_chats_need_no_template(tokenizer):
    tokenizer.chat_template = "{{ raise_exception('never') }}"
    assert render(tokenizer, []) == prompt_ids(tokenizer, []) == []


def test_what_fails_in_the_trial_for_another_reason_is_left_to_the_call_in_earnest():
    def fails():
        raise KeyError("x")

    assert trial.trial(fails) is None
    assert trial.trial(lambda: None) is None


# -- templates that would ask otherwise than we mean -------------------------------------------------

DATED = "Today is {{ strftime_now('%A, %d %B %Y') }}.\n{% for m in messages %}[{{ m.content }}]{% endfor %}"


def test_the_date_is_the_same_on_every_day_for_whoever_loads_the_student(tokenizer, tmp_path):
    tokenizer.chat_template = DATED
    add_template(tokenizer)
    asked = render(tokenizer, [CHAT])
    assert asked == ["Today is Friday, 26 July 2024.\n[Judge it.][a mouse]"]
    tokenizer.save_pretrained(tmp_path)
    theirs = AutoTokenizer.from_pretrained(tmp_path)
    assert theirs.apply_chat_template(CHAT, tokenize=False, add_generation_prompt=True) == asked[0]
    add_template(theirs)
    assert theirs.chat_template == tokenizer.chat_template


def test_a_template_that_asks_whether_it_can_know_the_date_is_told_the_same_one(tokenizer):
    tokenizer.chat_template = (
        "{%- if strftime_now is defined %}{%- set day = strftime_now('%d %b %Y') %}{%- else %}{%- set day = 'none' %}"
        "{%- endif %}{{ day }}{% for m in messages %} {{ m.content }}{% endfor %}"
    )
    add_template(tokenizer)
    assert render(tokenizer, [CHAT[1:]]) == ["26 Jul 2024 a mouse"]


def test_a_system_message_that_a_template_leaves_out_goes_to_the_users(tokenizer):
    tokenizer.chat_template = "{% for m in messages if m.role == 'user' %}[{{ m.content }}]{% endfor %}"
    assert render(tokenizer, [CHAT, CHAT[1:]]) == ["[Judge it.\n\na mouse]", "[a mouse]"]


@pytest.mark.parametrize("refuses", ["", "{% if messages[0].role == 'system' %}{{ raise_exception('no') }}{% endif %}"])
def test_contents_go_in_parts_to_a_template_that_reads_parts(tokenizer, refuses):
    parts = "{% for p in m.content %}{% if p.type == 'text' %}{{ p.text }}{% endif %}{% endfor %}"
    tokenizer.chat_template = refuses + "{% for m in messages %}[" + parts + "]{% endfor %}"
    wanted = "[Judge it.\n\na mouse]" if refuses else "[Judge it.][a mouse]"
    assert render(tokenizer, [CHAT]) == [wanted]


def test_a_template_that_leaves_the_sample_out_is_refused(tokenizer):
    tokenizer.chat_template = "Say 1."
    with pytest.raises(PiarError, match="leaves out what the user says"):
        render(tokenizer, [CHAT])


def test_of_several_templates_the_default_is_taken_and_saved(tokenizer, tmp_path):
    tokenizer.chat_template = {"tool_use": "{{ tools | length }}", "default": THINKS}
    add_template(tokenizer)
    assert render(tokenizer, [CHAT])[0].endswith("<think>\n\n</think>\n\n")
    tokenizer.save_pretrained(tmp_path)
    assert AutoTokenizer.from_pretrained(tmp_path).chat_template == tokenizer.chat_template
    tokenizer.chat_template = {"rag": THINKS, "tool_use": THINKS}
    with pytest.raises(PiarError, match=r"several chat templates \(rag, tool_use\)"):
        add_template(tokenizer)


def test_an_answer_is_asked_for_in_its_channel(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}<|start|>{{ m.role }}{% if m.role == 'assistant' %}<|channel|>final{% endif %}"
        "<|message|>"
        "{{ m.content }}<|end|>{% endfor %}{% if add_generation_prompt %}<|start|>assistant{% endif %}"
    )
    assert render(tokenizer, [CHAT])[0].endswith("<|end|><|start|>assistant<|channel|>final<|message|>")


# -- what ends an answer ----------------------------------------------------------------------------


def test_an_answer_ends_where_the_models_template_ends_it_or_the_tokenizer_does(folder):
    policy, tokenizer = load_policy(str(folder))
    turn, end = tokenizer.convert_tokens_to_ids(["<|endoftext|>", "<|im_end|>"])
    assert turn_ends(tokenizer) == (end,)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}<|endoftext|>{% endfor %}"
    assert turn_ends(tokenizer) == (turn, end)
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }} {% endfor %}"
    assert turn_ends(tokenizer) == (end,)
    prompts = [[5, 6, 7], [8, 9]]
    for window in (policy.window, 0):  # with shared prefixes and without
        policy.window = window
        found = generate(policy, prompts, end=(turn, end), limit=4, starts=[turn, end], temperature=0)
        assert found == [[[turn]], [[end]]]


def test_an_added_token_without_a_row_is_read_as_text(folder, tmp_path):
    model = shutil.copytree(folder, tmp_path / "model")
    own = AutoTokenizer.from_pretrained(model)
    own.add_tokens(["mouse"])
    own.save_pretrained(model)
    policy, tokenizer = load_policy(str(model))
    [ids] = prompt_ids(tokenizer, [CHAT])
    assert max(ids) < policy.lm.get_input_embeddings().weight.shape[0]
    assert tokenizer.decode(ids) == render(tokenizer, [CHAT])[0].replace(BREAK, "")


def test_weights_that_are_no_numbers_are_refused(folder, tmp_path):
    model = shutil.copytree(folder, tmp_path / "model")
    weights = load_file(model / "model.safetensors")
    weights["model.norm.weight"][3] = torch.nan
    save_file(weights, model / "model.safetensors", {"format": "pt"})
    with pytest.raises(PiarError, match="probabilities are no numbers in float32"):
        load_policy(str(model))


# -- tokenizers without a tokenizer.json --------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "kind", "made"),
    [
        ("tokenizer.model", "LlamaTokenizer", "bpe"),
        ("spiece.model", "T5Tokenizer", "unigram"),
        ("spm.model", "DebertaV2Tokenizer", "unigram"),
        ("sentencepiece.bpe.model", "XLMRobertaTokenizer", "unigram"),
    ],
)
def test_a_sentencepiece_model_is_read(tmp_path, name, kind, made):
    sentencepiece = pytest.importorskip("sentencepiece")
    with (tmp_path / name).open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(TEXT * 9),
            model_writer=file,
            vocab_size=100,
            model_type=made,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": kind}))
    found = load_tokenizer(str(tmp_path))
    assert found.decode(found("a wireless mouse", add_special_tokens=False)["input_ids"]).strip() == "a wireless mouse"


def test_an_older_vocabulary_with_its_merges_is_read(folder, tmp_path):
    whole = json.loads((folder / "tokenizer.json").read_text())["model"]
    (tmp_path / "vocab.json").write_text(json.dumps(whole["vocab"]))
    (tmp_path / "merges.txt").write_text("\n".join(["#version: 0.2", *map(" ".join, whole["merges"])]))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "Qwen2Tokenizer"}))
    wanted = AutoTokenizer.from_pretrained(folder)("a wireless mouse")["input_ids"]
    assert load_tokenizer(str(tmp_path))("a wireless mouse")["input_ids"] == wanted
