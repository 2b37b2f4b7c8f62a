"""Folders of language models as others leave them: settings of their own use, and models that cannot be students."""

import json
import shutil

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForImageTextToText, AutoTokenizer

from store.errors import PiarError
from tests.tiny_model import TEXT, make_tiny_model
from trainers.loading import load_policy
from trainers.model import answer_ids, completion_ids, end_id, prompt_ids, symbol_ids

ASKED = [[{"role": "user", "content": "a wireless mouse"}], [{"role": "user", "content": "desk"}]]


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("model"), width=64, layers=1)


def judged(folder):
    policy, tokenizer = load_policy(str(folder))
    return policy.grades(prompt_ids(tokenizer, ASKED), torch.tensor(symbol_ids(tokenizer, "012")))


USED = {
    "kernels that are not here": {"_attn_implementation": "flash_attention_2"},
    "tuples": {"return_dict": False},
    "attentions": {"output_attentions": True, "output_hidden_states": True},
    "no cache": {"use_cache": False},
    "padding without a row": {"pad_token_id": 99_999},
    "several ends": {"eos_token_id": [2, 1]},
}


@pytest.mark.exact
@pytest.mark.parametrize("kind", USED)
def test_what_a_configuration_says_of_its_use_changes_no_grade(plain, tmp_path, kind):
    folder = shutil.copytree(plain, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | USED[kind]))
    assert torch.equal(judged(folder), judged(plain))


def test_a_vocabulary_of_another_size_is_told_with_the_line_that_mends_it(plain, tmp_path):
    folder = shutil.copytree(plain, tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"vocab_size": 700}))
    with pytest.raises(PiarError, match=r"not \[700, 64\]") as refused:
        load_policy(str(folder))
    assert f'"vocab_size": {config["vocab_size"]} into' in refused.value.fix


@pytest.mark.parametrize("where", ["generation_config.json", "config.json"])
def test_a_tokenizer_without_an_end_takes_its_models(plain, tmp_path, where):
    folder = shutil.copytree(plain, tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    vocabulary = json.loads((folder / "tokenizer.json").read_text().replace("<|im_end|>", "<|over|>"))
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary))
    (folder / "chat_template.jinja").unlink()
    (folder / "tokenizer_config.json").write_text('{"tokenizer_class": "PreTrainedTokenizerFast"}')
    for name in ("config.json", "generation_config.json"):
        said = json.loads((folder / name).read_text())
        ends = [tokenizer.eos_token_id, 1] if name == where else None
        (folder / name).write_text(json.dumps(said | {"eos_token_id": ends}))
    assert end_id(load_policy(str(folder))[1]) == tokenizer.eos_token_id


def test_whoever_serves_a_student_is_told_where_its_answers_end(plain, tmp_path):
    """As of a base model with chat tokens: its vocabulary has `<|im_end|>`, and its own texts end with another one."""
    folder = shutil.copytree(plain, tmp_path / "model")
    (folder / "tokenizer_config.json").write_text(
        '{"tokenizer_class": "PreTrainedTokenizerFast", "eos_token": "<|endoftext|>"}'
    )
    (folder / "generation_config.json").write_text('{"eos_token_id": 0}')
    policy, tokenizer = load_policy(str(folder))
    policy.lm.save_pretrained(tmp_path / "student")
    said = json.loads((tmp_path / "student" / "generation_config.json").read_text())
    assert said["eos_token_id"] == [tokenizer.convert_tokens_to_ids("<|im_end|>"), 0]


@pytest.mark.parametrize(
    "told",
    [
        {"do_sample": False, "temperature": 0.6, "top_p": 0.9},  # as Vicuna: transformers loads it, and saves it not
        {"do_sample": False, "num_beams": 1, "early_stopping": True},
        {"do_sample": True, "temperature": 0.7, "top_k": 20, "repetition_penalty": 1.1},  # as Qwen
    ],
)  # fmt: skip
def test_what_a_base_says_of_writing_neither_draws_a_students_grade_nor_keeps_it_from_being_saved(
    plain, tmp_path, told
):
    folder = shutil.copytree(plain, tmp_path / "model")
    (folder / "generation_config.json").write_text(json.dumps({"eos_token_id": 0, **told}))
    policy, tokenizer = load_policy(str(folder))
    policy.lm.save_pretrained(tmp_path / "student")
    found = AutoModelForCausalLM.from_pretrained(tmp_path / "student")
    assert found.generation_config.eos_token_id == [tokenizer.eos_token_id, 0]
    assert (found.generation_config.top_k, found.generation_config.repetition_penalty) == (1, None)
    texts = {tuple(found.generate(torch.tensor([[5, 6]]), max_new_tokens=8)[0].tolist()) for _ in range(5)}
    assert len(texts) == 1


def test_grades_are_told_apart_where_a_vocabulary_puts_a_blank_before_each(tmp_path):
    """As Llama 2's and Mistral's do, whose digits are tokens of their own: `▁`, `1`."""
    sentencepiece = pytest.importorskip("sentencepiece")
    with (tmp_path / "tokenizer.model").open("wb") as file:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter([*TEXT, "0 1 2 12"] * 9),
            model_writer=file,
            vocab_size=400,
            model_type="bpe",
            split_digits=True,
            byte_fallback=True,
            hard_vocab_limit=False,
            minloglevel=2,
        )
    kind = {"tokenizer_class": "LlamaTokenizer", "eos_token": "</s>", "unk_token": "<unk>"}
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(kind))
    tokenizer = AutoTokenizer.from_pretrained(tmp_path)
    assert len(tokenizer("1", add_special_tokens=False)["input_ids"]) == 2
    grades = symbol_ids(tokenizer, ["0", "1", "2"])
    assert [tokenizer.convert_ids_to_tokens(grade) for grade in grades] == ["0", "1", "2"]
    text = "1\nthe wireless mouse"
    [answer] = completion_ids(tokenizer, [text])
    assert answer[0] == grades[1]
    assert tokenizer.decode(answer[:-1]) == text
    assert answer_ids(tokenizer, ["wireless"]) == [tokenizer("wireless", add_special_tokens=False)["input_ids"]]


SIZE = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
SEEN = {"image_size": 28, "patch_size": 14, **SIZE}


@pytest.mark.parametrize(
    ("kind", "door", "config", "says"),
    [
        (
            "blip",
            AutoModelForImageTextToText,
            {"text_config": SIZE, "vision_config": SEEN},
            "blip does not run on a text",
        ),
        ("bert-generation", AutoModelForCausalLM, {"is_decoder": False, **SIZE}, "see those that follow"),
    ],
)
def test_a_model_that_can_be_no_student_is_refused_with_the_cause(plain, tmp_path, kind, door, config, says):
    folder = shutil.copytree(plain, tmp_path / "model")
    vocabulary = {"vocab_size": len(AutoTokenizer.from_pretrained(plain)), "pad_token_id": 0, "bos_token_id": 1}
    if "text_config" in config:
        config["text_config"] = config["text_config"] | vocabulary
    lm = door.from_config(AutoConfig.for_model(kind, **vocabulary, **config))
    with torch.no_grad():
        for weight in lm.parameters():
            weight.add_(0.1 * torch.randn_like(weight))
    lm.save_pretrained(folder)
    with pytest.raises(PiarError, match=says) as refused:
        load_policy(str(folder))
    assert "Pass a causal" in refused.value.fix
