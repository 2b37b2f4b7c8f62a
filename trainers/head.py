"""The language-model head on labelled rows only, in chunks.

Rows that carry no label never meet the vocabulary, and peak memory is one chunk of logits, whatever the number of rows.
Of a frozen head (adapters) logits are computed once and gradients come from sums that the forward pass leaves; of a
head that learns each chunk's logits are computed again in the backward pass.
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

    @property
    def learns(self) -> bool:
        """Whether its weights have a gradient."""
        return self.weight.requires_grad or (self.bias is not None and self.bias.requires_grad)

    def slope(self, logits: Tensor) -> Tensor:
        """How fast each logit rises with `W x + b`."""
        return self.scale * (1 - (logits / self.cap).square()) if self.cap else torch.full_like(logits, self.scale)


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
    ids = torch.cat([targets[:, None], grade_ids.expand(len(targets), -1)], 1)
    logp, entropy = log_probs(hidden, head, ids)
    return Readout(logp[:, 0], logp[:, 1:], entropy)


def log_probs(hidden: Tensor, head: Head, ids: Tensor) -> tuple[Tensor, Tensor]:
    """[n, m] log-probabilities of the tokens `ids` [n, m] among all, and the rows' entropies [n] (without gradient)."""
    if type(head) is Head and hidden.requires_grad and torch.is_grad_enabled() and not head.learns:
        logp, entropy = _FrozenHead.apply(hidden, head, ids)  # type: ignore[no-untyped-call]
        return logp, entropy

    def read(logits: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor]:
        total = logits.logsumexp(-1)
        with torch.no_grad():
            entropy = total - ((logits - total[:, None]).exp() * logits).sum(-1)
        return logits.gather(1, wanted) - total[:, None], entropy

    logp, entropy = over_rows(read, hidden, head, ids)
    return logp, entropy


class _FrozenHead(torch.autograd.Function):
    """`log_probs` under a head that does not learn: two products with its weights a row, the least there is.

    The gradient of log p_i in a hidden row is s_i w_i - sum_v p_v s_v w_v, with w_v the head's rows and s_v the slope
    of logit v in w_v x. The sum is the same for every i, so it is all that the forward pass has to leave.
    """

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, head: Head, ids: Tensor) -> tuple[Tensor, Tensor]:
        step = max(1, CHUNK // head.weight.shape[0])
        parts = [_read(hidden[i : i + step], ids[i : i + step], head) for i in range(0, len(hidden), step)]
        logp, entropy, slopes, mean = (torch.cat(column) for column in zip(*parts, strict=True))
        ctx.save_for_backward(head.weight[ids] * slopes[:, :, None], mean)
        ctx.mark_non_differentiable(entropy)
        return logp, entropy

    @staticmethod
    def backward(ctx: Any, *wanted: Tensor) -> tuple[Tensor, None, None]:
        rows, mean = ctx.saved_tensors
        by_token = wanted[0][:, :, None] * rows
        return by_token.sum(1) - wanted[0].sum(1, keepdim=True) * mean, None, None


def _read(hidden: Tensor, ids: Tensor, head: Head) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Of a chunk: log-probabilities [c, m], entropies [c], slopes at `ids` [c, m], the mean row under them [c, h]."""
    logits = head(hidden)
    top = logits.amax(-1, keepdim=True)
    p = (logits - top).exp_()
    mass = p.sum(-1, keepdim=True)
    total = top + mass.log()
    entropy = (total - (p * logits).sum(-1, keepdim=True) / mass)[:, 0]
    chosen = logits.gather(1, ids)
    if head.cap:
        p *= head.slope(logits)
    mean = (p.to(head.weight.dtype) @ head.weight).to(logits.dtype) * (1.0 if head.cap else head.scale) / mass
    return chosen - total, entropy, head.slope(chosen), mean


def read_grades(hidden: Tensor, head: Head, grade_ids: Tensor) -> Tensor:
    """[n, K] probabilities over the grades alone: only K rows of the head are multiplied."""
    return head(hidden, grade_ids).softmax(-1)
