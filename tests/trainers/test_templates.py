"""Chat templates from anywhere: hostile ones are stopped, broken ones explained, and thinking is off for everybody."""

import pytest
from transformers import AutoTokenizer

from store.errors import PiarError
from tests.tiny_model import make_tiny_model
from trainers import trial
from trainers.chat import add_template, render
from trainers.model import load_policy, prompt_ids

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
    monkeypatch.setattr(trial, "SECONDS", 1)
    monkeypatch.setattr(trial, "BYTES", 1 << 28)
    tokenizer.chat_template, says = REFUSED[kind]
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
