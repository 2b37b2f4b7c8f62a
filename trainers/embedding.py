"""A frozen text encoder: one unit vector a text, pooled as its folder says.

Reads plain encoders (mean pooling) and folders of sentence-transformers (`modules.json`: Transformer, Pooling,
Normalize). Left out: further layers behind the pooling, and prompts put in front of a text.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from store.errors import PiarError, UsageError
from store.files import read_text
from trainers.chat import whole
from trainers.folder import load_encoder, load_tokenizer

TOKENS = 256  # most of a text, where the encoder could read more
_BATCH = 32
_LAYERS = ("Transformer", "Pooling", "Normalize")

Pool = Callable[[Tensor, Tensor], Tensor]  # [N, T, D] states and [N, T] mask -> [N, D]


def _mean(states: Tensor, mask: Tensor) -> Tensor:
    weight = mask[..., None].to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1).clamp(min=1)


def _first(states: Tensor, mask: Tensor) -> Tensor:
    return states[torch.arange(len(states)), mask.int().argmax(1)]


def _last(states: Tensor, mask: Tensor) -> Tensor:
    places = torch.arange(mask.shape[1], device=mask.device) * mask
    return states[torch.arange(len(states)), places.argmax(1)]


def _largest(states: Tensor, mask: Tensor) -> Tensor:
    return states.masked_fill(mask[..., None] == 0, -torch.inf).amax(1)


POOLS: dict[str, Pool] = {"mean": _mean, "cls": _first, "lasttoken": _last, "max": _largest}


class Encoder:
    """A frozen encoder; `embed` maps texts to unit vectors.

    Attributes:
        tokens: how much of a text it reads.
        cut: texts so far that were longer.
    """

    def __init__(self, model: Any, tokenizer: Any, pool: Pool, tokens: int) -> None:
        self._model, self._tokenizer, self._pool = model.eval(), tokenizer, pool
        self.tokens, self.cut = tokens, 0

    @classmethod
    def load(cls, folder: Path) -> "Encoder":
        """An encoder from a folder.

        Raises:
            PiarError: nothing there that is a text encoder in safetensors, or one with layers that are not known here.
        """
        pool, model, tokenizer = POOLS[pooling(folder)], load_encoder(str(folder)), load_tokenizer(str(folder))
        tokens = reach(folder, model, tokenizer)
        return cls(model.to("cuda" if torch.cuda.is_available() else "cpu"), tokenizer, pool, tokens)

    @torch.inference_mode()
    def embed(self, texts: Sequence[str]) -> NDArray[np.float32]:
        """[N, D] unit vectors, in the order given; `cut` counts the texts that were longer than `tokens`."""
        shorter = [whole(text[: 16 * self.tokens]) for text in texts]
        ids = self._tokenizer(shorter, split_special_tokens=True, verbose=False)["input_ids"] if shorter else []
        self.cut += sum(len(one) > self.tokens for one in ids)
        vectors = np.zeros((len(texts), self._model.config.hidden_size), dtype=np.float32)
        order = sorted(range(len(texts)), key=lambda i: len(ids[i]))
        for start in range(0, len(order), _BATCH):
            chosen = order[start : start + _BATCH]
            vectors[chosen] = self._states([shorter[i] for i in chosen])
        return vectors

    def _states(self, texts: list[str]) -> NDArray[np.float32]:
        inputs = self._tokenizer(
            texts, padding=True, truncation=True, max_length=self.tokens, return_tensors="pt", split_special_tokens=True
        )  # what a text says is never a control token
        inputs = inputs.to(self._model.device)
        states = self._model(**inputs).last_hidden_state.float()
        pooled = torch.nn.functional.normalize(self._pool(states, inputs["attention_mask"]), dim=-1)
        return np.asarray(pooled.cpu().numpy(), dtype=np.float32)


def reach(folder: Path, model: Any, tokenizer: Any) -> int:
    """Tokens of a text that an encoder is given: `TOKENS`, or fewer where it reads or was taught on fewer."""
    said = _settings(folder / "sentence_bert_config.json").get("max_seq_length")
    return min(n for n in (TOKENS, context(model, tokenizer), said) if isinstance(n, int) and n > 0)


def context(model: Any, tokenizer: Any) -> int | None:
    """Tokens that an encoder can read at once, None where it says nothing."""
    reads = [getattr(model.config, "max_position_embeddings", None), tokenizer.model_max_length]
    for name, module in model.named_modules():
        if name.endswith("position_embeddings") and isinstance(module, torch.nn.Embedding):
            # Some count positions from behind the padding's.
            reads.append(module.num_embeddings - (0 if module.padding_idx is None else module.padding_idx + 1))
    known = [int(n) for n in reads if isinstance(n, int) and 0 < n < 10**9]
    return min(known, default=None)


def pooling(folder: Path) -> str:
    """How a folder's encoder makes one vector of a text: a key of `POOLS`; the mean where nothing is said.

    Raises:
        PiarError: layers or a pooling that are not known here.
    """
    path = folder / "modules.json"
    if not path.is_file():
        return "mean"
    layers = {str(one.get("type", "")).rpartition(".")[2]: one for one in _list(path) if isinstance(one, dict)}
    other = next((name for name in layers if name not in _LAYERS), None)
    if other is not None or "Pooling" not in layers:
        what = f"a layer {other!r}" if other else "no pooling"
        raise PiarError(
            f"{folder} has {what} behind its encoder: not known here.", "Use an encoder with plain pooling."
        )
    inside = folder / Path(str(layers["Pooling"].get("path", ""))).name  # a folder of the folder
    config = _settings(inside / "config.json")
    flags = {"mean": "mean_tokens", "cls": "cls_token", "lasttoken": "lasttoken", "max": "max_tokens"}
    named = config.get("pooling_mode")
    on = (
        [str(named)]
        if isinstance(named, str)
        else [n for n, flag in flags.items() if config.get(f"pooling_mode_{flag}")]
    )
    if len(on) != 1 or on[0] not in POOLS:
        raise PiarError(
            f"{folder} pools by {', '.join(on) or 'something else'}; known here are {', '.join(POOLS)}, one of them.",
            "Use an encoder with plain pooling.",
        )
    return on[0]


def _settings(path: Path) -> dict[str, Any]:
    found = _json(path)
    return found if isinstance(found, dict) else {}


def _list(path: Path) -> list[Any]:
    found = _json(path)
    return found if isinstance(found, list) else []


def _json(path: Path) -> Any:
    try:
        return json.loads(read_text(path))
    except (FileNotFoundError, ValueError, RecursionError, UsageError):
        return None
