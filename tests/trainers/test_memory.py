"""A long run's memory is flat in both precisions, though every step meets batches of new lengths."""

import json
import os
import subprocess
import sys

import pytest
import torch

from tests import ROOT, shards_fixture
from trainers.precision import for_reading

STEPS, WARM = 220, 100
MOST = 1.05  # of the peak once warm; without freed memory given back, bf16 comes to 1.07
RUN = """
import sys
from pathlib import Path
from trainers import sft
from trainers.config import SftSettings
settings = SftSettings(steps=int(sys.argv[3]), batch_size=24, log_every=10, pack_tokens=1024, words_first=0)
sft.train(Path(sys.argv[1]), Path(sys.argv[2]), settings=settings)
"""


@pytest.fixture
def shards(tmp_path, monkeypatch):
    """Texts of 1 to 120 words more than usual."""
    plain = shards_fixture.row

    def longer(number, draw, rubric):
        row = plain(number, draw, rubric)
        words = " ".join(draw.choice(shards_fixture.KINDS) for _ in range(draw.randint(1, 120)))
        row["prompt"][-1]["content"] = row["prompt"][-1]["content"].replace("number", f"{words} number")
        return row

    monkeypatch.setattr(shards_fixture, "row", longer)
    shards_fixture.write_shards(tmp_path / "shards", 2_000)
    return tmp_path / "shards"


@pytest.mark.integration
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_memory_no_longer_grows_once_a_run_is_warm(shards, tmp_path, precision, monkeypatch):
    monkeypatch.delenv("PIAR_PRECISION", raising=False)
    if precision == "bf16" and for_reading() != torch.bfloat16:
        pytest.skip("this machine multiplies bf16 slower than fp32, with AVX2 alone ten times: nobody trains so here")
    environment = {**os.environ, "PIAR_PRECISION": precision, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", RUN, str(shards), str(tmp_path / "out"), str(STEPS)]
    subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    lines = [json.loads(line) for line in (tmp_path / "out" / "metrics.jsonl").read_text().splitlines()]
    peak = {line["step"]: line["memory_mb"] for line in lines if "memory_mb" in line}
    assert max(peak.values()) <= MOST * max(mb for step, mb in peak.items() if step <= WARM)
