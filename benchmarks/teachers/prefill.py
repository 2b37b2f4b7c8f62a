"""Scoring samples under one long instruction: the instruction shared, against each whole prompt by itself.

A random Qwen3, fp32, single thread; CPU seconds, rounds interleaved after a warm-up, medians.

    python -m benchmarks.teachers.prefill [--samples 64] [--rounds 5] [--width 256] [--layers 6]
"""

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import torch

from piar.llm.base import Message, Request
from piar.llm.transformers_local import LocalOptions, TransformersClient
from tests.tiny_model import TEXT, make_tiny_model
from trainers.model import Policy

GRADES = ("0", "1", "2")


def requests(tokenizer, count):
    """An instruction of about 600 tokens, and samples of about 60 that differ from their first word on."""
    words = " ".join(TEXT * 40).split()
    rules = next(
        " ".join(words[:n]) for n in range(50, len(words)) if len(tokenizer(" ".join(words[:n])).input_ids) > 600
    )
    sample = " ".join(words[:22])
    chats = [(Message("system", rules), Message("user", f"{i} {sample}")) for i in range(count)]
    return [Request(f"k{i}", chat, GRADES) for i, chat in enumerate(chats)]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    options = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        made = make_tiny_model(Path(folder), width=options.width, layers=options.layers)
        client = TransformersClient(str(made), LocalOptions(device="cpu"))
    asked = requests(client._tokenizer, options.samples)
    shared = client._policy
    whole = Policy(shared.lm, window=0)
    ratios, largest = [], 0.0
    client.generate(asked[:4])  # warms up
    for _ in range(options.rounds):
        seconds, probs = [], []
        for policy in (shared, whole):
            client._policy = policy
            started = time.process_time()
            probs.append([c.probs for c in client.generate(asked)])
            seconds.append(time.process_time() - started)
        ratios.append(seconds[1] / seconds[0])
        largest = max(abs(a[g] - b[g]) for a, b in zip(*probs, strict=True) for g in GRADES)
    each = ", ".join(f"{ratio:.1f}" for ratio in ratios)
    print(f"shared {statistics.median(ratios):.1f} x whole prompts ({each}), probabilities within {largest:.1e}")


if __name__ == "__main__":
    main()
