r"""The table of `benchmarks.trainers.speed` on one GPU: a model of the shape of Qwen3-0.6B, in bf16, beside TRL.

    PYTHON_WITH_TRL -m benchmarks.trainers.gpu [-o FILE] [--peak-tflops T] [--limit SECONDS] [CASE …]

Run it from the repository's root; it needs piar's `train` extra, and Triton with a C compiler (without them attention
runs in blocks, slower, and a warning says so). TRL is timed where it is installed, with transformers' generation and,
where vLLM is installed too, with vLLM in the same process. Every arm runs in a process of its own, so that none leaves
memory to the next; one that runs out of memory is tried again in 2, 4, 8 micro-batches, one that fails or takes
longer than the limit is reported, and the rest goes on.

One JSON line an arm, at once: seconds of a step on the clock (median of five after two to warm up), tokens of work a
second (every prompt and completion as often as a trainer that repeats prompts meets them), the share of the card's
peak, and peak memory as torch counts it. The share counts the products with the model's own matrices that this arm
has to do, not the head, not attention: it is a little too low, for every arm alike. All of it as one Markdown table at
the end. `--tiny` runs the same code on a CPU, small, in this process.
"""

import argparse
import importlib.util
import json
import logging
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
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
OURS, ANSWER = "piar", "figures: "
PEAKS = {"H100": 989e12, "H200": 989e12, "A100": 312e12, "L40S": 362e12, "4090": 165e12}  # dense bf16, by the makers


def arms(case: str, work: Work) -> Arms:
    """Who takes part; ours first, TRL where it is installed."""
    found: Arms = {OURS: _ours(case, work)}
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
    once = 2.0 * work.weights * tokens(items(case, work), shared=arm == OURS)
    if case == "score":
        return once
    writing = once if case in GRPO else 0.0  # reads the prompts, and every token written, once
    teacher = 4 * once if case == "distill" and arm != OURS else 0.0  # ours was asked before
    return 3 * once + writing + teacher


def measured(case: str, arm: str, work: Work, *, rounds: int, peak: float | None) -> dict[str, Any]:
    """One arm's figures, taken in this process: seconds, tokens a second, share of the peak, memory."""
    try:
        step = arms(case, work)[arm]()
        _seconds(step, work)
        _seconds(step, work)
        if work.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        seconds = statistics.median(_seconds(step, work) for _ in range(rounds))
    except Exception as error:  # the card is lent for minutes: the other arms must not be lost
        return {"failed": f"{type(error).__name__}: {error}"[:300]}
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


def apart(case: str, arm: str, work: Work, *, peak: float | None, limit: float) -> dict[str, Any]:
    """One arm's figures, taken in a process of its own."""
    line = [sys.executable, "-m", "benchmarks.trainers.gpu", "--arm", case, arm, str(work.parts), str(peak or 0)]
    settings = {"PYTORCH_CUDA_ALLOC_CONF": "expandable_segments:True"} if "vllm" not in arm else {}
    try:
        done = subprocess.run(line, capture_output=True, text=True, timeout=limit, env={**os.environ, **settings})
    except subprocess.TimeoutExpired:
        return {"failed": f"took longer than {limit:.0f} s"}
    found = [text for text in done.stdout.splitlines() if text.startswith(ANSWER)]
    if found:
        return dict(json.loads(found[-1].removeprefix(ANSWER)))
    return {"failed": f"exit {done.returncode}: {done.stderr.strip()[-300:]}"}


def fitting(take: Callable[[Work], dict[str, Any]], work: Work) -> dict[str, Any]:
    """Figures of an arm in as few micro-batches as the card's memory needs."""
    found = take(work)
    if "OutOfMemory" in found.get("failed", "") and work.parts < min(8, work.prompts, work.batch):
        return fitting(take, replace(work, parts=2 * work.parts))
    return found | ({"micro_batches": work.parts} if work.parts > 1 else {})


def table(lines: list[dict[str, Any]]) -> str:
    """The arms' lines in Markdown; the ratio is how many times longer than ours."""
    own = {line["case"]: line.get("seconds") for line in lines if line["arm"] == OURS}
    rows = ["| case | arm | seconds | × ours | tokens/s | share of peak | GB | |", "|---|---|---|---|---|---|---|---|"]
    for line in lines:
        base, seconds = own.get(line["case"]), line.get("seconds")
        ratio = f"{seconds / base:.2f}" if base and seconds else ""
        said = line.get("failed", f"{line['micro_batches']} micro-batches" if "micro_batches" in line else "")
        figures = [line.get(name, "") for name in ("tokens_per_second", "share_of_peak", "peak_gb")]
        cells = [line["case"], line["arm"], seconds or "", ratio, *figures, said.replace("|", "/").replace("\n", " ")]
        rows.append("| " + " | ".join(map(str, cells)) + " |")
    return "\n".join(rows)


def machine(tiny: bool) -> dict[str, Any]:
    """The card and what is installed."""
    found: dict[str, Any] = {"device": "cpu" if tiny else torch.cuda.get_device_name()}
    if not tiny:
        found["memory_gb"] = round(torch.cuda.get_device_properties(0).total_memory / 1e9)
        found["compiler"] = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    for name in ("torch", "triton", "transformers", "trl", "vllm"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def main(arguments: list[str] | None = None) -> int:
    """Print the machine, one JSON line per arm and the table; exit 1 where there is no card."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("-o", "--out", type=Path, help="also append the lines to this file")
    parser.add_argument("--peak-tflops", type=float, help="the card's dense bf16 peak, where it is not known here")
    parser.add_argument("--limit", type=float, default=300, help="seconds that an arm may take, all included")
    parser.add_argument("--tiny", action="store_true", help="the same code on a CPU, small: says nothing about speed")
    parser.add_argument("--arm", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    logging.basicConfig(level=logging.WARNING)
    if asked.arm:
        case, arm, parts, peak = asked.arm
        found = measured(case, arm, replace(CARD, parts=int(parts)), rounds=5, peak=float(peak))
        print(f"\n{ANSWER}{json.dumps(found)}", flush=True)
        os._exit(0)  # a trainer's threads, or vLLM's, would hold the card until the limit
    if unknown := set(asked.cases) - set(CASES):
        parser.error(f"there is no case {', '.join(sorted(unknown))}")
    if not asked.tiny and not torch.cuda.is_available():
        print(
            "No GPU here: this table needs one (benchmarks.trainers.speed is the CPU's; --tiny runs this code there)."
        )
        return 1
    about = machine(asked.tiny)
    known = next((value for card, value in PEAKS.items() if card in about["device"]), None)
    peak = asked.peak_tflops * 1e12 if asked.peak_tflops else known
    _tell(about | {"peak_tflops": peak and peak / 1e12}, None)
    lines: list[dict[str, Any]] = []
    for case in asked.cases or CASES:
        for arm in arms(case, CARD):

            def take(work: Work, case: str = case, arm: str = arm) -> dict[str, Any]:
                if asked.tiny:
                    return measured(case, arm, work, rounds=1, peak=peak)
                return apart(case, arm, work, peak=peak, limit=asked.limit)

            lines.append({"case": case, "arm": arm, **fitting(take, TINY if asked.tiny else CARD)})
            _tell(lines[-1], asked.out)
    print(table(lines))
    return 0


def _tell(line: dict[str, Any], out: Path | None) -> None:
    text = json.dumps(line)
    print(text, flush=True)
    if out:
        with out.open("a", encoding="utf-8") as file:
            file.write(text + "\n")


if __name__ == "__main__":
    raise SystemExit(main())
