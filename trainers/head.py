"""The language-model head on labelled rows only, in chunks.

Rows that carry no label never meet the vocabulary. Each chunk's logits are recomputed in the
backward pass, so that peak memory is one chunk, whatever the number of rows.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import linear
from torch.utils.checkpoint import checkpoint

CHUNK = 1 << 25  # logits held at once (floats)


def decoder(lm: Any) -> Any:
    """The layers below the head of a transformers causal model, which read tokens.

    That is what its `get_decoder` says, but for models whose head is called so, and those that name themselves.
    """
    found = lm.get_decoder()
    if found is not lm and hasattr(found, "get_input_embeddings"):
        return found
    tokens = lm.get_input_embeddings()
    parts = (part for part in lm.modules() if part is not lm and hasattr(part, "get_input_embeddings"))
    return next((part for part in parts if any(inside is tokens for inside in part.modules())), lm)


@dataclass(frozen=True, eq=False)
class Head:
    """How a model makes logits of hidden rows [n, h]: `cap * tanh(scale * (W x + b) / cap)`, uncapped where cap is 0.

    The names of `scale` and `cap` in transformers' configurations are in `of`; `wrap` checks that they are all, and
    takes an `OwnHead` where they are not.
    """

    weight: Tensor  # [V, h]
    bias: Tensor | None = None  # [V]
    scale: float = 1.0
    cap: float = 0.0

    @classmethod
    def of(cls, lm: Any) -> "Head":
        """The head of a transformers causal model."""
        layer, config = lm.get_output_embeddings(), lm.config.get_text_config()
        scale = getattr(config, "logit_scale", None) or getattr(config, "lm_head_multiplier", None) or 1.0
        scale /= getattr(config, "logits_scaling", None) or 1.0
        cap = getattr(config, "final_logit_softcapping", None) or 0.0
        return cls(layer.weight, getattr(layer, "bias", None), float(scale), float(cap))

    def __call__(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """[n, V] logits in float32, or [n, K] of the tokens `ids` [K] alone."""
        weight, bias = self.weight, self.bias
        if ids is not None:
            weight, bias = weight[ids], None if bias is None else bias[ids]
        logits = linear(hidden, weight, bias).float() * self.scale
        return self.cap * torch.tanh(logits / self.cap) if self.cap else logits


@dataclass(frozen=True, eq=False, kw_only=True)
class OwnHead(Head):
    """A head that does more than `Head` can say: the model's own code, given hidden rows in place of its layers'."""

    lm: Any

    @classmethod
    def of(cls, lm: Any) -> "OwnHead":
        """The head of a transformers causal model, whatever it is."""
        return cls(lm.get_output_embeddings().weight, lm=lm)

    def __call__(self, hidden: Tensor, ids: Tensor | None = None) -> Tensor:
        """See `Head`; all tokens are computed, for a few too."""
        from transformers.modeling_outputs import MoeModelOutputWithPast

        layers, given = decoder(self.lm), MoeModelOutputWithPast(last_hidden_state=hidden[None])
        before = vars(layers).get("forward")
        layers.forward = lambda *args, **named: given
        try:
            tokens = torch.zeros(1, len(hidden), dtype=torch.long, device=hidden.device)
            logits: Tensor = self.lm(input_ids=tokens, use_cache=False).logits[0].float()
        finally:
            del layers.forward
            if before is not None:
                layers.forward = before
        return logits if ids is None else logits[:, ids]


@dataclass(frozen=True, eq=False)
class Readout:
    """What the losses need of n labelled rows, all under the full vocabulary."""

    logp: Tensor  # [n], log-probability of each row's target
    grades: Tensor  # [n, K], log-probabilities of the grade symbols
    entropy: Tensor  # [n], without gradient


def over_rows(
    read: Callable[..., tuple[Tensor, ...]], hidden: Tensor, head: Head, *per_row: Tensor
) -> tuple[Tensor, ...]:
    """Apply `read(logits [c, V], *per_row [c, …])` chunk by chunk and join its tensors along the rows.

    Args:
        hidden: [n, h]; each of `per_row`: [n, …].
    """

    def chunk(rows: Tensor, *values: Tensor) -> tuple[Tensor, ...]:
        return read(head(rows), *values)

    step = max(1, CHUNK // head.weight.shape[0])
    if len(hidden) <= step:
        return chunk(hidden, *per_row)
    parts = [
        checkpoint(chunk, *(t[i : i + step] for t in (hidden, *per_row)), use_reentrant=False)
        for i in range(0, len(hidden), step)
    ]
    return tuple(torch.cat(column) for column in zip(*parts, strict=True))


def read_labels(hidden: Tensor, head: Head, targets: Tensor, grade_ids: Tensor) -> Readout:
    """Log-probabilities of targets and grades, and the entropy, of each labelled row."""

    def read(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        total = logits.logsumexp(-1)
        with torch.no_grad():
            entropy = total - ((logits - total[:, None]).exp() * logits).sum(-1)
        return logits.gather(1, wanted[:, None])[:, 0] - total, logits[:, grade_ids] - total[:, None], entropy

    return Readout(*over_rows(read, hidden, head, targets))


def read_grades(hidden: Tensor, head: Head, grade_ids: Tensor) -> Tensor:
    """[n, K] probabilities over the grades alone: only K rows of the head are multiplied."""
    return head(hidden, grade_ids).softmax(-1)
