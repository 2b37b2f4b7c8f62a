"""Folders of adapters (PEFT): merged into their base where it lies, else refused with what mends it."""

import json
import re
import shutil
import warnings

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoTokenizer

from piar.llm.transformers_local import TransformersClient
from store.calibration import Calibration
from store.errors import PiarError
from tests.shards_fixture import write_shards
from tests.tiny_model import make_tiny_model
from trainers import sft
from trainers.checkpoint import fingerprint, keep_calibration, read_card
from trainers.config import SftSettings, StudentSettings
from trainers.loading import load_policy
from trainers.scoring import Student
from trainers.students import load_student

# What peft itself calls for.
pytestmark = pytest.mark.filterwarnings("ignore:`is_gradient_checkpointing`:FutureWarning")

IDS = torch.arange(3, 20)[None]
LAYERS = {"r": 4, "task_type": "CAUSAL_LM", "target_modules": ["q_proj", "down_proj"]}
KINDS = {
    "LoRA": LAYERS,
    "rsLoRA": LAYERS | {"use_rslora": True},
    "DoRA": LAYERS | {"use_dora": True},
    "whole embeddings": LAYERS | {"modules_to_save": ["embed_tokens", "lm_head"]},
    "embeddings too": LAYERS | {"target_modules": ["q_proj", "embed_tokens", "lm_head"]},
}


@pytest.fixture(scope="module")
def base(tmp_path_factory):
    return make_tiny_model(tmp_path_factory.mktemp("base") / "base", width=64, layers=1)


def taught(base, folder, settings, more_tokens=0):
    """Save adapters with random weights; the logits of the model that has them."""
    lm = AutoModelForCausalLM.from_pretrained(base)
    if more_tokens:
        lm.resize_token_embeddings(lm.config.vocab_size + more_tokens, mean_resizing=False)
    torch.manual_seed(0)
    model = get_peft_model(lm, settings).eval()
    with torch.no_grad():
        for weight in model.parameters():
            if weight.requires_grad:
                weight.add_(0.1 * torch.randn_like(weight))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model.save_pretrained(folder)
        return model(input_ids=IDS).logits


def logits(folder):
    with torch.no_grad():
        return load_policy(str(folder))[0].lm(input_ids=IDS).logits


@pytest.mark.parametrize(("kind", "more_tokens"), [(kind, 8 if "embeddings" in kind else 0) for kind in KINDS])
def test_adapters_are_merged_into_their_base(base, tmp_path, kind, more_tokens):
    wanted = taught(base, tmp_path / "a", LoraConfig(**KINDS[kind]), more_tokens)
    found = logits(tmp_path / "a")
    assert torch.allclose(found, wanted, atol=1e-4)
    assert not torch.allclose(found[..., :400], logits(base)[..., :400], atol=1e-2)


@pytest.fixture
def lora(base, tmp_path):
    """Adapters in a folder of their own, their base beside them."""
    folder = tmp_path / "here" / "adapters"
    taught(base, folder, LoraConfig(**LAYERS))
    shutil.copytree(base, tmp_path / "here" / "base")
    return folder


def change(folder, **values):
    path = folder / "adapter_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


def test_a_student_a_teacher_and_a_tokenizer_come_of_adapters(lora, tmp_path):
    write_shards(tmp_path / "shards", 30, held_out=8)
    few = SftSettings(steps=2, batch_size=4)
    student = StudentSettings(model=str(lora), lora=2)
    done = sft.train(tmp_path / "shards", tmp_path / "run", student=student, settings=few)
    assert not (done.checkpoint / "adapter_config.json").exists()
    assert len(Student.load(done.checkpoint).score([{"query": "red lamp", "title": "red lamp"}])) == 1
    assert TransformersClient(str(lora)).tokens("red lamp") > 0
    own = AutoTokenizer.from_pretrained(lora.parent / "base")
    own.chat_template = "{{ messages[0].content }}!"
    own.save_pretrained(lora)
    assert load_policy(str(lora))[1].chat_template.endswith("!")  # that of the adapters, where they bring one


