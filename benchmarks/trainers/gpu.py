r"""The table of `benchmarks.trainers.speed` on one GPU: a model of the shape of Qwen3-0.6B, in bf16, beside TRL.

    PYTHON_WITH_TRL -m benchmarks.trainers.gpu [-o FILE] [--peak-tflops T] [CASE …]

One JSON line a case: for each arm seconds of a step on the clock (median of five after two to warm up), tokens of
work a second (every prompt and completion as often as a trainer that repeats prompts meets them), the share of the
card's peak, and peak memory. The share counts the products with the model's own matrices that this arm has to do,
not the head, not attention: it is a little too low, for every arm alike. Each arm is freed before the next is
made. TRL generates with transformers and, where vLLM is installed, with vLLM in the same process; an arm that
fails is reported and the rest goes on. Without TRL only ours is timed. `--tiny` runs the same code on a CPU, small.
"""

import argparse
import gc
import importlib.util
import json
import statistics
import time
from pathlib import Path
from typing import Any

import torch

from benchmarks.trainers import ours, theirs
from benchmarks.trainers.speed import Arms
from benchmarks.trainers.work import CASES, GRPO, SFT, Work
from trainers.layout import Item, pack

CARD = Work(vocab=151_936, hidden=1024, layers=28, heads=16, head_dim=128, feed_forward=3072, device="cuda",
            dtype=torch.bfloat16)  # fmt: skip
TINY = Work(vocab=300, hidden=64, layers=2, heads=2, head_dim=32, feed_forward=64, group=2, prompts=2, batch=2,
            shrink=8)  # fmt: skip
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}  # dense bf16, by the makers


def arms(case: str, work: Work) -> Arms:
    """Who takes part; ours first, TRL where it is installed."""
    found: Arms = {"piar": _ours(case, work)}
    if case == "score":
        return found | {
            "plain forward, one batch": lambda: theirs.plain_scores(work, one_by_one=False),
            "generate 48": lambda: theirs.written_scores(work),
        }
    if importlib.util.find_spec("trl") is None:
        return found
    if case in GRPO:
        with_vllm: Arms = {"trl with vllm": lambda: theirs.grpo(work, case, vllm=True)}
        fast = importlib.util.find_spec("vllm") is not None
        return found | {"trl": lambda: theirs.grpo(work, case)} | (with_vllm if fast else {})
    if case in SFT:
        return found | {"trl": lambda: theirs.sft(work, case)}
    return found | {"trl": lambda: theirs.distill(work)}


def _ours(case: str, work: Work) -> Any:
    if case in GRPO:
        return lambda: ours.grpo(work, case)
    if case in SFT:
        return lambda: ours.sft(work, case)
    return (lambda: ours.distill(work, cached=True)) if case == "distill" else lambda: ours.score(work)


def items(case: str, work: Work) -> list[Item]:
    """What a step reads, completions included."""
    if case in GRPO:
        asked, length = work.rollouts(case)
        return [Item(p, [[3 + i] * length for i in range(work.group)]) for p in asked]
    if case == "score":
        return [Item(p, [[3]]) for p in work.asked()]
    return [Item(p, [c]) for p, c in work.pairs("sft" if case == "distill" else case)]


def tokens(found: list[Item], *, shared: bool) -> int:
    """Tokens of a step, prompts repeated for every completion or shared as our tree does."""
    if shared:
        return len(pack(found).tokens)
    return sum(len(item.prompt) + len(c) for item in found for c in item.completions)


def flops(case: str, work: Work, arm: str) -> float:
    """Products of the arm's step: 6 for each weight and token learned from, 2 for each one only read."""
    once = 2.0 * work.weights * tokens(items(case, work), shared=arm == "piar")
    if case == "score":
        return once
    writing = once if case in GRPO else 0.0  # reads the prompts, and every token written, once
    teacher = 4 * once if case == "distill" and arm != "piar" else 0.0  # ours was asked before
    return 3 * once + writing + teacher


def measured(case: str, work: Work, arm: str, make: Any, *, rounds: int, peak: float | None) -> dict[str, Any]:
    """One arm's line: seconds, tokens a second, share of the peak, memory."""
    _free(work)
    step = make()
    _seconds(step, work)
    _seconds(step, work)
    if work.device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    seconds = statistics.median(_seconds(step, work) for _ in range(rounds))
    found: dict[str, Any] = {
        "seconds": round(seconds, 4),
        "tokens_per_second": round(tokens(items(case, work), shared=False) / seconds),
    }
    if peak:
        found["share_of_peak"] = round(flops(case, work, arm) / seconds / peak, 3)
    if work.device == "cuda":
        found["peak_gb"] = round(torch.cuda.max_memory_allocated() / 1e9, 2)
    return found


def _seconds(step: ours.Step, work: Work) -> float:
    began = time.perf_counter()
    step()
    if work.device == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - began


def _free(work: Work) -> None:
    gc.collect()
    if work.device == "cuda":
        torch.cuda.empty_cache()


def table(case: str, work: Work, *, rounds: int = 5, peak: float | None = None) -> dict[str, Any]:
    """All arms of a case; one that fails says why."""
    found: dict[str, Any] = {"case": case, "arms": {}}
    for name, make in arms(case, work).items():
        try:
            found["arms"][name] = measured(case, work, name, make, rounds=rounds, peak=peak)
        except (Exception, SystemExit) as error:  # the card is lent for minutes: the other arms must not be lost
            found["arms"][name] = {"failed": f"{type(error).__name__}: {error}"[:300]}
    base = found["arms"]["piar"].get("seconds")
    others = {name: one["seconds"] for name, one in found["arms"].items() if name != "piar" and "seconds" in one}
    found["ratio"] = {name: round(seconds / base, 2) for name, seconds in others.items()} if base else {}
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print the card, then one JSON line per case; exit 1 where there is no card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("-o", "--out", type=Path, help="also append the lines to this file")
    parser.add_argument("--peak-tflops", type=float, help="the card's dense bf16 peak, where it is not known here")
    parser.add_argument("--tiny", action="store_true", help="the same code on a CPU, small: says nothing about speed")
    asked = parser.parse_args(arguments)
    if unknown := set(asked.cases) - set(CASES):
        parser.error(f"there is no case {', '.join(sorted(unknown))}")
    if not asked.tiny and not torch.cuda.is_available():
        print(
            "No GPU here: this table needs one (benchmarks.trainers.speed is the CPU's; --tiny runs this code there)."
        )
        return 1
    work, name = (TINY, "cpu") if asked.tiny else (CARD, torch.cuda.get_device_name())
    known = next((value for card, value in PEAKS.items() if card in name), None)
    peak = asked.peak_tflops * 1e12 if asked.peak_tflops else known
    print(json.dumps({"device": name, "torch": torch.__version__, "peak_tflops": peak and peak / 1e12}), flush=True)
    for case in asked.cases or CASES:
        line = json.dumps(table(case, work, rounds=1 if asked.tiny else 5, peak=peak))
        print(line, flush=True)
        if asked.out:
            with asked.out.open("a", encoding="utf-8") as file:
                file.write(line + "\n")
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
