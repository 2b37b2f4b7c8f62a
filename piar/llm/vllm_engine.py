"""Offline vLLM, in this process or in several with an engine each: prefix caching, grades constrained.

The grade is generated first, constrained to the task's symbols, with probabilities over exactly those; the
trace, when it is wanted, is a second pass that finds the whole prompt in the prefix cache.
"""

import json
import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from multiprocessing.queues import Queue
from pathlib import Path
from typing import Any

from pydantic import Field

from piar.llm.base import Completion, Failure, OnCompletion, Request, Usage
from piar.llm.grade_probs import Token, grade_probs
from store.errors import PiarError
from store.settings import Settings

GRADE_TOKENS = 8  # most tokens of a grade symbol
CHUNK = 512  # requests that one engine takes at a time when there are several


class VllmOptions(Settings):
    """`extra` of a `vllm:` model.

    Attributes:
        engines: engines that share the work, each in a process and on devices of its own.
        devices_per_engine: GPUs of one engine (tensor parallel).
        trace: write the trace after the grade; without it an answer is the grade alone.
        engine: further arguments of `vllm.LLM`, such as `max_model_len`.
    """

    engines: int = Field(default=1, ge=1)
    devices_per_engine: int = Field(default=1, ge=1)
    trace: bool = False
    engine: dict[str, Any] = Field(default_factory=dict)


class Engine:
    """One `vllm.LLM`.

    Raises:
        PiarError: vLLM is missing, or cannot run here.
    """

    def __init__(self, path: str, options: VllmOptions) -> None:
        if (Path(path) / "adapter_config.json").is_file() and not (Path(path) / "config.json").is_file():
            raise PiarError(
                f"{path} holds adapters, which this engine does not run without their base.",
                f"Ask hf:{path}. Or serve their base, and ask openai:judge there: "
                f"`vllm serve BASE --enable-lora --lora-modules judge={path}`.",
            )
        try:
            from vllm import LLM
        except ImportError:
            raise PiarError(
                "This model needs vLLM, which is not installed here.",
                "pip install 'piar[vllm]' in an environment of its own, or serve the model and use openai:NAME.",
            ) from None
        arguments = {
            "enable_prefix_caching": True,
            "logprobs_mode": "processed_logprobs",  # after the constraint: probabilities over the grades alone
            "tensor_parallel_size": options.devices_per_engine,
            **options.engine,
        }
        try:
            self._llm: Any = LLM(model=path, **arguments)
        except (RuntimeError, ValueError, OSError) as error:
            raise PiarError(f"vLLM cannot run {path}: {error}", "Check the path, the GPU and its memory.") from None
        self._trace, self._folds = options.trace, False

    def answer(self, requests: Sequence[Request]) -> list[Completion]:
        """Answer every request, in order; `model` is left for the client to name."""
        started = time.monotonic()
        if all(request.grades for request in requests):
            graded = self._grade(requests)
            done = self._with_traces(requests, graded) if self._trace else graded
        else:
            outputs = self._chat(requests, [_free(r, r.max_tokens) for r in requests])
            done = [_completion(r, o, o.outputs[0].text) for r, o in zip(requests, outputs, strict=True)]
        seconds = (time.monotonic() - started) / len(requests)
        return [replace(completion, seconds=seconds) for completion in done]

    def _grade(self, requests: Sequence[Request]) -> list[Completion]:
        from vllm import SamplingParams
        from vllm.sampling_params import StructuredOutputsParams

        sampling = [
            SamplingParams(
                temperature=request.temperature,
                seed=request.seed,
                max_tokens=GRADE_TOKENS,
                logprobs=len(request.grades),
                structured_outputs=StructuredOutputsParams(choice=list(request.grades)),
            )
            for request in requests
        ]
        outputs = self._chat(requests, sampling)
        return [
            replace(_completion(r, o, o.outputs[0].text), probs=_probs(o, r.grades))
            for r, o in zip(requests, outputs, strict=True)
        ]

    def _with_traces(self, requests: Sequence[Request], graded: Sequence[Completion]) -> list[Completion]:
        chats = [
            [*_messages(r), {"role": "assistant", "content": g.text}] for r, g in zip(requests, graded, strict=True)
        ]
        sampling = [_free(r, r.max_tokens) for r in requests]
        outputs = self._write(chats, sampling, add_generation_prompt=False, continue_final_message=True)
        return [
            replace(g, text=f"{g.text}{o.outputs[0].text}", usage=_add(g.usage, _usage(o)))
            for g, o in zip(graded, outputs, strict=True)
        ]

    def _chat(self, requests: Sequence[Request], sampling: Sequence[Any]) -> list[Any]:
        return self._write([_messages(r) for r in requests], sampling)

    def _write(self, chats: list[list[dict[str, Any]]], sampling: Sequence[Any], **how: Any) -> list[Any]:
        """What the model writes; where its template refuses the system role, the user's message begins with it."""

        def write(chats: list[list[dict[str, Any]]]) -> list[Any]:
            thinking = {"enable_thinking": False}
            return list(self._llm.chat(chats, list(sampling), use_tqdm=False, chat_template_kwargs=thinking, **how))

        if not self._folds:
            try:
                return write(chats)
            except (ValueError, TypeError):  # vLLM wraps what a template says in its own
                if not any(m["role"] == "system" for chat in chats for m in chat):
                    raise
        outputs = write([_folded(chat) for chat in chats])
        self._folds = True
        return outputs