def test_adapters_that_others_made_on_a_student_are_a_student(base, tmp_path):
    write_shards(tmp_path / "shards", 30, held_out=8)
    few = SftSettings(steps=2, batch_size=4)
    settings = StudentSettings(model=str(base))
    final = sft.train(tmp_path / "shards", tmp_path / "run", student=settings, settings=few).checkpoint
    keep_calibration(final, Calibration(strategy="temperature", temperature=2.0))
    wanted = taught(final, tmp_path / "a", LoraConfig(**LAYERS))
    assert torch.allclose(logits(tmp_path / "a"), wanted, atol=1e-4)
    judge = load_student(tmp_path / "a")
    assert (judge.card.task, judge.card.calibration) == (read_card(final).task, None)
    assert judge.score([{"query": "red lamp", "title": "red lamp"}])[0].grade in judge.task.symbols
    assert fingerprint(tmp_path / "a") != fingerprint(final)
    keep_calibration(tmp_path / "a", Calibration(strategy="temperature", temperature=3.0, bias=(0.0,) * 3))
    assert load_student(tmp_path / "a").card.calibration.temperature == 3
    assert len(load_student(tmp_path / "a").score([{"query": "red", "title": "lamp"}])) == 1
    prints = [fingerprint(tmp_path / "a")]
    taught(final, tmp_path / "a", LoraConfig(**LAYERS | {"r": 2}))  # over the card that a calibration left there
    assert load_student(tmp_path / "a").card.calibration is None  # it was fitted on other weights
    prints.append(fingerprint(tmp_path / "a"))
    keep_calibration(final, None)  # of the student below
    assert len({*prints, fingerprint(tmp_path / "a")}) == 3
    with pytest.raises(PiarError, match="holds no student") as refused:
        load_student(base)
    assert f"hf:{base}" in refused.value.fix


@pytest.mark.parametrize("named", ["org/base", "/elsewhere/models/base", "../base"])
def test_a_base_that_lies_beside_its_adapters_is_found(lora, named):
    wanted = logits(lora)
    change(lora, base_model_name_or_path=named)
    assert torch.equal(logits(lora), wanted)


REFUSED = {
    "no base": ({"base_model_name_or_path": None}, "does not name the model", "base_model_name_or_path"),
    "a base of the hub": (
        {"base_model_name_or_path": "org/far"},
        "'org/far', which does not lie here",
        "hf download org/far",
    ),
    "a base of another machine": (
        {"base_model_name_or_path": "/a/b/far"},
        "does not lie here",
        "put it at .*/here/far",
    ),
    "a classifier's": ({"task_type": "SEQ_CLS"}, r"writes no text \(SEQ_CLS\)", "LoRA"),
    "a kind to come": ({"peft_type": "LATER"}, "peft does not know: 'LATER'", "LoRA"),
    "layers that its weights lack": (
        {"target_modules": ["q_proj", "k_proj", "down_proj"]},
        "another model",
        "Download",
    ),
    "layers that it does not name": ({"target_modules": ["q_proj"]}, "another model", "Download"),
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_cannot_be_merged_is_refused_with_what_mends_it(lora, monkeypatch, kind):
    values, said, mend = REFUSED[kind]
    monkeypatch.setattr(
        "trainers.folder.HfApi.model_info", lambda *_, **__: (_ for _ in ()).throw(OSError("no network"))
    )
    change(lora, **values)
    with pytest.raises(PiarError, match=said) as refused:
        load_policy(str(lora))
    assert re.search(mend, refused.value.fix)


def test_pickled_damaged_and_unmergeable_adapters_are_refused(base, lora, tmp_path):
    prompt = get_peft_model(
        AutoModelForCausalLM.from_pretrained(base), PromptTuningConfig(num_virtual_tokens=2, task_type="CAUSAL_LM")
    )
    prompt.save_pretrained(tmp_path / "prompt")
    with pytest.raises(PiarError, match="PROMPT_TUNING, which cannot be merged"):
        load_policy(str(tmp_path / "prompt"))
    other = make_tiny_model(tmp_path / "other", width=32, layers=1)
    weights = lora / "adapter_model.safetensors"
    held = load_file(weights)
    change(lora, base_model_name_or_path=str(other))
    with pytest.raises(PiarError, match="another model than"):
        load_policy(str(lora))
    weights.write_bytes(weights.read_bytes()[:-40])
    with pytest.raises(PiarError, match="is truncated"):
        load_policy(str(lora))
    weights.unlink()
    torch.save(held, lora / "adapter_model.bin")
    with pytest.raises(PiarError, match="pickled file alone"):
        load_policy(str(lora))
