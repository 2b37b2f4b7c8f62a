"""A classifier on an encoder that reads the texts of a sample apart: it begins as linear classifiers, and learns on.

A sentence encoder knows what its pooled vectors mean to each other, and nothing of two texts in one sequence, so that a
few hundred rows teach it less in that way than a logistic regression on its vectors knows. For each two texts u and v
it is given |u − v| and u · v, as the baseline `probe`, their cosine, and what `trainers.fitted` says of the texts. The
classification of (u, v, |u − v|) by a fine-tuned encoder is SBERT's (Reimers & Gurevych 2019, arXiv 1908.10084); to
begin at a fitted pool, to read each field apart and to compare letters are our choice.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import chain, combinations
from math import comb
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from trainers.embedding import batches, tokenize
from trainers.fitted import HEAD, Encoded, Fitted, OnProgress, compared_of, no_head
from trainers.folder import load_encoder
from trainers.pooling import Pooled

_BATCH = 64  # texts of like length that are read together


class Apart(Fitted):
    """Logits of K grades from texts, each read alone.

    Args:
        encoder: a transformers body; pooled: what makes one vector of its states; texts: of a sample.
        prompts: in front of each text; skipped: how many of its tokens are a prompt's, which are not pooled.
        compares, worded: see `Fitted`.
    """

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
        pairs = comb(texts, 2)
        size = pooled.size * (texts + 2 * pairs)
        super().__init__(texts, grades, states=size, cosines=pairs, compares=compares, worded=worded)
        self.encoder, self.pooled = encoder, pooled
        self.prompts = tuple(prompts or [""] * texts)[:texts]
        self.skipped = tuple(skipped or [0] * texts)[:texts]

    @property
    def config(self) -> Any:
        """The encoder's, with the names of the grades."""
        return self.encoder.config

    def tokens(self, tokenizer: Any, texts: Sequence[Sequence[str]], limit: int | None) -> list[list[list[int]]]:
        """Of each sample's texts their tokens, at most `limit` of each."""
        columns = zip(*texts, strict=True)
        read = [tokenize(tokenizer, *given, limit) for given in zip(map(list, columns), self.prompts, strict=True)]
        return [list(row) for row in zip(*read, strict=True)]

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

    @torch.inference_mode()
    def features(
        self, tokenizer: Any, ids: Sequence[Encoded], on_progress: OnProgress = lambda n: None
    ) -> NDArray[np.float32]:
        """[N, F] what the head is given of samples; a text of several of them is read once."""
        texts = [[(skip, *tokens) for skip, tokens in zip(self.skipped, one.texts, strict=True)] for one in ids]
        place = {text: i for i, text in enumerate(dict.fromkeys(chain.from_iterable(texts)))}
        order, vectors = list(place), torch.zeros(len(place), self.pooled.size, device=self.device)
        read = told = 0
        for part, inputs in batches(tokenizer, [list(text[1:]) for text in order], _BATCH, self.encoder):
            skipped = torch.tensor([order[i][0] for i in part], device=self.device)
            vectors[part] = self.vectors(**inputs, skipped=skipped)
            read += len(part)
            before, told = told, len(ids) * read // len(order)
            on_progress(told - before)
        found = np.zeros((len(ids), self.head.in_features), dtype=np.float32)
        for start in range(0, len(ids), _BATCH):
            some = slice(start, start + _BATCH)
            each = [vectors[[place[row[k]] for row in texts[some]]] for k in range(self.texts)]
            found[some] = self.joined(each, compared_of(ids[some], self.device)).cpu().numpy()
        return found

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

    def save_pretrained(self, folder: Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Write the encoder as a plain folder, and the head beside it."""
        self.encoder.save_pretrained(folder, state_dict=state_dict)
        said = {"pooling": self.pooled.describe(), "prompts": json.dumps([self.prompts, self.skipped])}
        self.save_head(folder, said, self.pooled.state_dict())

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
                state = found.load_head(file)
                state |= {f"pooled.{key}": file.get_tensor(key) for key in pooled.state_dict()}
            found.load_state_dict({**{f"encoder.{k}": v for k, v in encoder.state_dict().items()}, **state})
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise no_head(folder, error) from None
        return found
