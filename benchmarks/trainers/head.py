"""Processor seconds of log-probabilities and their gradient under the frozen head of a large vocabulary.

    OMP_NUM_THREADS=1 python -m benchmarks.trainers.head [--rows N] [--vocabulary V] [--width H] [--rounds N]

All compute the same loss of the same random rows in fp32, on one thread. The limit is what no way can do without:
logits, and the product of their gradient with the head's weights.
"""

import argparse
import time
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy, linear

from benchmarks.timing import compare
from trainers.head import Head, log_probs, over_rows


def losses(hidden: Tensor, weight: Tensor, targets: Tensor) -> dict[str, Callable[[], Tensor]]:
    """Each way to the loss; the limit stands for its two products alone."""

    def recomputed(logits: Tensor, wanted: Tensor) -> tuple[Tensor]:
        return (logits.log_softmax(-1).gather(1, wanted[:, None])[:, 0],)

    head = Head(weight)
    return {
        "limit": lambda: linear(hidden, weight).sum() * 0,
        "piar": lambda: -log_probs(hidden, head, targets[:, None])[0].mean(),
        "chunks computed again for the gradient": lambda: -over_rows(recomputed, hidden, head, targets)[0].mean(),
        "all logits held at once": lambda: cross_entropy(linear(hidden, weight), targets),
    }


def main(arguments: list[str] | None = None) -> None:
    """Print each way's seconds and its ratio to the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--vocabulary", type=int, default=262_144, help="Gemma 3's")
    parser.add_argument("--width", type=int, default=640, help="Gemma 3 270M's")
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args(arguments)
    generator = torch.Generator().manual_seed(0)
    weight = 0.02 * torch.randn(asked.vocabulary, asked.width, generator=generator)
    hidden = torch.randn(asked.rows, asked.width, generator=generator).requires_grad_()
    targets = torch.randint(asked.vocabulary, (asked.rows,), generator=generator)

    def step(loss: Callable[[], Tensor]) -> Callable[[], None]:
        return lambda: loss().backward()  # type: ignore[no-untyped-call]

    ways = {name: step(loss) for name, loss in losses(hidden, weight, targets).items()}
    compare(ways, rounds=1)  # warms up
    for one in compare(ways, rounds=asked.rounds, clock=time.process_time):
        print(one)


if __name__ == "__main__":
    main()
