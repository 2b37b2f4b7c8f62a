"""A classifier on a frozen language model: what it holds in mind while it reads the question, under a fitted head.

A few hundred rows teach a language model little by gradients, and linear classifiers on its states a lot
(docs/experiments/real.md). It is asked for the grade, and read two thirds up: there states say most of a text, and what
lies above is neither computed nor kept (Skean et al. 2025, arXiv 2502.02013; our choice of the place). Features are the
mean state over a sample's tokens, that of the prompt's last token, and what `trainers.fitted` says of the texts.
"""

import json
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from torch import Tensor

from store.task import Task
from trainers.data import common_prefix, micro_batches
from trainers.fitted import HEAD, MOST_TEXTS, Encoded, Fitted, OnProgress, compared_of, no_head
from trainers.layout import Item
from trainers.loading import load_reader
from trainers.model import Policy, fitting_prompts, prompt_ids
from trainers.precision import for_reading

DEPTH = 2 / 3  # of the layers
_TOGETHER = 2048  # tokens computed at once
_MEANING = 200  # characters of what a grade means


class Prompted(Fitted):
    """Logits of K grades from the states of a language model that is asked for the grade.

    Args:
        policy: the model; it never learns.
        around: what a prompt says before a sample's texts and behind them.
        names: of the texts.
        skipped: tokens in front of a prompt that are the same for all samples.
    """

    def __init__(self, policy: Policy, grades: int, around: Sequence[str], names: Sequence[str], skipped: int) -> None:
        super().__init__(len(names), grades, states=2 * policy.lm.config.get_text_config().hidden_size)
        self.policy, self.skipped = policy.requires_grad_(requires_grad=False), skipped
        (self.before, self.behind), self.names = around, tuple(names)

    @property
    def config(self) -> Any:
        """The language model's, with the names of the grades."""
        return self.policy.lm.config

    def tokens(self, tokenizer: Any, texts: Sequence[Sequence[str]], limit: int | None) -> list[list[list[int]]]:
        """Of each sample its prompt's tokens; the longest text is cut where they are more than `limit`.

        Raises:
            PiarError: the prompt is too long without any text.
        """
        write = partial(asked, tokenizer, self.before, self.behind, self.names)
        fix = "Raise train.encoder.max_length."
        ids = write(texts) if limit is None else fitting_prompts(texts, write, limit, fix)[0]
        return [[one] for one in ids]

    @torch.inference_mode()
    def features(
        self, tokenizer: Any, ids: Sequence[Encoded], on_progress: OnProgress = lambda n: None
    ) -> NDArray[np.float32]:
        """[N, F] what the head is given of samples."""
        found = np.zeros((len(ids), self.head.in_features), dtype=np.float32)
        items = [self._item(one.texts[0]) for one in ids]
        with self.policy.judging():
            for part in micro_batches(items, _TOGETHER, self.policy.window):
                states = self._states([items[i] for i in part])
                told = compared_of([ids[i] for i in part], states.device)
                found[part] = torch.cat([states, *([] if told is None else [told])], 1).cpu().numpy()
                on_progress(len(part))
        return found

    def _item(self, prompt: list[int]) -> Item:
        shared = min(self.skipped, len(prompt) - 1)
        return Item(prompt[:shared], [[*prompt[shared:], 0]])

    def _states(self, items: Sequence[Item]) -> Tensor:
        """[m, 2 D] the mean state of each sample's tokens, and the last one."""
        rows: Tensor = self.policy(self.policy.pack(items), lambda hidden, head: hidden)
        each = torch.split(rows.float(), [len(item.completions[0]) for item in items])
        return torch.stack([torch.cat([one[1:].mean(0), one[-1]]) for one in each])  # the first is the shared part's

    def save_pretrained(self, folder: Path, state_dict: Mapping[str, Tensor] | None = None) -> None:
        """Write the layers that are read as a plain folder, and the head beside it."""
        self.policy.lm.save_pretrained(folder, state_dict=state_dict)
        asks = {"around": [self.before, self.behind], "names": self.names, "skipped": self.skipped}
        self.save_head(folder, {"asks": json.dumps(asks)})

    @classmethod
    def begun(cls, model: str, task: Task, names: Mapping[str, Any], rubric: str = "") -> tuple["Prompted", Any]:
        """One on a language model's folder, which has learnt nothing, and its tokenizer.

        Args:
            names: of the labels, as a configuration keeps them.
            rubric: stands in front of the question.

        Raises:
            PiarError: see `load_reader`.
        """
        policy, tokenizer = load_reader(model, dtype=for_reading(), depth=DEPTH)
        vars(policy.lm.config).update(names)
        order = [task.asked, *(name for name in task.fields if name != task.asked)]
        said = order if len(order) <= MOST_TEXTS else [order[0], ", ".join(order[1:])]
        around = _question(task, said, rubric)
        ids = asked(tokenizer, *around, said, [[letter] * len(said) for letter in ("a", "7")])
        return cls(policy, len(task.grades), around, said, common_prefix(*ids)), tokenizer

    @classmethod
    def load(cls, folder: Path) -> "Prompted":
        """One that was saved.

        Raises:
            PiarError: no such model, or no head that fits it.
        """
        policy, _ = load_reader(str(folder), dtype=for_reading())
        try:
            with safe_open(str(folder / HEAD), "pt") as file:
                asks = json.loads((file.metadata() or {})["asks"])
                grades = policy.lm.config.num_labels
                found = cls(policy, grades, asks["around"], asks["names"], int(asks["skipped"]))
                if found.skipped < 1:
                    raise ValueError("its prompts share nothing")
                found.load_state_dict(
                    {**{f"policy.{k}": v for k, v in policy.state_dict().items()}, **found.load_head(file)}
                )
        except (OSError, SafetensorError, KeyError, TypeError, ValueError, RuntimeError) as error:
            raise no_head(folder, error) from None
        return found


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
