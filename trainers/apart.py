"""A classifier on an encoder that reads the texts of a sample apart: it begins as linear classifiers, and learns on.

A sentence encoder knows what its pooled vectors mean to each other, and nothing of two texts in one sequence, so that a
few hundred rows teach it less in that way than a logistic regression on its vectors knows. For each two texts u and v
it is given |u − v| and u · v, as the baseline `probe`, their cosine, and what they share in words and letters, which
vectors forget; and for each grade what the words themselves say (`trainers.opinion_pool`). The classification of
(u, v, |u − v|) by a fine-tuned encoder is SBERT's (Reimers & Gurevych 2019, arXiv 1908.10084); to begin at a fitted
pool, to read each field apart and to compare letters are our choice.
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
from trainers.opinion_pool import fit_pool
from trainers.overlap import COMPARED, compared, parts
from trainers.pooling import Pooled
from trainers.words import KEPT, Words

HEAD = "head.safetensors"
_KEYS = {"head.weight": "weight", "head.bias": "bias", "mean": "mean", "spread": "spread"}  # here -> in the file
MOST_TEXTS = 4  # that are read apart; a sample of more fields is read as the pair of `Task.pair`


class Apart(nn.Module):
    """Logits of K grades from texts, each read alone.

    Args:
        encoder: a transformers body; pooled: what makes one vector of its states; texts: of a sample.
        prompts: in front of each text; skipped: how many of its tokens are a prompt's, which are not pooled.
        compares: whether cosines and what the texts share are among the features; older ones have vectors alone.
        worded: whether the words' logits are, as the last K.
    """

    mean: Tensor  # [F] of the features of the rows that the head began with
    spread: Tensor
    words: Words | None = None  # once they are known

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
        worded: bool = False,
    ) -> None:
        super().__init__()
        self.encoder, self.pooled, self.texts = encoder, pooled, texts
        self.prompts = tuple(prompts or [""] * texts)[:texts]
        self.skipped = tuple(skipped or [0] * texts)[:texts]
        self.telling = (1 + COMPARED) * comb(texts, 2) if compares else 0
        self.worded = grades if worded else 0
        size = pooled.size * (texts + 2 * comb(texts, 2)) + self.telling + self.worded
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

    def joined(self, read: Sequence[Tensor], told: Tensor | None) -> Tensor:
        """[m, F] what the head is given of m samples.

        Args:
            read: [m, D] vectors of their first texts, of their second ones and so on.
            told: [m, pairs · COMPARED + K] what `compare` says of their texts.
        """
        pairs = list(combinations(read, 2))
        found = [*read, *((u - v).abs() for u, v in pairs), *(u * v for u, v in pairs)]
        found += [(u * v).sum(1, keepdim=True) for u, v in pairs] if self.telling else []
        return torch.cat([*found, *([] if told is None else [told])], 1)

    def compare(self, rows: Sequence[Sequence[str]]) -> list[list[float]]:
        """Of each row of texts what each two share, see `trainers.overlap`, and its words' logits: 0 before they are
        known; empty for older ones, which have vectors alone."""
        found: list[list[float]] = [[] for _ in rows]
        if self.telling:
            looked = [list(map(parts, row)) for row in rows]
            found = [[share for a, b in combinations(row, 2) for share in compared(a, b)] for row in looked]
        if self.worded:
            logits = self.words.logits(rows) if self.words else np.zeros((len(rows), self.worded))
            found = [one + said for one, said in zip(found, logits.tolist(), strict=True)]
        return found

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

    def begin(
        self,
        features: np.ndarray[Any, Any],
        texts: Sequence[Sequence[str]],
        gold: Sequence[int],
        groups: Sequence[str],
        seed: int,
    ) -> None:
        """Set the head to a pool of linear classifiers of these rows' features [N, F] and texts; nothing where all
        have one grade."""
        if len(set(gold)) < 2:
            return
        grades, own = self.head.out_features, self.head.in_features - self.worded
        begun = fit_pool(
            features[:, :own],
            texts,
            np.asarray(gold),
            np.asarray(groups),
            grades=grades,
            telling=self.telling,
            seed=seed,
        )
        with torch.no_grad():
            self.head.weight[:, :own].copy_(torch.as_tensor(begun.weight))
            self.head.weight[:, own:].copy_(torch.eye(grades))
            self.head.bias.copy_(torch.as_tensor(begun.bias))
            self.mean[:own].copy_(torch.as_tensor(begun.mean))
            self.spread[:own].copy_(torch.as_tensor(begun.spread))
        self.words = begun.words

    def save_pretrained(self, folder: Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Write the encoder as a plain folder, and the head beside it."""
        self.encoder.save_pretrained(folder, state_dict=state_dict)
        told = {key: self.state_dict()[name] for name, key in _KEYS.items()} | self.pooled.state_dict()
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in told.items()}
        if self.words:
            tensors |= {name: torch.from_numpy(values) for name, values in self.words.tensors().items()}
        said = {"pooling": self.pooled.describe(), "texts": str(self.texts)}
        said |= {"prompts": json.dumps([self.prompts, self.skipped]), "compares": str(int(self.telling > 0))}
        said |= {"worded": str(int(self.worded > 0)), "words": str(int(self.words is not None))}
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
                pooled = Pooled.described(said["pooling"], encoder.config.get_text_config().hidden_size)
                more = json.loads(said.get("prompts", "[null, null]"))
                compares, worded = said.get("compares") == "1", said.get("worded") == "1"
                grades = encoder.config.num_labels
                found = cls(encoder, pooled, int(said["texts"]), grades, *more, compares=compares, worded=worded)
                state = {name: file.get_tensor(key) for name, key in _KEYS.items()}
                state |= {f"pooled.{key}": file.get_tensor(key) for key in pooled.state_dict()}
                if worded and said.get("words") == "1":
                    found.words = Words.of({key: file.get_tensor(key).numpy() for key in KEPT}, grades)
            found.load_state_dict({**{f"encoder.{k}": v for k, v in encoder.state_dict().items()}, **state})
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise PiarError(
                f"{folder / HEAD} is no head of its encoder: {str(error).splitlines()[0]}.",
                "Train it again, or use another checkpoint.",
            ) from None
        return found
