"""From the states of a text's tokens to one unit vector: pooling, then the layers that a folder has behind it.

Poolings and layers are those of sentence-transformers, whose `encode` says the same (unit length apart, which every
vector here has). `mean_sqrt_len_tokens` is the sum over the root of the number of tokens, `weightedmean` weighs the
n-th token by n (SGPT, Muennighoff 2022, arXiv 2202.08904).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn.functional import normalize

from store.errors import PiarError
from trainers.look_over import AGAIN, as_safetensors
from trainers.sentence_folder import SentenceFolder, Step

Pool = Callable[[Tensor, Tensor, Tensor], Tensor]  # [N, T, D] states, [N, T] tokens pooled and places -> [N, D]
_WEIGHTS = "model.safetensors"


def _mean(states: Tensor, mask: Tensor, _: Tensor) -> Tensor:
    weight = mask[..., None].to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1).clamp(min=1)


def _mean_sqrt(states: Tensor, mask: Tensor, _: Tensor) -> Tensor:
    weight = mask[..., None].to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1).clamp(min=1).sqrt()


def _weighted(states: Tensor, mask: Tensor, places: Tensor) -> Tensor:
    weight = (mask * places)[..., None].to(states.dtype)
    return (states * weight).sum(1) / weight.sum(1).clamp(min=1)


def _first(states: Tensor, mask: Tensor, _: Tensor) -> Tensor:
    return states[torch.arange(len(states)), mask.int().argmax(1)]


def _last(states: Tensor, mask: Tensor, places: Tensor) -> Tensor:
    return states[torch.arange(len(states)), (places * mask).argmax(1)]


def _largest(states: Tensor, mask: Tensor, _: Tensor) -> Tensor:
    largest = states.masked_fill(mask[..., None] == 0, -torch.inf).amax(1)
    return largest.where(mask.any(1, keepdim=True), 0.0)  # nothing is pooled of a text that is a prompt alone


POOLS: dict[str, Pool] = {
    "cls": _first,
    "max": _largest,
    "mean": _mean,
    "mean_sqrt_len_tokens": _mean_sqrt,
    "weightedmean": _weighted,
    "lasttoken": _last,
}


class Pooled(nn.Module):
    """[N, T, D] states and [N, T] mask -> [N, E] unit vectors.

    Args:
        poolings: keys of `POOLS`; layers: behind them, as `layer` makes them of `(kind, config)`.
    """

    def __init__(
        self, size: int, poolings: Sequence[str] = ("mean",), layers: Sequence[tuple[str, Mapping[str, Any]]] = ()
    ) -> None:
        super().__init__()
        self.poolings, self.told = tuple(poolings), [(kind, dict(config)) for kind, config in layers]
        self.layers = nn.ModuleList(layer(kind, config) for kind, config in layers)
        sizes = [int(config["out_features"]) for kind, config in layers if kind == "Dense"]
        self.size = sizes[-1] if sizes else size * len(self.poolings)  # E

    @classmethod
    def of(cls, folder: SentenceFolder, size: int) -> "Pooled":
        """That of a folder, whose encoder's states are `size` wide.

        Raises:
            PiarError: a layer that is not known here, damaged, or of another size.
        """
        made = cls(size, folder.poolings, [(step.kind, step.config) for step in folder.steps])
        for step, one in zip(folder.steps, made.layers, strict=True):
            _load(step, one)
        try:
            made(torch.zeros(1, 1, size), torch.ones(1, 1))
        except RuntimeError:
            raise PiarError(f"The layers of {folder.body} do not fit each other.", AGAIN) from None
        return made

    def forward(self, states: Tensor, mask: Tensor, skipped: Tensor | int = 0) -> Tensor:
        """Unit vectors; the first `skipped` tokens of a text, [N, 1] or one number for all, are not pooled."""
        places = mask.long().cumsum(1)  # 1 for the first token that is no padding
        pooled = mask.long() * (places > skipped)
        vectors = torch.cat([POOLS[name](states, pooled, places) for name in self.poolings], -1)
        for one in self.layers:
            vectors = one(vectors)
        return normalize(vectors, dim=-1)

    def describe(self) -> str:
        """All but the weights, in JSON; see `described`."""
        return json.dumps({"poolings": self.poolings, "layers": self.told})

    @classmethod
    def described(cls, said: str, size: int) -> "Pooled":
        """One without its weights, from what `describe` said, or from the name of a pooling alone.

        Raises:
            ValueError, KeyError, TypeError: it is no such description.
        """
        if not said.startswith("{"):
            return cls(size, (said,))
        told = json.loads(said)
        return cls(size, told["poolings"], [(kind, config) for kind, config in told["layers"]])


class _Dense(nn.Module):
    def __init__(self, into: int, out: int, bias: bool, activation: nn.Module, residual: bool) -> None:
        super().__init__()
        self.linear, self.activation = nn.Linear(into, out, bias=bias), activation
        self.adds = residual
        self.residual = nn.Linear(into, out, bias=False) if residual and into != out else nn.Identity()

    def forward(self, vectors: Tensor) -> Tensor:
        found: Tensor = self.activation(self.linear(vectors))
        return found + self.residual(vectors) if self.adds else found


class _LayerNorm(nn.Module):
    def __init__(self, size: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(size)

    def forward(self, vectors: Tensor) -> Tensor:
        found: Tensor = self.norm(vectors)
        return found


class _Unit(nn.Module):
    def forward(self, vectors: Tensor) -> Tensor:
        return normalize(vectors, dim=-1)


def layer(kind: str, config: Mapping[str, Any]) -> nn.Module:
    """A layer with random weights.

    Args:
        kind: one of `trainers.sentence_folder.LATER`; config: its `config.json`.

    Raises:
        PiarError: a configuration that is not known here.
    """
    if config.get("module_input_name", "sentence_embedding") != "sentence_embedding":
        raise PiarError(f"A layer {kind} reads {config['module_input_name']!r}, not vectors of texts.", _PLAIN)
    try:
        if kind == "Dense":
            into, out = int(config["in_features"]), int(config["out_features"])
            activation = _activation(str(config.get("activation_function", "torch.nn.Tanh")))
            return _Dense(into, out, bool(config.get("bias", True)), activation, bool(config.get("use_residual")))
        return _LayerNorm(int(config["dimension"])) if kind == "LayerNorm" else _Unit()
    except (KeyError, TypeError, ValueError):
        raise PiarError(f"A layer {kind} has no whole config.json.", AGAIN) from None


_PLAIN = "Use another sentence encoder."


def _activation(name: str) -> nn.Module:
    made = getattr(nn, name.rpartition(".")[2], None)
    if name.startswith("torch.nn.") and isinstance(made, type) and issubclass(made, nn.Module):
        try:
            return made()
        except TypeError:  # it needs more to be made
            pass
    raise PiarError(f"A layer Dense has the activation {name!r}: not known here.", _PLAIN)


def _load(step: Step, into: nn.Module) -> None:
    """Give a layer its weights."""
    if not into.state_dict():
        return
    path = step.folder / _WEIGHTS
    if not path.is_file():
        pickled = any(step.folder.glob("*.bin"))
        what = "has its weights in a pickled file alone, which could run code" if pickled else f"lacks {_WEIGHTS}"
        raise PiarError(f"{step.folder} {what}.", as_safetensors(step.folder) if pickled else AGAIN)
    try:
        into.load_state_dict({name: tensor.float() for name, tensor in load_file(path).items()})
    except (SafetensorError, OSError, RuntimeError) as error:
        said = next(iter(str(error).splitlines()), "")
        raise PiarError(f"{path} holds no weights of a layer {step.kind}: {said}", AGAIN) from None
