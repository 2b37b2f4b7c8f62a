"""A classifier on an encoder that reads the texts of a sample apart: it begins as a probe, and learns on.

A sentence encoder knows what its pooled vectors mean to each other, and nothing of two texts in one sequence, so that a
few hundred rows teach it less in that way than a logistic regression on its vectors knows. For each two texts u and v
it is given |u − v| and u · v, as the baseline `probe`, their cosine, and what they share in words and letters, which
vectors forget. The classification of (u, v, |u − v|) by a fine-tuned encoder is SBERT's (Reimers & Gurevych 2019, arXiv
1908.10084); to begin at a fitted probe, to read each field apart and to compare letters are our choice.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from store.errors import PiarError
from trainers.folder import load_encoder
from trainers.overlap import COMPARED
from trainers.pooling import Pooled
from trainers.probe import fit_probe

HEAD = "head.safetensors"
_KEYS = {"head.weight": "weight", "head.bias": "bias", "mean": "mean", "spread": "spread"}  # here -> in the file
UNSEEN = -9.0  # logit of a grade that no row of the probe had
MOST_TEXTS = 4  # that are read apart; a sample of more fields is read as the pair of `Task.pair`


class Apart(nn.Module):
    """Logits of K grades from texts, each read alone.

    Args:
        encoder: a transformers body; pooled: what makes one vector of its states; texts: of a sample.
        prompts: in front of each text; skipped: how many of its tokens are a prompt's, which are not pooled.
        compares: whether cosines and what the texts share are among the features; older ones have vectors alone.
    """

    mean: Tensor  # [F] of the features of the rows that the head began with
    spread: Tensor

    def __init__(
        self,
        encoder: Any,
        pooled: Pooled,
        texts: int,
        grades: int,
        prompts: Sequence[str] | None = None,
        skipped: Sequence[int] | None = None,
        *,
        compares: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.pooled, self.texts = encoder, pooled, texts
        self.prompts = tuple(prompts or [""] * texts)[:texts]
        self.skipped = tuple(skipped or [0] * texts)[:texts]
        self.telling = (1 + COMPARED) * comb(texts, 2) if compares else 0
        size = pooled.size * (texts + 2 * comb(texts, 2)) + self.telling
        self.head = nn.Linear(size, grades)
        self.register_buffer("mean", torch.zeros(size))
        self.register_buffer("spread", torch.ones(size))

    @property
    def config(self) -> Any:
        """The encoder's, with the names of the grades."""
        return self.encoder.config

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return self.head.weight.device

    def vectors(self, input_ids: Tensor, attention_mask: Tensor, skipped: Tensor, **more: Tensor) -> Tensor:
        """[N, D] unit vectors of N texts.

        Args:
            skipped: [N] tokens of a prompt in front of each, which are not pooled.
        """
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **more).last_hidden_state.float()
        vectors: Tensor = self.pooled(states, attention_mask, skipped[:, None])
        return vectors

    def joined(self, read: Sequence[Tensor], compared: Tensor | None) -> Tensor:
        """[m, F] what the head is given of m samples.

        Args:
            read: [m, D] vectors of their first texts, of their second ones and so on.
            compared: [m, pairs · COMPARED] what each two texts share, see `trainers.overlap`.
        """
        pairs = list(combinations(read, 2))
        found = [*read, *((u - v).abs() for u, v in pairs), *(u * v for u, v in pairs)]
        if self.telling:
            found += [(u * v).sum(1, keepdim=True) for u, v in pairs]
            found += [compared] if compared is not None else []
        return torch.cat(found, 1)

    def judged(self, features: Tensor) -> Tensor:
        """[m, K] logits of features [m, F]."""
        logits: Tensor = self.head((features - self.mean) / self.spread)
        return logits

    def forward(
        self, labels: Tensor | None = None, compared: Tensor | None = None, **inputs: Tensor
    ) -> SequenceClassifierOutput:
        """Logits [m, K], and the mean cross-entropy of labels [m], of m samples whose first texts come first, then
        their second ones and so on: [texts · m, T] tokens."""
        count = len(inputs["input_ids"]) // self.texts
        skipped = torch.tensor(self.skipped, device=self.device).repeat_interleave(count)
        logits = self.judged(self.joined(self.vectors(skipped=skipped, **inputs).chunk(self.texts), compared))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def begin(self, features: np.ndarray[Any, Any], gold: Sequence[int], groups: Sequence[str], seed: int) -> None:
        """Set the head to the probe of these rows' features [N, F]; nothing where all have one grade."""
        labels = np.asarray(gold)
        if len(set(gold)) < 2:
            return
        scaler, model = fit_probe(features, labels, np.asarray(groups), seed, telling=self.telling)
        weight, bias = model.coef_, model.intercept_
        if len(model.classes_) == 2:  # one row says the second against the first
            weight, bias = np.vstack([-weight / 2, weight / 2]), np.concatenate([-bias / 2, bias / 2])
        with torch.no_grad():
            self.head.weight.zero_()
            self.head.bias.fill_(UNSEEN)
            seen = torch.as_tensor(model.classes_, device=self.device)
            self.head.weight[seen] = torch.as_tensor(weight, dtype=torch.float32, device=self.device)
            self.head.bias[seen] = torch.as_tensor(bias, dtype=torch.float32, device=self.device)
            self.mean.copy_(torch.as_tensor(scaler.mean_))
            self.spread.copy_(torch.as_tensor(scaler.scale_))

    def save_pretrained(self, folder: Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Write the encoder as a plain folder, and the head beside it."""
        self.encoder.save_pretrained(folder, state_dict=state_dict)
        told = {key: self.state_dict()[name] for name, key in _KEYS.items()} | self.pooled.state_dict()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in told.items()}
        said = {"pooling": self.pooled.describe(), "texts": str(self.texts)}
        said |= {"prompts": json.dumps([self.prompts, self.skipped]), "compares": str(int(self.telling > 0))}
        save_file(tensors, folder / HEAD, metadata=said)

    @classmethod
    def load(cls, folder: Path) -> "Apart":
        """One that was saved.

        Raises:
            PiarError: no such encoder, or no head that fits it.
        """
        encoder = load_encoder(str(folder))
        try:
            with safe_open(str(folder / HEAD), "pt") as file:
                said = file.metadata() or {}
                pooled = Pooled.described(said["pooling"], encoder.config.hidden_size)
                more = json.loads(said.get("prompts", "[null, null]"))
                compares, grades = said.get("compares") == "1", encoder.config.num_labels
                found = cls(encoder, pooled, int(said["texts"]), grades, *more, compares=compares)
                state = {name: file.get_tensor(key) for name, key in _KEYS.items()}
                state |= {f"pooled.{key}": file.get_tensor(key) for key in pooled.state_dict()}
            found.load_state_dict({**{f"encoder.{k}": v for k, v in encoder.state_dict().items()}, **state})
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise PiarError(
                f"{folder / HEAD} is no head of its encoder: {str(error).splitlines()[0]}.",
                "Train it again, or use another checkpoint.",
            ) from None
        return found
