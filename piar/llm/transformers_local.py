"""A Hugging Face causal model in this process: the grade in one prefill, the instruction's share computed once.

Prompts that begin alike (task, grades, rulebook) share their common token prefix, by the trainers' own
layout. The grade's distribution is the next token's, over the grades alone; the trace after it is
decoded only on demand. An answer that has a schema is held to it while it is written (`piar.llm.constrained`).
"""

import time
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

import trainers  # noqa: F401  settles how torch's threads wait, before torch is imported
from piar.llm.base import Completion, Failure, OnCompletion, Request, Usage
from piar.llm.grade_probs import choose
from store.errors import PiarError
from store.settings import Settings

if TYPE_CHECKING:
    from piar.llm.constrained import Guide, Schemas

PROMPT_TOKENS = 16384  # of the longest prompt: memory grows with the square of a sample's own part


class LocalOptions(Settings):
    """`extra` of a `hf:` model.

    Attributes:
        dtype: of weights and computation.
        device: `cpu`, `cuda`, `cuda:1`, …; empty takes a GPU when there is one.
        trace: write the trace after the grade; without it an answer is the grade alone.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = ""
    trace: bool = False


class TransformersClient:
    """A `Client` for a local model folder.

    Raises:
        PiarError: the packages or the model are missing.
    """

    def __init__(self, path: str, options: LocalOptions | None = None) -> None:
        try:
            import torch

            from trainers.loading import load_policy
        except ImportError:
            raise PiarError("Local models need torch and transformers.", "pip install 'piar[train]'") from None
        self.options = options or LocalOptions()
        device = self.options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        policy, self._tokenizer = load_policy(path, dtype=getattr(torch, self.options.dtype), device=device)
        self._policy, self._path = policy.eval(), path
        self._schemas: Schemas | None = None
        self._said: set[str] = set()  # why answers cannot be held to a schema

    @property
    def window(self) -> int:
        """Most tokens of a prompt and its answer together."""
        from trainers.model import context

        return min(context(self._policy.lm) or PROMPT_TOKENS, PROMPT_TOKENS)

    def tokens(self, text: str) -> int:
        """Tokens of a text."""
        return len(self._tokenizer(text, add_special_tokens=False)["input_ids"])

    @property
    def model(self) -> str:
        """`hf:PATH`."""
        return f"hf:{self._path}"

    def generate(self, requests: Sequence[Request], on_completion: OnCompletion | None = None) -> list[Completion]:
        """See `Client.generate`. Requests with grades are scored; others are generated.

        Raises:
            UsageError: a grade symbol is not one token of the model.
        """
        done: dict[int, Completion] = {}
        for position, completion in self._answers(requests):
            done[position] = completion
            if on_completion is not None:
                on_completion(completion)
        return [done[position] for position in range(len(requests))]

    def _answers(self, requests: Sequence[Request]) -> Iterator[tuple[int, Completion]]:
        from trainers.model import prompt_ids
        from trainers.scoring import batches

        chats = [[{"role": m.role, "content": m.content} for m in request.messages] for request in requests]
        prompts = prompt_ids(self._tokenizer, chats)
        alike: dict[tuple[object, ...], list[int]] = {}
        for position, request in enumerate(requests):
            if (failure := self._too_long(prompts[position])) is not None:
                yield position, Completion(request.key, self.model, failure=failure)
            else:
                kind = (request.grades, request.temperature, request.max_tokens, request.schema is None)
                alike.setdefault(kind, []).append(position)
        for positions in alike.values():
            for batch in batches([prompts[p] for p in positions], self._policy):
                chosen = [positions[i] for i in batch]
                answered = self._batch([requests[p] for p in chosen], [prompts[p] for p in chosen])
                yield from zip(chosen, answered, strict=True)

    def _batch(self, requests: Sequence[Request], prompts: Sequence[list[int]]) -> list[Completion]:
        """Answer requests with the same grades, temperature and length limit, all with a schema or none."""
        started = time.monotonic()
        if requests[0].grades:
            probs = self._score(prompts, requests[0].grades)
            grades = [choose(row or {}, request) for row, request in zip(probs, requests, strict=True)]
            texts = self._texts(requests, prompts, grades) if self.options.trace else [(g, 1) for g in grades]
        else:
            probs, texts = [None] * len(requests), self._texts(requests, prompts, None, self._guides(requests))
        seconds = (time.monotonic() - started) / len(requests)
        return [
            Completion(r.key, self.model, text, row, usage=Usage(len(prompt), 0, length), seconds=seconds)
            for r, prompt, row, (text, length) in zip(requests, prompts, probs, texts, strict=True)
        ]

    def _score(self, prompts: Sequence[list[int]], grades: tuple[str, ...]) -> list[dict[str, float] | None]:
        """Probability of each grade as the next token, over the grades alone."""
        import torch

        from trainers.model import symbol_ids

        with torch.inference_mode():
            ids = torch.tensor(symbol_ids(self._tokenizer, grades), device=self._policy.device)
            rows = self._policy.grades(prompts, ids).tolist()
        return [dict(zip(grades, row, strict=True)) for row in rows]

    def _guides(self, requests: Sequence[Request]) -> "list[Guide] | None":
        """What holds each answer to its schema; None where there is none, or it cannot be held."""
        schemas: list[Mapping[str, Any]] = [r.schema for r in requests if r.schema is not None]
        if len(schemas) < len(requests):
            return None
        from piar.llm.constrained import Schemas
        from trainers.model import turn_ends

        try:
            if self._schemas is None:
                size = self._policy.lm.get_input_embeddings().weight.shape[0]
                self._schemas = Schemas(self._tokenizer, size, turn_ends(self._tokenizer)[0])
            return [self._schemas.guide(schema) for schema in schemas]
        except PiarError as error:
            if error.message not in self._said:
                self._said.add(error.message)
                warnings.warn(f"{self.model} answers freely: {error.message} {error.fix}", stacklevel=2)
            return None

    def _texts(
        self,
        requests: Sequence[Request],
        prompts: Sequence[list[int]],
        grades: Sequence[str] | None,
        guides: "Sequence[Guide] | None" = None,
    ) -> list[tuple[str, int]]:
        """Answers decoded from the prompts (after the grades, if given), and their lengths in tokens."""
        import torch

        from trainers.model import symbol_ids, turn_ends
        from trainers.rollout import generate

        ends, like = turn_ends(self._tokenizer), requests[0]
        starts = None if grades is None else [symbol_ids(self._tokenizer, [grade])[0] for grade in grades]
        with torch.inference_mode():
            generator = torch.Generator(self._policy.device).manual_seed(like.seed)
            found = generate(
                self._policy,
                prompts,
                end=ends,
                limit=like.max_tokens,
                starts=starts,
                temperature=like.temperature,
                generator=generator,
                guides=guides,
            )
        return [(self._tokenizer.decode([t for t in only if t not in ends]), len(only)) for [only] in found]

    def _too_long(self, prompt: list[int]) -> Failure | None:
        if len(prompt) < self.window:
            return None
        return Failure("request", f"the prompt has {len(prompt)} tokens, too many: the model takes {self.window - 1}")
