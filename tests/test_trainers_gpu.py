"""The GPU table's code on a CPU: every case runs, counts what it says it counts, and survives an arm that fails."""

import json

import pytest
import torch

from benchmarks.trainers import gpu, ours
from benchmarks.trainers.work import Work


def test_without_a_gpu_it_says_so(capsys, monkeypatch):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert gpu.main([]) == 1
    assert "No GPU here" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        gpu.main(["grpoo"])


def test_every_kind_of_case_runs_small(capsys, tmp_path):
    cases = ["grpo", "sft-varied", "distill", "score"]
    assert gpu.main([*cases, "--tiny", "--peak-tflops", "1", "-o", str(tmp_path / "table.jsonl")]) == 0
    card, *lines = map(json.loads, capsys.readouterr().out.splitlines())
    assert card["peak_tflops"] == 1
    assert [line["case"] for line in lines] == cases
    for line in lines:
        mine = line["arms"]["piar"]
        assert mine["tokens_per_second"] > 0
        assert mine["share_of_peak"] >= 0
    assert set(lines[-1]["ratio"]) == {"plain forward, one batch", "generate 48"}
    assert [json.loads(text) for text in (tmp_path / "table.jsonl").read_text().splitlines()] == lines


def test_an_arm_that_fails_is_reported_and_the_rest_goes_on(monkeypatch):
    monkeypatch.setattr(ours, "score", lambda work: 1 / 0)
    found = gpu.table("score", gpu.TINY, rounds=1)
    assert found["arms"]["piar"] == {"failed": "ZeroDivisionError: division by zero"}
    assert found["arms"]["generate 48"]["seconds"] >= 0


def test_tokens_and_weights_are_those_of_the_work():
    work = Work()
    items = gpu.items("grpo", work)
    assert gpu.tokens(items, shared=False) == 8 * 8 * (200 + 48)
    assert gpu.tokens(items, shared=True) == 120 + 8 * (80 - 1) + 8 * 8 * 48  # last prompt tokens belong to the answers
    lm = work.lm()
    matrices = sum(p.numel() for p in lm.parameters() if p.ndim == 2) - lm.get_input_embeddings().weight.numel()
    assert work.weights == matrices
    assert work.teacher().weights == 4 * work.weights
    assert gpu.CARD.weights == pytest.approx(0.44e9, rel=0.01)  # Qwen3-0.6B without its embedding
