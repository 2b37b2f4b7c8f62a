"""Our losses against TRL's, which runs in a process of its own: its warnings are not ours."""

import json
import random
import subprocess
import sys

import pytest
import torch

from trainers import losses
from trainers.head import read_labels
from trainers.layout import Item
from trainers.loading import wrap
from trainers.tiny import tiny_model, tiny_tokenizer

PEER = """
import json, sys, torch
from transformers import AutoModelForCausalLM
from trl.experimental.gkd import GKDTrainer
torch.manual_seed(0)
s, t = torch.randn(2, 5, 30).unbind(0)
jsd = GKDTrainer.generalized_jsd_loss
found = {"jsd": {str(b): jsd(s[None], t[None], beta=b, reduction="sum").item() for b in (0.0, 0.3, 0.5, 1.0)}}
lm = AutoModelForCausalLM.from_pretrained(sys.argv[1])
rows = json.loads(sys.argv[2])
width = max(len(p) + len(c) for p, c in rows)
ids = torch.tensor([p + c + [0] * (width - len(p) - len(c)) for p, c in rows])
mask = torch.tensor([[1] * (len(p) + len(c)) + [0] * (width - len(p) - len(c)) for p, c in rows])
labels = torch.tensor([[-100] * len(p) + c + [-100] * (width - len(p) - len(c)) for p, c in rows])
found["sft"] = lm(input_ids=ids, attention_mask=mask, labels=labels).loss.item()
print(json.dumps(found))
"""
GRPO_PEER = """
import json, sys, torch
from datasets import Dataset
from transformers import AutoModelForCausalLM, AutoTokenizer
from trl import GRPOConfig, GRPOTrainer
from trl.trainer.utils import pad
case = json.loads(sys.argv[2])
trainer = GRPOTrainer(
    model=AutoModelForCausalLM.from_pretrained(sys.argv[1]),
    processing_class=AutoTokenizer.from_pretrained(sys.argv[1]),
    reward_funcs=lambda completions, **_: [0.0] * len(completions),
    train_dataset=Dataset.from_dict({"prompt": ["a lamp"]}),
    args=GRPOConfig(output_dir=sys.argv[1] + "/out", use_cpu=True, bf16=False, report_to=[], beta=0.0, loss_type="grpo",
                    epsilon=0.2, epsilon_high=0.28, per_device_train_batch_size=4, num_generations=4))
trainer.current_gradient_accumulation_steps = 1
wide = lambda lists, side: pad([torch.tensor(x) for x in lists], padding_value=0, padding_side=side)
ones = lambda lists: [[1] * len(x) for x in lists]
inputs = {"prompt_ids": wide(case["prompts"], "left"), "prompt_mask": wide(ones(case["prompts"]), "left"),
          "completion_ids": wide(case["completions"], "right"),
          "completion_mask": wide(ones(case["completions"]), "right"),
          "old_per_token_logps": wide(case["old"], "right"), "advantages": torch.tensor(case["advantages"])}
loss = trainer._compute_loss(trainer.model, inputs)
loss.backward()
print(json.dumps([loss.item(), trainer.model.model.layers[0].mlp.up_proj.weight.grad.norm().item()]))
"""


@pytest.mark.peers
def test_sft_loss_and_divergence_are_trls(tmp_path):
    lm = tiny_model(60, hidden=64, layers=2)
    lm.save_pretrained(tmp_path)
    rubric = list(range(20))
    rows = [([*rubric, 30 + i], [40 + i, 41, 42][: 1 + i]) for i in range(3)]
    out = subprocess.run([sys.executable, "-c", PEER, str(tmp_path), json.dumps(rows)], capture_output=True, text=True)
    assert out.returncode == 0, out.stderr
    peer = json.loads(out.stdout.splitlines()[-1])
    torch.manual_seed(0)
    s, t = torch.randn(2, 5, 30).log_softmax(-1).unbind(0)
    for beta, value in peer["jsd"].items():
        assert losses.generalised_jsd(s, t, float(beta)).sum().item() == pytest.approx(value, rel=1e-5)
    policy = wrap(lm)
    [one] = policy.pack([Item(p, [c]) for p, c in rows])
    out = policy([one], lambda h, w: read_labels(h, w, one.targets, torch.tensor([1])))
    assert -out.logp.mean().item() == pytest.approx(peer["sft"], rel=1e-5)


@pytest.mark.peers
def test_grpo_loss_and_gradient_are_trls_with_the_same_advantages(tmp_path):
    lm, draw = tiny_model(60, hidden=64, layers=2), random.Random(0)
    lm.save_pretrained(tmp_path)
    tiny_tokenizer(["a lamp"] * 9, "0123", 300).save_pretrained(tmp_path)
    prompts = [[*range(20), 30], [*range(20), 31, 32, 33]]
    groups = [[[draw.randrange(60) for _ in range(draw.randrange(1, 9))] for _ in range(4)] for _ in prompts]
    completions = [c for group in groups for c in group]
    rewards = torch.tensor([draw.choice([0.0, 1.0, 3.0]) for _ in completions])[:, None]
    better = losses.advantages(rewards, torch.tensor([0, 1]).repeat_interleave(4), credit="local")
    policy = wrap(lm)
    [one] = policy.pack([Item(p, group) for p, group in zip(prompts, groups, strict=True)])
    out = policy([one], lambda h, w: read_labels(h, w, one.targets, torch.tensor([1])))
    old = out.logp.detach() + torch.tensor([draw.gauss(0, 0.4) for _ in out.logp])  # many beyond the clip
    loss = losses.segment_loss(out.logp, old, better, torch.ones_like(better), one.owner, torch.zeros_like(one.owner),
                               clip_low=0.2, clip_high=0.28)[0].mean()  # fmt: skip
    loss.backward()
    case = {"prompts": [p for p in prompts for _ in range(4)], "completions": completions,
            "old": [old[one.owner == i].tolist() for i in range(len(completions))],
            "advantages": better[:, 0].tolist()}  # fmt: skip
    run = subprocess.run(
        [sys.executable, "-c", GRPO_PEER, str(tmp_path), json.dumps(case)], capture_output=True, text=True
    )
    assert run.returncode == 0, run.stderr
    theirs = json.loads(run.stdout.splitlines()[-1])
    ours = [loss.item(), lm.model.layers[0].mlp.up_proj.weight.grad.norm().item()]
    assert ours == pytest.approx(theirs, rel=1e-5, abs=1e-6)  # the loss is a small difference of large terms
