"""A Hugging Face causal model in this process: the grade in one prefill, the instruction's share computed once.

All requests of a batch begin alike (task, grades, rulebook). Their longest common token prefix is run once, its
keys and values are kept, and only what differs is run for each sample. The grade's distribution is the next
token's, over the grades alone; the trace after it is generated only on demand.
"""

import copy
import random
import time
from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import TYPE_CHECKING, Any, Literal

from piar.llm.base import Completion, Failure, OnCompletion, Request, Usage
from store.errors import PiarError
from store.settings import Settings

if TYPE_CHECKING:
    from torch import Tensor


class LocalOptions(Settings):
    """`extra` of a `hf:` model.

    Attributes:
        dtype: of weights and computation.
        device: `cpu`, `cuda`, `cuda:1`, …; empty takes a GPU when there is one.
        trace: write the trace after the grade; without it an answer is the grade alone.
        batch_tokens: tokens of one forward, the shared prefix not counted.
    """

    dtype: Literal["float32", "bfloat16"] = "float32"
    device: str = ""
    trace: bool = False
    batch_tokens: int = 8192


class TransformersClient:
    """A `Client` for a local model folder.

    Raises:
        PiarError: the packages or the model are missing, or grades begin with the same token.
    """

    def __init__(self, path: str, options: LocalOptions | None = None) -> None:
        try:
            import torch
            from transformers import AutoModelForCausalLM, AutoTokenizer
        except ImportError:
            raise PiarError("Local models need torch and transformers.", "pip install 'piar[train]'") from None
        self.options = options or LocalOptions()
        device = self.options.device or ("cuda" if torch.cuda.is_available() else "cpu")
        try:
            self._tokenizer: Any = AutoTokenizer.from_pretrained(path)
            loaded: Any = AutoModelForCausalLM.from_pretrained(path, dtype=getattr(torch, self.options.dtype))
        except (OSError, ValueError) as error:
            raise PiarError(f"{path} is not a model that transformers can load: {error}", "Check the path.") from None
        self._path, self._torch, self._model = path, torch, loaded.to(device).eval()

    @property
    def model(self) -> str:
        """`hf:PATH`."""
        return f"hf:{self._path}"

    def generate(self, requests: Sequence[Request], on_completion: OnCompletion | None = None) -> list[Completion]:
        """See `Client.generate`. Requests with grades are scored; others are generated."""
        prompts = [self._tokens(request) for request in requests]
        done: dict[int, Completion] = {}
        with self._torch.inference_mode():
            for positions, prefix in self._groups(requests, prompts):
                for at, completion in self._answer(requests, prompts, positions, prefix):
                    done[at] = completion
                    if on_completion is not None:
                        on_completion(completion)
        return [done[position] for position in range(len(requests))]

    # -- grouping ---------------------------------------------------------------------------

    def _groups(self, requests: Sequence[Request], prompts: Sequence[list[int]]) -> Iterator[tuple[list[int], int]]:
        """Positions of requests with the same first message and grades, and the length of their common prefix."""
        groups: dict[tuple[str, tuple[str, ...]], list[int]] = {}
        for position, request in enumerate(requests):
            groups.setdefault((request.messages[0].content, request.grades), []).append(position)
        for positions in groups.values():
            yield positions, common_prefix([prompts[p] for p in positions])

    def _batches(self, prompts: Sequence[list[int]], positions: list[int], prefix: int) -> Iterator[list[int]]:
        """Positions sorted by length, so that little is padded, and cut to `batch_tokens`."""
        batch: list[int] = []
        for position in sorted(positions, key=lambda p: len(prompts[p])):
            if batch and (len(batch) + 1) * (len(prompts[position]) - prefix) > self.options.batch_tokens:
                yield batch
                batch = []
            batch.append(position)
        yield batch

    def _answer(
        self, requests: Sequence[Request], prompts: Sequence[list[int]], positions: list[int], prefix: int
    ) -> Iterator[tuple[int, Completion]]:
        fitting = [p for p in positions if len(prompts[p]) < self._longest]
        for position in set(positions) - set(fitting):
            words = f"the prompt has {len(prompts[position])} tokens; the model takes {self._longest - 1}"
            yield position, Completion(requests[position].key, self.model, failure=Failure("request", words))
        if not fitting:
            return
        grades = requests[fitting[0]].grades
        shared = self._prefill(prompts[fitting[0]][:prefix]) if grades and prefix else None
        for batch in self._batches(prompts, fitting, prefix):
            started = time.monotonic()
            asked = [requests[p] for p in batch]
            rows = self._score(prompts, batch, prefix, shared, grades) if grades else [{}] * len(batch)
            chosen = [choose(row, request) if row else "" for row, request in zip(rows, asked, strict=True)]
            texts = self._texts(asked, [prompts[p] for p in batch], chosen)
            seconds = (time.monotonic() - started) / len(batch)
            for position, request, row, (text, tokens) in zip(batch, asked, rows, texts, strict=True):
                usage = Usage(len(prompts[position]), prefix if grades else 0, tokens)
                yield position, Completion(request.key, self.model, text, row or None, usage=usage, seconds=seconds)

    # -- the model --------------------------------------------------------------------------

    @property
    def _longest(self) -> int:
        return int(getattr(self._model.config, "max_position_embeddings", 1 << 30))

    def _tokens(self, request: Request) -> list[int]:
        chat = [{"role": m.role, "content": m.content} for m in request.messages]
        text = self._tokenizer.apply_chat_template(
            chat, tokenize=False, add_generation_prompt=True, enable_thinking=False
        )
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _prefill(self, tokens: list[int]) -> Any:
        """Keys and values of the shared prefix, one row."""
        from transformers import DynamicCache

        ids = self._torch.tensor([tokens], device=self._model.device)
        return self._model.base_model(ids, past_key_values=DynamicCache(), use_cache=True).past_key_values

    def _score(
        self, prompts: Sequence[list[int]], batch: list[int], prefix: int, shared: Any, grades: tuple[str, ...]
    ) -> list[dict[str, float]]:
        """Probability of each grade as the next token, over the grades alone, for each row of the batch."""
        torch = self._torch
        tails = [prompts[p][prefix:] for p in batch]
        longest = max(map(len, tails))
        # Padded on the right: a causal model's earlier positions cannot see the padding.
        ids = torch.tensor([tail + [0] * (longest - len(tail)) for tail in tails], device=self._model.device)
        cache = copy.deepcopy(shared)
        if cache is not None:
            cache.batch_repeat_interleave(len(batch))
        hidden = self._model.base_model(ids, past_key_values=cache, use_cache=cache is not None).last_hidden_state
        last = torch.tensor([len(tail) - 1 for tail in tails], device=hidden.device)
        rows = hidden[torch.arange(len(batch), device=hidden.device), last]
        head = self._model.get_output_embeddings()
        logits: Tensor = rows @ head.weight[self._grade_tokens(grades)].T
        probabilities: list[list[float]] = logits.float().softmax(-1).tolist()
        return [dict(zip(grades, row, strict=True)) for row in probabilities]

    def _grade_tokens(self, grades: tuple[str, ...]) -> list[int]:
        """The token that each grade begins with."""
        tokens = [self._tokenizer(grade, add_special_tokens=False)["input_ids"][0] for grade in grades]
        if len(set(tokens)) < len(tokens):
            raise PiarError(
                f"Some of the grades {', '.join(grades)} begin with the same token of this model.",
                "Choose grade symbols of one token each, such as digits, in task.toml.",
            )
        return tokens

    def _texts(
        self, requests: Sequence[Request], prompts: Sequence[list[int]], chosen: Sequence[str]
    ) -> list[tuple[str, int]]:
        """The answers and their lengths in tokens: the grade, and what is generated after it."""
        if chosen[0] and not self.options.trace:
            return [(grade, 1) for grade in chosen]
        starts = [prompt + self._ids(grade) for prompt, grade in zip(prompts, chosen, strict=True)]
        endings = self._continue(starts, requests[0])
        return [(grade + text, length) for grade, (text, length) in zip(chosen, endings, strict=True)]

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self._tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _continue(self, starts: list[list[int]], like: Request) -> list[tuple[str, int]]:
        torch, longest = self._torch, max(map(len, starts))
        padding = self._tokenizer.pad_token_id or 0
        ids = torch.tensor([[padding] * (longest - len(s)) + s for s in starts], device=self._model.device)
        mask = torch.tensor([[0] * (longest - len(s)) + [1] * len(s) for s in starts], device=self._model.device)
        sampling = {"do_sample": True, "temperature": like.temperature} if like.temperature else {"do_sample": False}
        torch.manual_seed(like.seed)
        output = self._model.generate(
            input_ids=ids, attention_mask=mask, max_new_tokens=like.max_tokens, pad_token_id=padding, **sampling
        )
        new = [row[longest:] for row in output.tolist()]
        kept = [[t for t in row if t != padding] for row in new]
        return [(self._tokenizer.decode(row, skip_special_tokens=True), len(row)) for row in kept]


def common_prefix(prompts: Sequence[list[int]]) -> int:
    """How many tokens all prompts begin with, leaving at least one token of each."""
    first, last = min(prompts), max(prompts)
    shared = sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False)))
    return min(shared, min(map(len, prompts)) - 1)


def choose(probs: dict[str, float], request: Request) -> str:
    """The likeliest grade, or at a temperature above 0 a draw that depends on the request's key and seed alone."""
    if not request.temperature:
        return max(probs, key=lambda grade: probs[grade])
    weights = [p ** (1 / request.temperature) for p in probs.values()]
    return random.Random(f"{request.key}:{request.seed}").choices(list(probs), weights)[0]
