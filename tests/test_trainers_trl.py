"""Our losses against TRL's, in an environment that has it: PIAR_TRL_PYTHON, or `.envs/trl`."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

from trainers import losses
from trainers.head import read_labels
from trainers.layout import Item
from trainers.model import tiny_model, wrap

ROOT = Path(__file__).parent.parent
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


def trl_python() -> Path:
    """The interpreter of the environment that holds TRL."""
    found = Path(os.environ.get("PIAR_TRL_PYTHON", ROOT / ".envs" / "trl" / "bin" / "python"))
    if not found.exists():
        pytest.skip("no TRL here: make .envs/trl, or set PIAR_TRL_PYTHON")
    return found


@pytest.mark.integration
def test_sft_loss_and_divergence_are_trls(tmp_path):
    lm = tiny_model(60, hidden=64, layers=2)
    lm.save_pretrained(tmp_path)
    rubric = list(range(20))
    rows = [([*rubric, 30 + i], [40 + i, 41, 42][: 1 + i]) for i in range(3)]
    out = subprocess.run([trl_python(), "-c", PEER, str(tmp_path), json.dumps(rows)], capture_output=True, text=True)
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
