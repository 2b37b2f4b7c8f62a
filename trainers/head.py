"""The language-model head on labelled rows only, in chunks.

Rows that carry no label never meet the vocabulary. Each chunk's logits are recomputed in the
backward pass, so that peak memory is one chunk, whatever the number of rows.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

CHUNK = 1 << 25  # logits held at once (floats)


@dataclass(frozen=True, eq=False)
class Readout:
    """What the losses need of n labelled rows, all under the full vocabulary."""

    logp: Tensor  # [n], log-probability of each row's target
    grades: Tensor  # [n, K], log-probabilities of the grade symbols
    entropy: Tensor  # [n], without gradient


def over_rows(
    read: Callable[..., tuple[Tensor, ...]], hidden: Tensor, weight: Tensor, *per_row: Tensor
) -> tuple[Tensor, ...]:
    """Apply `read(logits [c, V], *per_row [c, …])` chunk by chunk and join its tensors along the rows.

    Args:
        hidden: [n, h]; weight: [V, h]; each of `per_row`: [n, …].
    """

    def chunk(rows: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        return read(linear(rows, weight).float(), *values)

    step = max(1, CHUNK // weight.shape[0])
    if len(hidden) <= step:
        return chunk(hidden, *per_row)
    parts = [
        checkpoint(chunk, *(t[i : i + step] for t in (hidden, *per_row)), use_reentrant=False)
        for i in range(0, len(hidden), step)
    ]
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def read_labels(hidden: Tensor, weight: Tensor, targets: Tensor, grade_ids: Tensor) -> Readout:
    """Log-probabilities of targets and grades, and the entropy, of each labelled row."""

    def read(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        total = logits.logsumexp(-1)
        with torch.no_grad():
            entropy = total - ((logits - total[:, None]).exp() * logits).sum(-1)
        return logits.gather(1, wanted[:, None])[:, 0] - total, logits[:, grade_ids] - total[:, None], entropy

    return Readout(*over_rows(read, hidden, weight, targets))


def read_grades(hidden: Tensor, weight: Tensor, grade_ids: Tensor) -> Tensor:
    """[n, K] probabilities over the grades alone: only K rows of the head are multiplied."""
    return linear(hidden, weight[grade_ids]).float().softmax(-1)
