"""Families of pretrained models, tiny and random: windows, heads, layers and adapters of many kinds."""

import json
from functools import partial

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from store.errors import PiarError
from store.manifest import read_manifest
from tests.precision import CLOSE
from tests.shards_fixture import write_shards
from tests.tiny_model import make_tiny_model
from trainers.checkpoint import StudentCard
from trainers.config import SftSettings, StudentSettings
from trainers.data import micro_batches
from trainers.head import read_labels
from trainers.layout import Item, labels, repeated
from trainers.loading import wrap
from trainers.loop import Run
from trainers.model import EVERY
from trainers.rollout import generate
from trainers.scoring import Student
from trainers.session import Session
from trainers.sft import sft_step
from trainers.weights import add_lora

VOCAB, WINDOW, END = 60, 40, 0
GRADES = torch.tensor([3, 4, 5])
SIZES = {
    "vocab_size": VOCAB,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 16,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
BOTH = ["sliding_attention", "full_attention"]
WINDOWED = SIZES | {"sliding_window": WINDOW, "layer_types": BOTH}
CAPPED = WINDOWED | {"final_logit_softcapping": 3.0}
LONGROPE = {"rope_type": "longrope", "rope_theta": 1e4, "short_factor": [1.0] * 8, "long_factor": [9.0] * 8}
EXPERTS = {"n_routed_experts": 4, "n_group": 1, "topk_group": 1, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
LATENT = {
    "q_lora_rank": 16,
    "kv_lora_rank": 16,
    "head_dim": 8,
    "qk_rope_head_dim": 8,
    "qk_nope_head_dim": 8,
    "v_head_dim": 16,
    "first_k_dense_replace": 1,
}
FAMILIES = {  # family -> its configuration, and up to how many tokens it shares prefixes
    "qwen2": (SIZES, EVERY),
    "qwen3 with a window": (
        SIZES | {"use_sliding_window": True, "sliding_window": WINDOW, "layer_types": BOTH},
        WINDOW,
    ),
    "mistral with a window": (SIZES | {"sliding_window": WINDOW}, WINDOW),
    "gemma3_text": (CAPPED, WINDOW),
    "gemma3": ({"text_config": WINDOWED}, WINDOW),
    "gemma2": (CAPPED, 0),
    "granite": (SIZES | {"logits_scaling": 5.0}, EVERY),
    "cohere": (SIZES | {"logit_scale": 0.1}, EVERY),
    "phi": (SIZES, EVERY),
    "gpt2": ({"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256}, EVERY),
    "stablelm": (SIZES, 0),
    "lfm2": (SIZES | {"layer_types": ["conv", "full_attention"]}, 0),
    "gemma4_text": (WINDOWED | {"hidden_size_per_layer_input": 8, "vocab_size_per_layer_input": 999}, WINDOW),
    "deepseek_v3": (SIZES | EXPERTS | LATENT, EVERY),
    "qwen3_moe": (SIZES | {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}, EVERY),
    # two attentions a layer, which the memory of shared prefixes cannot tell apart
    "diffllama": (SIZES | {"num_key_value_heads": 2}, EVERY),
    # names itself as its own decoder; its router is a linear layer that gives two things
    "llama4_text": (
        SIZES | {"num_local_experts": 4, "intermediate_size_mlp": 64, "attention_chunk_size": WINDOW},
        WINDOW,
    ),
    # calls its head a decoder, which has layers of its own
    "modernbert-decoder": (SIZES | {"local_attention": 2 * WINDOW, "layer_types": BOTH}, WINDOW),
    # a query of low rank, in whose place stands nothing
    "minicpm3": (SIZES | LATENT | {"num_key_value_heads": 2}, EVERY),
    # places told otherwise in sequences longer than 40 tokens, and in what stands beside them
    "phi3": (SIZES | {"original_max_position_embeddings": WINDOW, "rope_parameters": LONGROPE}, WINDOW),
    # states of their own instead of keys and values
    "mamba": (SIZES | {"state_size": 8}, 0),
    "openai-gpt": ({"vocab_size": VOCAB, "n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 256}, 0),
}


def made(family, **more):
    torch.manual_seed(0)
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model(family.split()[0], **FAMILIES[family][0] | more)).eval()
    with torch.no_grad():
        for weight in lm.parameters():  # freshly drawn ones hardly tell one way of computing from another
            weight.add_(0.1 * torch.randn_like(weight))
    return lm


@pytest.fixture(scope="module", params=FAMILIES)
def family(request):
    return request.param, wrap(made(request.param)).eval()


def drawn(*lengths):
    draw = torch.Generator().manual_seed(0)
    return [torch.randint(3, VOCAB, (n,), generator=draw).tolist() for n in lengths]


def items():
    """Sequences with a common beginning, the longer ones longer than the window."""
    rubric, *tails = drawn(20, 3, 30, 7, 12)
    return [Item(rubric + tail, [completion]) for tail in tails for completion in ([3, 7, 8], [4, 9])]


def loss_and_gradient(policy, rows, groups, pack):
    """A loss in which every row has a weight of its own, computed group by group, and its gradient."""
    policy.zero_grad()
    total = 0.0
    for group in groups:
        packs = pack([rows[i] for i in group])
        at = labels(packs, policy.device)
        weight = at.place + torch.tensor(group)[at.owner] + 1.0
        out = policy(packs, partial(read_labels, targets=at.targets, grade_ids=GRADES))
        loss = -(weight * (out.logp + out.grades[:, 1])).sum()
        loss.backward()
        total += loss.item()
    return total, torch.cat([p.grad.flatten() for p in policy.parameters() if p.grad is not None])


@pytest.mark.exact
def test_batches_have_the_loss_and_gradient_of_one_sequence_at_a_time(family):
    name, policy = family
    rows, window = items(), FAMILIES[name][1]
    assert policy.window == window
    groups = micro_batches(rows, 10**6, policy.window)
    assert len(groups) == (2 if window == WINDOW else 1)
    expected, alone = loss_and_gradient(policy, rows, [[i] for i in range(len(rows))], repeated)
    found, together = loss_and_gradient(policy, rows, groups, policy.pack)
    assert found == pytest.approx(expected, rel=1e-5)
    assert ((together - alone).norm() / alone.norm()).item() < 1e-4


def test_short_sequences_share_a_tree_and_long_ones_are_padded():
    policy = wrap(made("gemma3_text"))
    calls = []
    policy.lm.get_decoder().register_forward_pre_hook(
        lambda _, args, given: calls.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    for group in micro_batches(items(), 10**6, policy.window):
        policy(policy.pack([items()[i] for i in group]), lambda hidden, head: head(hidden))
    assert len(calls) == 2
    assert calls[0][0] == 1
    assert calls[1] == (2, 52)


@pytest.mark.exact
def test_generation_is_the_stock_models_own(family):
    _, policy = family
    prompts = [one for one in drawn(30, 6, 44, 33, 6) if not len(one) <= policy.turn < len(one) + 8]
    found = generate(policy, prompts, end=END, limit=8, temperature=0)
    policy.body(trees=False)
    for prompt, [completion] in zip(prompts, found, strict=True):
        ids = list(prompt)
        for token in completion:
            logits = policy.lm(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1]
            assert logits[token] >= logits.max() - 1e-4
            ids.append(token)
        assert completion[-1] == END or len(completion) == 8


@pytest.mark.exact
@pytest.mark.parametrize("name", ["diffllama", "gemma4_text"])
def test_a_served_student_says_what_it_says_alone(shards, tmp_path, name):
    """A session keeps the shared prompt warm, where the model lets it."""
    folder = make_tiny_model(tmp_path, width=64, layers=1)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    policy = wrap(made(name, vocab_size=len(tokenizer), sliding_window=512, max_position_embeddings=2048))
    student = Student(policy, tokenizer, StudentCard.of(read_manifest(shards), completion="trace"))
    session = Session(student)
    samples = [{"query": "red lamp", "title": title} for title in ("red lamp", "a blue desk", "red")]
    prompts = session.prompts(samples)
    found = torch.tensor([one.raw for one in session.score(prompts)])
    alone = torch.cat([policy.grades([prompt], torch.tensor(student.grade_ids)) for prompt in prompts])
    assert torch.allclose(found, alone, atol=1e-5)
    writing = session.begin(samples[0])
    for _ in range(3):
        writing.step()
    policy.body(trees=False)
    ids = [*prompts[0], student.grade_ids[student.task.index(writing.scored.grade)]]
    for _ in range(3):
        ids.append(int(policy.lm(input_ids=torch.tensor([ids]), use_cache=False).logits[0, -1].argmax()))
    assert tokenizer.decode(ids[len(prompts[0]) :]).startswith(writing.text)


def test_long_prompts_are_written_together():
    policy = wrap(made("gemma3_text"))
    calls = []
    policy.lm.register_forward_pre_hook(
        lambda _, args, given: calls.append(tuple(given["input_ids"].shape)), with_kwargs=True
    )
    found = generate(policy, drawn(44, 60, 50), end=-1, limit=5, copies=2, starts=[7, 8, 9])
    assert calls == [(6, 60)] + [(6, 1)] * 4
    assert [[c[0] for c in group] for group in found] == [[7, 7], [8, 8], [9, 9]]


@pytest.mark.parametrize("name", ["gpt2", "qwen2", "gemma2"])
def test_nothing_is_written_beyond_the_places_that_a_model_has(name):
    """GPT-2's places are rows of a table; the others are in their shared and their padded way."""
    policy = wrap(made(name, max_position_embeddings=40))
    found = generate(policy, drawn(38, 20, 36, 40), end=-1, limit=6, copies=2, starts=[7, 8, 9, 10])
    assert [[len(only) for only in group] for group in found] == [[2, 2], [6, 6], [4, 4], [1, 1]]


# --- whole runs -----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def shards(tmp_path_factory):
    folder = tmp_path_factory.mktemp("shards")
    write_shards(folder, 40, held_out=8, rubric="R01: another kind is bad.")
    return folder


@pytest.mark.precision
@pytest.mark.parametrize("name", ["gpt2", "qwen3_moe", "gemma3", "lfm2", "gemma4_text", "deepseek_v3"])
def test_adapters_of_any_family_are_merged_into_the_student(shards, tmp_path, name):
    folder = make_tiny_model(tmp_path / "model", width=64, layers=1)
    (folder / "model.safetensors").unlink()
    vocab = len(AutoTokenizer.from_pretrained(folder))
    sizes = FAMILIES[name][0]
    text = (
        {"text_config": sizes["text_config"] | {"vocab_size": vocab}}
        if "text_config" in sizes
        else {"vocab_size": vocab}
    )
    made(name, **text).save_pretrained(folder)
    settings = SftSettings(steps=4, batch_size=8, learning_rate=0.02, grade_first=0.0)
    run = Run("sft", shards, tmp_path / "run", StudentSettings(model=str(folder), lora=4), settings)
    before = run.policy.grades([e.prompt for e in run.corpus.train[:4]], run.grade_ids)
    for _ in run.steps():
        sft_step(run, run.draw(), settings)
        run.update(1)
    prompts = [e.prompt for e in run.corpus.train[:4]]
    with run.autocast():
        taught = run.policy.grades(prompts, run.grade_ids)
    judge = Student.load(run.finish().checkpoint)
    assert (taught - before).abs().max() > 0.01
    assert torch.allclose(judge.policy.grades(prompts, run.grade_ids), taught, atol=CLOSE * 10)


def test_adapters_leave_out_what_a_mamba_layers_kernels_read_past_them():
    sizes = {"mamba_d_ssm": 64, "mamba_n_heads": 4, "mamba_d_head": 16, "mamba_d_state": 8}
    lm = AutoModelForCausalLM.from_config(AutoConfig.for_model("falcon_h1", **SIZES, **sizes))
    add_lora(lm, 2)
    adapted = {name.split(".lora_")[0].split(".")[-1] for name, _ in lm.named_parameters() if "lora_" in name}
    assert {"in_proj", "q_proj", "down_proj"} <= adapted
    assert "out_proj" not in adapted


def test_rows_longer_than_a_models_context_are_left_out_and_counted(shards, tmp_path):
    folder = make_tiny_model(tmp_path / "model", width=64, layers=1)
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 100}))
    with pytest.raises(PiarError, match="longer than 100 tokens"):
        Run("sft", shards, tmp_path / "run", StudentSettings(model=str(folder)), SftSettings())
