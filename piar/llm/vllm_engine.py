"""Offline vLLM in this process, or in several processes with an engine each: prefix caching, grades constrained.

The grade is generated first, constrained to the task's symbols, with probabilities over exactly those; the
trace, when it is wanted, is a second pass that finds the whole prompt in the prefix cache.
"""

import os
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import replace
from multiprocessing import get_context
from typing import Any

from pydantic import Field

from piar.llm.base import Completion, Failure, OnCompletion, Request, Usage
from piar.llm.grade_probs import normalise
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


class VllmClient:
    """A `Client` for a model folder that vLLM serves without HTTP."""

    def __init__(self, path: str, options: VllmOptions | None = None) -> None:
        self._path, self.options = path, options or VllmOptions()
        if self.options.engines == 1:
            self._engine: Engine | None = Engine(path, self.options)

    @property
    def model(self) -> str:
        """`vllm:PATH`."""
        return f"vllm:{self._path}"

    def generate(self, requests: Sequence[Request], on_completion: OnCompletion | None = None) -> list[Completion]:
        """See `Client.generate`."""
        done: dict[int, Completion] = {}
        chunks = [range(i, min(i + CHUNK, len(requests))) for i in range(0, len(requests), CHUNK)]
        for positions, completions in self._run(requests, chunks):
            for position, completion in zip(positions, completions, strict=True):
                done[position] = replace(completion, model=self.model)
                if on_completion is not None:
                    on_completion(done[position])
        return [done[position] for position in range(len(requests))]
