"""Answers of a model in this process, held to a JSON schema while they are written (llguidance).

At each step the tokens that cannot lead to such an answer are ruled out, the end among them until it is whole. White
space between tokens of JSON is bounded: a model that wants to say what it may not otherwise writes blanks until its
limit.
"""

import json
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from store.errors import PiarError

WHITE = r"[ \n]{1,24}"  # a line's end and an indent


class Schemas:
    """What holds answers of one model to JSON schemas.

    Args:
        tokenizer: of transformers, one that the `tokenizers` library runs.
        size: V, logits of a step.
        end: the token that ends an answer.

    Raises:
        PiarError: llguidance is missing, or cannot follow this tokenizer.
    """

    def __init__(self, tokenizer: Any, size: int, end: int) -> None:
        try:
            from llguidance.hf import from_tokenizer
        except ImportError:
            raise PiarError("Holding answers to a schema needs llguidance.", "pip install 'piar[train]'") from None
        try:
            self._words = from_tokenizer(tokenizer, n_vocab=size, eos_token=end)
        except (ValueError, RuntimeError) as error:
            raise PiarError(
                f"llguidance cannot follow this tokenizer: {str(error)[:200]}", "structured = false asks without it."
            ) from None

    def guide(self, schema: Mapping[str, Any]) -> "Guide":
        """What holds one answer to a schema.

        Raises:
            PiarError: the schema says what cannot be followed.
        """
        from llguidance import LLMatcher

        grammar = LLMatcher.grammar_from_json_schema(json.dumps(schema), overrides={"whitespace_pattern": WHITE})
        matcher = LLMatcher(self._words, grammar, log_level=0)
        if matcher.is_error():
            raise PiarError(f"An answer cannot be held to its schema: {matcher.get_error()[:200]}", "Report this.")
        return Guide(matcher)


class Guide:
    """One answer as far as it is written."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    def allow(self, logits: Tensor) -> Tensor:
        """[V] logits of the next token, without those that may not follow."""
        if self._matcher.is_error():
            return logits
        allowed = torch.frombuffer(bytearray(self._matcher.compute_logit_bias()), dtype=torch.uint8)
        return logits.masked_fill(allowed.to(logits.device) == 0, -torch.inf)

    def took(self, token: int) -> None:
        """The token that was chosen."""
        if not self._matcher.is_stopped():
            self._matcher.consume_token(token)
