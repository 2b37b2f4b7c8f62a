"""A classifier on a frozen language model: what it holds in mind while it reads the question, under a fitted head.

A few hundred rows teach a language model little by gradients, and linear classifiers on its states a lot
(docs/experiments/real.md). It is asked for the grade, and read two thirds up: there states say most of a text, and what
lies above is neither computed nor kept (Skean et al. 2025, arXiv 2502.02013; our choice of the place). Features are the
mean state over a sample's tokens, that of the prompt's last token, and what `trainers.fitted` says of the texts; and
what a sentence encoder says of them, where one is read beside it: it knows which texts are alike, for little. States
can be kept in a folder: reading is nearly all that such a student costs, and after a round of labels most rows are the
same.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from store.errors import PiarError
from store.task import Task
from store.vectors import STATES, VectorCache
from trainers.data import common_prefix, micro_batches
from trainers.embedding import context, reach
from trainers.fitted import HEAD, MOST_TEXTS, UNMADE, Encoded, Fitted, OnProgress, Pool, no_head
from trainers.folder import load_encoder, load_tokenizer, match_tokens
from trainers.layout import Item
from trainers.loading import farthest, load_reader, unlike
from trainers.logs import say
from trainers.model import Policy, fitting_prompts, prompt_ids
from trainers.precision import for_reading
from trainers.rollout import Root, hidden_rows
from trainers.sentence_folder import here, read
from trainers.vectors import Vectors

BESIDE, _POOLING = "beside", "pooling.safetensors"  # a folder in the student's, and what is in it beside an encoder's
DEPTH = 2 / 3  # of the layers
_TOGETHER = 2048  # tokens computed at once
_MEANING = 200  # characters of what a grade means
_NAMES = {
    "_name_or_path",
    "architectures",
    "transformers_version",
    "dtype",
    "id2label",
    "label2id",
}  # of a configuration
_BETWEEN = 32  # samples read between two writes
_VERSION = "1"  # of how a prompt becomes features


@dataclass(frozen=True, slots=True)
class Beside:
    """A sentence encoder that reads the same texts.

    Attributes:
        tokens: of a text that it reads; longer ones are cut.
    """

    vectors: Vectors
    tokenizer: Any
    tokens: int

    @classmethod
    def begun(cls, model: str, task: Task) -> "Beside":
        """That of a folder.

        Raises:
            PiarError: see `trainers.embedding.load_sentence_encoder`.
        """
        vectors, tokenizer = Vectors.begun(model, task)
        return cls(vectors, tokenizer, reach(read(here(model)), vectors.encoder, tokenizer))

    def features(self, rows: Sequence[Sequence[str]]) -> NDArray[np.float32]:
        """[N, F] what it says of rows of texts."""
        return self.vectors.read(self.tokenizer, self.vectors.tokens(self.tokenizer, rows, self.tokens))

    def save(self, folder: Path) -> None:
        """Write it as a plain folder, and how its vectors are made beside it."""
        folder.mkdir()
        said = self.vectors.save_encoder(folder) | {"texts": str(self.vectors.texts), "tokens": str(self.tokens)}
        self.tokenizer.save_pretrained(folder)
        save_file(self.vectors.pooled.state_dict(), folder / _POOLING, metadata=said)

    @classmethod
    def load(cls, folder: Path) -> "Beside":
        """One that was saved; errors as for `Vectors.described`, PiarError where there is no encoder."""
        encoder, tokenizer = load_encoder(str(folder)), load_tokenizer(str(folder))
        match_tokens(str(folder), encoder, tokenizer)
        with safe_open(str(folder / _POOLING), "pt") as file:
            said = file.metadata() or {}
            told, most = int(said["tokens"]), context(encoder, tokenizer)
            if not 0 < told <= (most or told):
                raise ValueError(f"it cannot read {told:,} tokens")
            return cls(Vectors.described(encoder, file, int(said["texts"])), tokenizer, told)


class Prompted(Fitted):
    """Logits of K grades from the states of a language model that is asked for the grade.

    Args:
        policy: the model; it never learns.
        around: what a prompt says before a sample's texts and behind them.
        names: of the texts.
        skipped: tokens in front of a prompt that are the same for all samples.
        beside: a sentence encoder that is read too.

    Attributes:
        root: what all prompts begin with, once `warm` has computed it.
        optional: `begin` may leave out the encoder beside it.
    """

    def __init__(
        self,
        policy: Policy,
        grades: int,
        around: Sequence[str],
        names: Sequence[str],
        skipped: int,
        beside: Beside | None = None,
    ) -> None:
        self._width = own = 2 * policy.lm.config.get_text_config().hidden_size
        vectors = beside.vectors if beside else None
        others, cosines = (vectors.states, vectors.cosines) if vectors else (0, 0)
        super().__init__(len(names), grades, states=own + others, cosines=cosines)
        self.policy, self.skipped = policy.requires_grad_(requires_grad=False), skipped
        self.vectors, self.beside = vectors, beside  # the module moves with this one
        (self.before, self.behind), self.names = around, tuple(names)
        self.root = Root(policy)
        self.optional = False
        self._kept: VectorCache | None = None

    @property
    def config(self) -> Any:
        """The language model's, with the names of the grades."""
        return self.policy.lm.config

    def tokens(self, tokenizer: Any, texts: Sequence[Sequence[str]], limit: int | None) -> list[list[list[int]]]:
        """Of each sample its prompt's tokens; the longest text is cut where they are more than `limit`, on the side
        where the tokenizer cuts.

        Raises:
            PiarError: the prompt is too long without any text.
        """
        write = partial(asked, tokenizer, self.before, self.behind, self.names)
        fix = "Raise train.encoder.max_length."
        end = tokenizer.truncation_side == "left"
        ids = write(texts) if limit is None else fitting_prompts(texts, write, limit, fix, end=end)[0]
        return [[one] for one in ids]

    @torch.inference_mode()
    def features(
        self, tokenizer: Any, ids: Sequence[Encoded], on_progress: OnProgress = lambda n: None
    ) -> NDArray[np.float32]:
        """[N, F] what the head is given of samples."""
        if not ids:
            return np.zeros((0, self.head.in_features), dtype=np.float32)
        states, told = self._read([one.texts[0] for one in ids], on_progress), np.array([one.compared for one in ids])
        found: NDArray[np.float32] = np.concatenate([states, self._said_beside(ids), told], 1, dtype=np.float32)
        return found

    def _choose(self, features: NDArray[Any], pool: Pool) -> None:
        """An encoder beside it that is optional stays where it makes groups that were not seen less surprising; says so
        where it goes."""
        if self.beside is None or not self.optional:
            super()._choose(features, pool)
            return
        own, vectors = self._width, self.beside.vectors
        alone = np.delete(features, slice(own, own + vectors.states + vectors.cosines), axis=1)
        with_it, without = pool(features, self.telling), pool(alone, self.telling - vectors.cosines)
        if with_it.unseen is None or without.unseen is None or with_it.unseen <= without.unseen:
            self._take(with_it)
            return
        say(
            f"encoder: leaves the one beside it out: a loss of {without.unseen:.3f} on unseen groups of train without "
            f"it, {with_it.unseen:.3f} with it; --set train.encoder.beside=FOLDER keeps it"
        )
        device, self.beside, self.vectors = self.device, None, None
        self._size(own, 0, self.head.out_features)
        self.to(device)._take(without)

    def keep(self, folder: Path) -> None:
        """Take states that are known from a folder, and write new ones there. A file's name tells the weights: those
        of a student are the model's, so that both find the same."""
        self._kept = VectorCache(folder / f"{_fingerprint(self.policy.lm)[:24]}{STATES}")

    def known(self, ids: Sequence[Encoded]) -> int:
        """How many samples' states are kept."""
        return sum(self._kept.known([self._key(one.texts[0]) for one in ids])) if self._kept else 0

    def _read(self, prompts: Sequence[list[int]], on_progress: OnProgress) -> NDArray[np.float32]:
        """[N, 2 D] states of prompts, those that are kept first."""
        if self._kept is None:
            return self._computed(prompts, on_progress)
        keys = [self._key(prompt) for prompt in prompts]
        place = dict(zip(keys, prompts, strict=True))
        on_progress(len(keys) - len(place) + sum(self._kept.known(list(place))))
        found = self._kept.vectors(
            keys, lambda new: self._computed([place[key] for key in new], on_progress), each=_BETWEEN
        )
        if found.shape[1] != self._width:
            raise PiarError("What is kept in embeddings/ is not of this model.", "Remove that folder.")
        return found

    def _key(self, prompt: Sequence[int]) -> str:
        return f"{self.skipped}: {' '.join(map(str, prompt))}"

    def _computed(self, prompts: Sequence[list[int]], on_progress: OnProgress) -> NDArray[np.float32]:
        items = [self._item(prompt) for prompt in prompts]
        found = np.zeros((len(items), self._width), dtype=np.float32)
        with self.policy.judging():
            for part in micro_batches(items, _TOGETHER, self.policy.window):
                found[part] = self._states([items[i] for i in part]).cpu().numpy()
                on_progress(len(part))
        return found

    def _said_beside(self, ids: Sequence[Encoded]) -> NDArray[np.float32]:
        return self.beside.features([one.said for one in ids]) if self.beside else np.zeros((len(ids), 0), np.float32)

    def _item(self, prompt: list[int]) -> Item:
        own = min(self.skipped, len(prompt) - 1) + 1
        return Item(prompt[:own], [[*prompt[own:], 0]])

    def _states(self, items: Sequence[Item]) -> Tensor:
        """[m, 2 D] the mean state of each sample's tokens behind what all share, and the last one."""
        if self.root.tokens and max(item.depth for item in items) <= self.policy.window:
            rows = hidden_rows(self.policy, self.root.below(self.policy, items))
        else:
            rows = self.policy(self.policy.pack(items), lambda hidden, head: hidden)
        each = torch.split(rows.float(), [len(item.completions[0]) for item in items])
        return torch.stack([torch.cat([one.mean(0), one[-1]]) for one in each])

    @torch.inference_mode()
    def warm(self, tokenizer: Any) -> list[int]:
        """Keep computed what all prompts begin with, for requests that come one by one; returns its tokens, none where
        the model's states would be others."""
        alike = [one for [one] in self.tokens(tokenizer, [[word] * self.texts for word in ("a", "7 b")], None)]
        shared = alike[0][: self.skipped]
        if len(shared) < self.policy.window and shared == alike[1][: self.skipped]:
            with self.policy.judging():
                if unlike(self.policy, partial(self._warmed, shared, [self._item(one) for one in alike])) is not None:
                    self.root = Root(self.policy)
        return self.root.tokens

    def _warmed(self, shared: list[int], items: Sequence[Item]) -> float:
        """Keep the first tokens computed; how far states are then from what they were, at the farthest."""
        self.root = Root(self.policy)
        cold, self.root = self._states(items), Root(self.policy, shared)
        return farthest(self._states(items), cold)

    def save_pretrained(self, folder: Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Write the layers that are read as a plain folder, the head beside it, and in `BESIDE` another one's."""
        self.policy.lm.save_pretrained(folder, state_dict=state_dict)
        if self.beside:
            self.beside.save(Path(folder) / BESIDE)
        asks = {"around": [self.before, self.behind], "names": self.names, "skipped": self.skipped}
        self.save_head(folder, {"asks": json.dumps(asks)})

    @classmethod
    def begun(
        cls, model: str, task: Task, names: Mapping[str, Any], *, rubric: str = "", beside: str = ""
    ) -> tuple["Prompted", Any]:
        """One on a language model's folder, which has learnt nothing, and its tokenizer.

        Args:
            names: of the labels, as a configuration keeps them.
            rubric: stands in front of the question.
            beside: a sentence encoder's folder.

        Raises:
            PiarError: see `load_reader` and `Beside.begun`.
        """
        other = Beside.begun(beside, task) if beside else None
        read_before = (here(model) / HEAD).is_file()  # an earlier student's: its layers are the lower ones already
        policy, tokenizer = load_reader(model, dtype=for_reading(), depth=1.0 if read_before else DEPTH)
        vars(policy.lm.config).update(names)
        order = [task.asked, *(name for name in task.fields if name != task.asked)]
        said = order if len(order) <= MOST_TEXTS else [order[0], ", ".join(order[1:])]
        around = _question(task, said, rubric)
        ids = asked(tokenizer, *around, said, [[letter] * len(said) for letter in ("a", "7")])
        return cls(policy, len(task.grades), around, said, common_prefix(*ids), other), tokenizer

    @classmethod
    def load(cls, folder: Path) -> "Prompted":
        """One that was saved.

        Raises:
            PiarError: no such model, or no head that fits it.
        """
        policy, _ = load_reader(str(folder), dtype=for_reading())
        try:
            beside = Beside.load(folder / BESIDE) if (folder / BESIDE).is_dir() else None
            with safe_open(str(folder / HEAD), "pt") as file:
                asks = json.loads((file.metadata() or {})["asks"])
                grades = policy.lm.config.num_labels
                with UNMADE:
                    found = cls(policy, grades, asks["around"], asks["names"], int(asks["skipped"]), beside)
                if found.skipped < 1:
                    raise ValueError("its prompts share nothing")
                if beside and beside.vectors.texts != found.texts:
                    raise ValueError("the encoder beside it reads other texts")
                found.load_head(file)
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise no_head(folder, error) from None
        return found


def _fingerprint(lm: Any) -> str:
    """Hash of the weights that are read and of what says how, but for names."""
    said = {key: value for key, value in lm.config.to_dict().items() if key not in _NAMES}
    told = hashlib.sha256(json.dumps([_VERSION, said], sort_keys=True, default=str).encode())
    for name, tensor in sorted(lm.state_dict().items()):
        told.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        told.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
    return told.hexdigest()


def asked(
    tokenizer: Any, before: str, behind: str, names: Sequence[str], rows: Sequence[Sequence[str]]
) -> list[list[int]]:
    """Tokens of the prompts that ask about rows of texts; what these say is plain text."""
    bodies = ["\n".join(f"{name}: {text}" for name, text in zip(names, row, strict=True)) for row in rows]
    return prompt_ids(tokenizer, [[{"role": "user", "content": f"{before}\n\n{body}\n\n{behind}"}] for body in bodies])


def _question(task: Task, names: Sequence[str], rubric: str) -> tuple[str, str]:
    """What a prompt says before the texts and behind them."""
    said = [grade.meaning or grade.name for grade in task.grades]
    grades = [
        f"{grade.symbol} ({words[:_MEANING]})" if words and words != grade.symbol else grade.symbol
        for grade, words in zip(task.grades, said, strict=True)
    ]
    question = f"Grade the {names[-1]}: {', '.join(grades)}."
    return "\n\n".join(filter(None, [rubric, question])), "Answer with the grade."
