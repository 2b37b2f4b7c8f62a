"""A classifier on an encoder that reads the texts of a sample apart: it begins as linear classifiers, and learns on.

A sentence encoder knows what its pooled vectors mean to each other, and nothing of two texts in one sequence, so that a
few hundred rows teach it less in that way than a logistic regression on its vectors knows. It is given those vectors
(`trainers.vectors`), and what `trainers.fitted` says of the texts. To begin at a fitted pool, to read each field apart
and to compare letters are our choice.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn
from transformers.modeling_outputs import SequenceClassifierOutput

from trainers.fitted import HEAD, UNMADE, Encoded, Fitted, OnProgress, compared_of, no_head
from trainers.folder import load_encoder
from trainers.vectors import Vectors


class Apart(Fitted):
    """Logits of K grades from texts, each read alone.

    Args:
        read: what the encoder says of them.
        worded: see `Fitted`; an older one, without cosines, is told nothing that they share.
    """

    def __init__(self, read: Vectors, grades: int, *, worded: bool = True) -> None:
        size, cosines = read.states, read.cosines
        super().__init__(read.texts, grades, states=size, cosines=cosines, compares=cosines > 0, worded=worded)
        self.read = read

    @property
    def config(self) -> Any:
        """The encoder's, with the names of the grades."""
        return self.read.encoder.config

    def tokens(self, tokenizer: Any, texts: Sequence[Sequence[str]], limit: int | None) -> list[list[list[int]]]:
        """Of each sample's texts their tokens, at most `limit` of each."""
        return self.read.tokens(tokenizer, texts, limit)

    def features(
        self, tokenizer: Any, ids: Sequence[Encoded], on_progress: OnProgress = lambda n: None
    ) -> NDArray[np.float32]:
        """[N, F] what the head is given of samples."""
        read = self.read.read(tokenizer, [one.texts for one in ids], on_progress)
        told = compared_of(ids, torch.device("cpu"))
        return read if told is None else np.hstack([read, told.numpy()])

    def forward(
        self, labels: Tensor | None = None, compared: Tensor | None = None, **inputs: Tensor
    ) -> SequenceClassifierOutput:
        """Logits [m, K], and the mean cross-entropy of labels [m], of m samples whose first texts come first, then
        their second ones and so on: [texts · m, T] tokens."""
        read = self.read(inputs)
        logits = self.judged(read if compared is None else torch.cat([read, compared], 1))
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels)
        return SequenceClassifierOutput(loss=loss, logits=logits)

    def save_pretrained(self, folder: Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Write the encoder as a plain folder, and the head beside it."""
        self.save_head(folder, self.read.save_encoder(folder, state_dict), self.read.pooled.state_dict())

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
                compares, worded = said.get("compares") == "1", said.get("worded") == "1"
                read = Vectors.described(encoder, file, int(said["texts"]), cosines=compares)
                with UNMADE:
                    found = cls(read, encoder.config.num_labels, worded=worded)
                found.load_head(file)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise no_head(folder, error) from None
        return found
