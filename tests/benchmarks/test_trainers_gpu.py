"""The GPU table's code on a CPU: every case runs, counts what it says it counts, and survives an arm that fails."""

import json
from dataclasses import replace

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
    said = capsys.readouterr().out.splitlines()
    card, *lines = (json.loads(text) for text in said if text.startswith("{"))
    assert (card["device"], card["peak_tflops"]) == ("cpu", 1)
    assert [line["case"] for line in lines if line["arm"] == "piar"] == cases
    for line in lines:
        if line["arm"].startswith("trl"):  # where it is installed, and its warnings are errors here
            continue
        assert line["tokens_per_second"] > 0
        assert line["share_of_peak"] >= 0
    assert [line["arm"] for line in lines[-3:]] == ["piar", "plain forward, one batch", "generate 48"]
    assert [json.loads(text) for text in (tmp_path / "table.jsonl").read_text().splitlines()] == lines
    assert len([text for text in said if text.startswith("| ")]) == 1 + len(lines)


def test_an_arm_that_fails_is_reported_and_the_rest_goes_on(monkeypatch, capsys):
    monkeypatch.setattr(ours, "score", lambda work: 1 / 0)
    assert gpu.main(["score", "--tiny"]) == 0
    _, mine, *others = (json.loads(text) for text in capsys.readouterr().out.splitlines() if text.startswith("{"))
    assert mine["failed"] == "ZeroDivisionError: division by zero"
    assert all(other["seconds"] >= 0 for other in others)


def test_an_arm_without_enough_memory_is_tried_in_smaller_parts():
    tried = []

    def take(work):
        tried.append(work.parts)
        return {"failed": "OutOfMemoryError: 80 GB"} if work.parts < 4 else {"seconds": 1.0}

    assert gpu.fitting(take, Work()) == {"seconds": 1.0, "micro_batches": 4}
    assert tried == [1, 2, 4]
    assert "OutOfMemory" in gpu.fitting(lambda work: {"failed": "OutOfMemoryError"}, Work())["failed"]


@pytest.mark.parametrize("kind", ["grpo", "sft"])
def test_a_step_in_parts_is_the_same_update(monkeypatch, kind):
    """What a smaller card computes in micro-batches."""
    policies, share = [], ours.sharing
    monkeypatch.setattr(ours, "sharing", lambda lm: policies.append(share(lm)) or policies[-1])
    monkeypatch.setattr(torch.optim, "AdamW", lambda parameters, lr: torch.optim.SGD(parameters, lr=1.0))
    for parts in (1, 2):
        step = getattr(ours, kind)(replace(gpu.TINY, parts=parts), kind)
        start = torch.cat([p.detach().flatten() for p in policies[-1].parameters()])
        torch.manual_seed(0)
        step()
    once, cut = (torch.cat([p.detach().flatten() for p in policy.parameters()]) - start for policy in policies)
    assert once.norm() > 1e-3
    assert (cut - once).norm() < 1e-4 * once.norm()


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