class VllmClient:
    """A `Client` for a model folder that vLLM runs without HTTP."""

    def __init__(self, path: str, options: VllmOptions | None = None) -> None:
        self._path, self._options = path, options or VllmOptions()
        self._engine = Engine(path, self._options) if self._options.engines == 1 else None
        self._pool = None if self._engine else _pool(path, self._options)

    @property
    def model(self) -> str:
        """`vllm:PATH`."""
        return f"vllm:{self._path}"

    @property
    def window(self) -> int | None:
        """Most tokens of a prompt and its answer together; None where neither options nor the model's folder say."""
        return self._options.engine.get("max_model_len") or _positions(Path(self._path) / "config.json")

    def generate(self, requests: Sequence[Request], on_completion: OnCompletion | None = None) -> list[Completion]:
        """See `Client.generate`. An engine that dies fails its requests, not the others'."""
        done: dict[int, Completion] = {}
        for positions, completions in self._answers(requests):
            for position, completion in zip(positions, completions, strict=True):
                done[position] = replace(completion, model=self.model)
                if on_completion is not None:
                    on_completion(done[position])
        return [done[position] for position in range(len(requests))]

    def _answers(self, requests: Sequence[Request]) -> Iterator[tuple[range, list[Completion]]]:
        chunks = [range(i, min(i + CHUNK, len(requests))) for i in range(0, len(requests), CHUNK)]
        # A check is a function of the caller's; it stays here.
        bare = [replace(request, check=None, brief=None) for request in requests]
        if self._engine is not None:
            for chunk in chunks:
                yield chunk, self._engine.answer([bare[i] for i in chunk])
            return
        assert self._pool is not None
        running: dict[Future[list[Completion]], range] = {
            self._pool.submit(_answer, [bare[i] for i in chunk]): chunk for chunk in chunks
        }
        for future in as_completed(running):
            chunk = running[future]
            try:
                yield chunk, future.result()
            except BrokenProcessPool:
                failure = Failure("server", "the vLLM process died; its own words are above")
                yield chunk, [Completion(requests[i].key, self.model, failure=failure) for i in chunk]


# -- processes of their own -----------------------------------------------------------------

_here: Engine | None = None  # the engine of a worker process


def _pool(path: str, options: VllmOptions) -> ProcessPoolExecutor:
    context = get_context("spawn")
    ranks: Queue[int] = context.Queue()
    for rank in range(options.engines):
        ranks.put(rank)
    return ProcessPoolExecutor(options.engines, context, _start, (path, options, ranks))


def _start(path: str, options: VllmOptions, ranks: "Queue[int]") -> None:
    """Take the next free devices and start an engine on them."""
    global _here
    first = ranks.get() * options.devices_per_engine
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if os.environ.get("CUDA_VISIBLE_DEVICES") else None
    devices = [str(d) for d in range(first, first + options.devices_per_engine)]
    os.environ["CUDA_VISIBLE_DEVICES"] = ",".join([visible[int(d)] for d in devices] if visible else devices)
    _here = Engine(path, options)


def _answer(requests: list[Request]) -> list[Completion]:
    assert _here is not None
    return _here.answer(requests)


def _positions(config: Path) -> int | None:
    """Tokens of the longest sequence that a model has positions for, as its configuration says."""
    if not config.is_file():
        return None
    said = json.loads(config.read_text(encoding="utf-8"))
    most = said.get("text_config", said).get("max_position_embeddings")
    return most if isinstance(most, int) and most > 0 else None


# -- between vLLM's words and ours ----------------------------------------------------------


def _messages(request: Request) -> list[dict[str, Any]]:
    return [{"role": m.role, "content": m.content} for m in request.messages]


def _folded(chat: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The chat without a system role, its words at the head of the first other message."""
    system = [m["content"] for m in chat if m["role"] == "system"]
    first, *others = [m for m in chat if m["role"] != "system"]
    return [{**first, "content": "\n\n".join([*system, first["content"]])}, *others]


def _free(request: Request, tokens: int) -> Any:
    from vllm import SamplingParams

    said = {"temperature": request.temperature, "seed": request.seed, "max_tokens": tokens}
    if request.grades or request.schema is None:
        return SamplingParams(**said)
    from vllm.sampling_params import StructuredOutputsParams

    return SamplingParams(**said, structured_outputs=StructuredOutputsParams(json=dict(request.schema)))


def _completion(request: Request, output: Any, text: str) -> Completion:
    return Completion(request.key, "", text, usage=_usage(output))


def _probs(output: Any, grades: Sequence[str]) -> dict[str, float] | None:
    said = output.outputs[0]
    steps = zip(said.token_ids, said.logprobs or (), strict=False)
    tokens = [
        Token(top[chosen].decoded_token or "", {one.decoded_token or "": one.logprob for one in top.values()})
        for chosen, top in steps
    ]
    return grade_probs(tokens, grades, said.text).probs


def _usage(output: Any) -> Usage:
    return Usage(len(output.prompt_token_ids), output.num_cached_tokens or 0, len(output.outputs[0].token_ids))


def _add(one: Usage, other: Usage) -> Usage:
    return Usage(one.prompt + other.prompt, one.cached + other.cached, one.completion + other.completion)
