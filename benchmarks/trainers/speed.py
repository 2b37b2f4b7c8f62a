r"""Seconds of CPU time for the same work by TRL and by piar, interleaved in one process, on one thread.

    OMP_WAIT_POLICY=PASSIVE OMP_NUM_THREADS=1 PYTHON_WITH_TRL \
        -m benchmarks.trainers.speed [--memory | --parts] [--rounds N] [--labelled] [CASE …]

Run it from the repository's root, in an environment that has TRL beside piar's `train` extra. All get the same
random Qwen3, the same tokens and fp32; CPU time of one thread is what a busy machine spoils least. A step is: write
completions (GRPO), loss, gradients, clipping, AdamW. `--memory` prints how far each arm's peak rises above what it
holds before its first step, in a process of its own; `--parts` shows where a GRPO step of each spends its time. The
arms called "trl, labelled rows" do on the CPU what TRL does on CUDA; quote these ratios (`--labelled` leaves out TRL as
it comes). Without OMP_NUM_THREADS=1 the second thread of TRL would be counted too.
"""

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from benchmarks.trainers import ours, theirs
from benchmarks.trainers.ours import Step
from benchmarks.trainers.work import CASES, GRPO, SFT, Work

Arms = dict[str, Callable[[], Step]]
PATCHED, PLAIN = "trl, labelled rows", "trl as it comes"


def arms(case: str, work: Work) -> Arms:
    """Who takes part in a case on a CPU; ours first."""
    if case in GRPO:
        return {
            "piar": lambda: ours.grpo(work, case),
            PATCHED: lambda: theirs.grpo(work, case),
            PLAIN: lambda: theirs.grpo(work, case, labelled=False),
        }
    if case in SFT:
        grouped = {f"{PATCHED}, by length": lambda: theirs.sft(work, case, grouped=True)}
        return {
            "piar": lambda: ours.sft(work, case),
            PATCHED: lambda: theirs.sft(work, case),
            PLAIN: lambda: theirs.sft(work, case, labelled=False),
            **(grouped if case == "sft-varied" else {}),
        }
    if case == "distill":
        return {
            "piar": lambda: ours.distill(work, cached=True),
            "piar, teacher asked in each step": lambda: ours.distill(work, cached=False),
            PATCHED: lambda: theirs.distill(work),
            PLAIN: lambda: theirs.distill(work, labelled=False),
        }
    return {
        "piar": lambda: ours.score(work),
        "plain forward, one batch": lambda: theirs.plain_scores(work, one_by_one=False),
        "plain forward, one by one": lambda: theirs.plain_scores(work, one_by_one=True),
        "generate 48": lambda: theirs.written_scores(work),
    }


def cpu_seconds(step: Step) -> float:
    """CPU time of all threads of this process during one step; only one of them works at a time."""
    before = time.process_time()
    step()
    return time.process_time() - before


def time_case(case: str, names: list[str], rounds: int) -> dict[str, Any]:
    """Median seconds of each arm after a step of warming up, and how many times longer than ours."""
    everyone = arms(case, Work())
    who = {name: everyone[name]() for name in names}
    seconds: dict[str, list[float]] = {name: [] for name in who}
    for turn in range(rounds + 1):
        for name, step in who.items():
            spent = cpu_seconds(step)
            seconds[name] += [spent] if turn else []
    median = {name: statistics.median(found) for name, found in seconds.items()}
    return {
        "case": case,
        "cpu_seconds": {name: round(value, 3) for name, value in median.items()},
        "ratio": {name: round(value / median["piar"], 2) for name, value in median.items() if name != "piar"},
        "all": {name: [round(s, 3) for s in found] for name, found in seconds.items()},
    }


def peak_of(case: str, name: str) -> float:
    """MB by which the peak of one arm's first two steps exceeds what it held before (Linux)."""
    step, own = arms(case, Work())[name](), Path("/proc/self")
    (own / "clear_refs").write_text("5")  # the high-water mark starts anew
    before = _status(own, "VmRSS")
    step()
    step()
    return (_status(own, "VmHWM") - before) / 1e3


def _status(own: Path, field: str) -> float:
    return float(next(line.split()[1] for line in (own / "status").read_text().splitlines() if line.startswith(field)))


def memory_case(case: str, names: list[str]) -> dict[str, Any]:
    """Peaks of arms, a process for each."""
    peaks = {}
    for name in names:
        line = [sys.executable, "-m", "benchmarks.trainers.speed", "--peak", case, name]
        peaks[name] = json.loads(subprocess.run(line, check=True, capture_output=True, text=True).stdout)
    return {"case": case, "peak_mb": peaks}


def clocked(owner: Any, name: str, spent: dict[str, float]) -> None:
    """Count the CPU seconds that `owner.name(…)` takes."""
    whole = getattr(owner, name)

    def timed(*given: Any, **named: Any) -> Any:
        before = time.process_time()
        try:
            return whole(*given, **named)
        finally:
            spent[name] = spent.get(name, 0.0) + time.process_time() - before

    setattr(owner, name, timed)


def parts_of(case: str) -> dict[str, Any]:
    """CPU seconds of one GRPO step of TRL and of ours: in all, writing completions, and the backward pass."""
    import transformers

    found: dict[str, Any] = {"case": case}
    for name, step in {"piar": ours.grpo(Work(), case), PATCHED: theirs.grpo(Work(), case)}.items():
        step()
        spent: dict[str, float] = {}
        clocked(ours, "generate", spent)
        clocked(transformers.Qwen3ForCausalLM, "generate", spent)
        clocked(torch.Tensor, "backward", spent)
        clocked(torch.optim.AdamW, "step", spent)
        whole = cpu_seconds(step)
        found[name] = {"all": round(whole, 2), **{part: round(value, 2) for part, value in spent.items()}}
    return found


def main() -> None:
    """Print one JSON line per case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("cases", nargs="*", metavar="CASE", help=", ".join(CASES))
    parser.add_argument("--memory", action="store_true")
    parser.add_argument("--parts", action="store_true")
    parser.add_argument("--labelled", action="store_true")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peak", nargs=2, metavar=("CASE", "ARM"), help=argparse.SUPPRESS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    if asked.peak:
        print(round(peak_of(*asked.peak)))
        return
    for case in asked.cases or (GRPO if asked.parts else CASES):
        names = [name for name in arms(case, Work()) if not asked.labelled or name != PLAIN]
        if asked.parts:
            found = parts_of(case)
        else:
            found = memory_case(case, names) if asked.memory else time_case(case, names, asked.rounds)
        print(json.dumps(found), flush=True)


if __name__ == "__main__":
    main()
