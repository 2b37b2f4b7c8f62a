"""A sentence encoder's vectors of a sample's texts, each read alone, and what each two of them say together.

For each two texts u and v there are |u − v| and u · v, as in the baseline `probe`, and their cosine. The classification
of (u, v, |u − v|) by a fine-tuned encoder is SBERT's (Reimers & Gurevych 2019, arXiv 1908.10084).
"""

import json
from collections.abc import Mapping, Sequence
from itertools import chain, combinations
from math import comb
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from store.task import Task
from trainers.embedding import batches, load_sentence_encoder, prompt_tokens, tokenize
from trainers.fitted import MOST_TEXTS, UNMADE, OnProgress
from trainers.pooling import Pooled
from trainers.sentence_folder import here, roles

_BATCH = 64  # texts of like length that are read together


class Vectors(nn.Module):
    """What a sentence encoder says of samples.

    Args:
        encoder: a transformers body; pooled: what makes one vector of its states; texts: of a sample.
        prompts: in front of each text; skipped: how many of its tokens are a prompt's, which are not pooled.
        cosines: whether each two texts' is told, behind all else.
    """

    def __init__(
        self,
        encoder: Any,
        pooled: Pooled,
        texts: int,
        prompts: Sequence[str] | None = None,
        skipped: Sequence[int] | None = None,
        *,
        cosines: bool = True,
    ) -> None:
        super().__init__()
        self.encoder, self.pooled, self.texts = encoder, pooled, texts
        self.prompts = tuple(prompts or [""] * texts)[:texts]
        self.skipped = tuple(skipped or [0] * texts)[:texts]
        self.cosines = comb(texts, 2) if cosines else 0
        self.states = pooled.size * (texts + 2 * comb(texts, 2))  # features in front of the cosines

    @classmethod
    def begun(cls, model: str, task: Task) -> tuple[Self, Any]:
        """Those of a sentence encoder's folder for a task's texts, and its tokenizer.

        Raises:
            PiarError: see `load_sentence_encoder`.
        """
        body, tokenizer, pooled, folder = load_sentence_encoder(here(model))
        texts = len(task.fields) if len(task.fields) <= MOST_TEXTS else 2
        first, other = (folder.prompt(role) for role in roles(task))
        prompts = [first, *[other] * (texts - 1)]
        skipped = [prompt_tokens(tokenizer, prompt) if folder.skips_prompt else 0 for prompt in prompts]
        return cls(body, pooled, texts, prompts, skipped), tokenizer

    def tokens(self, tokenizer: Any, texts: Sequence[Sequence[str]], limit: int | None) -> list[list[list[int]]]:
        """Of each sample's texts their tokens, at most `limit` of each."""
        columns = [[row[k] for row in texts] for k in range(self.texts)]
        read = [tokenize(tokenizer, *given, limit) for given in zip(columns, self.prompts, strict=True)]
        return [list(row) for row in zip(*read, strict=True)]

    def vectors(self, input_ids: Tensor, attention_mask: Tensor, skipped: Tensor, **more: Tensor) -> Tensor:
        """[N, D] unit vectors of N texts.

        Args:
            skipped: [N] tokens of a prompt in front of each, which are not pooled.
        """
        states = self.encoder(input_ids=input_ids, attention_mask=attention_mask, **more).last_hidden_state.float()
        vectors: Tensor = self.pooled(states, attention_mask, skipped[:, None])
        return vectors

    def joined(self, read: Sequence[Tensor]) -> Tensor:
        """[m, states + cosines] of m samples.

        Args:
            read: [m, D] vectors of their first texts, of their second ones and so on.
        """
        pairs = list(combinations(read, 2))
        found = [*read, *((u - v).abs() for u, v in pairs), *(u * v for u, v in pairs)]
        return torch.cat([*found, *((u * v).sum(1, keepdim=True) for u, v in (pairs if self.cosines else ()))], 1)

    def forward(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """The same of tokens [texts · m, T], where all first texts come first, then all second ones and so on."""
        count = len(inputs["input_ids"]) // self.texts
        skipped = torch.tensor(self.skipped, device=inputs["input_ids"].device).repeat_interleave(count)
        return self.joined(self.vectors(skipped=skipped, **inputs).chunk(self.texts))

    @torch.inference_mode()
    def read(
        self, tokenizer: Any, rows: Sequence[Sequence[list[int]]], on_progress: OnProgress = lambda n: None
    ) -> NDArray[np.float32]:
        """The same of samples' tokens by text; a text of several of them is read once."""
        texts = [[(skip, *tokens) for skip, tokens in zip(self.skipped, row, strict=True)] for row in rows]
        place = {text: i for i, text in enumerate(dict.fromkeys(chain.from_iterable(texts)))}
        order, vectors = list(place), torch.zeros(len(place), self.pooled.size, device=self.encoder.device)
        read = told = 0
        for part, inputs in batches(tokenizer, [list(text[1:]) for text in order], _BATCH, self.encoder):
            skipped = torch.tensor([order[i][0] for i in part], device=vectors.device)
            vectors[part] = self.vectors(**inputs, skipped=skipped)
            read += len(part)
            before, told = told, len(rows) * read // len(order)
            on_progress(told - before)
        found = np.zeros((len(rows), self.states + self.cosines), dtype=np.float32)
        for start in range(0, len(rows), _BATCH):
            some = slice(start, start + _BATCH)
            each = [vectors[[place[row[k]] for row in texts[some]]] for k in range(self.texts)]
            found[some] = self.joined(each).cpu().numpy()
        return found

    def save_encoder(self, folder: Path, state_dict: Mapping[str, Tensor] | None = None) -> dict[str, str]:
        """Write the encoder as a plain folder; returns what `described` needs to know beside it and `pooled`'s
        tensors."""
        self.encoder.save_pretrained(folder, state_dict=state_dict)
        return {"pooling": self.pooled.describe(), "prompts": json.dumps([self.prompts, self.skipped])}

    @classmethod
    def described(cls, encoder: Any, file: Any, texts: int, *, cosines: bool = True) -> Self:
        """Those of an encoder that `save_encoder` wrote.

        Args:
            file: an open file of tensors with what it said.

        Raises:
            KeyError, TypeError, ValueError, RuntimeError, SafetensorError: the file says something else.
        """
        if not 1 <= texts <= MOST_TEXTS:
            raise ValueError(f"no sample has {texts} texts")
        said = file.metadata() or {}
        with UNMADE:
            pooled = Pooled.described(said["pooling"], encoder.config.get_text_config().hidden_size)
        pooled.load_state_dict({key: file.get_tensor(key).float() for key in pooled.state_dict()}, assign=True)
        return cls(encoder, pooled, texts, *json.loads(said.get("prompts", "[null, null]")), cosines=cosines)
