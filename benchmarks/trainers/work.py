"""The work that piar and TRL are timed on: one random Qwen3, the same tokens for everyone."""

from dataclasses import dataclass, replace
from random import Random
from typing import Any

import torch

GRPO = {"grpo": (200, 120, 48), "grpo-long": (600, 480, 96)}  # prompt, of it rubric, completion
SFT = ("sft", "sft-varied", "sft-unshared")
CASES = (*GRPO, *SFT, "distill", "score")

Pair = tuple[list[int], list[int]]


@dataclass(frozen=True)
class Work:
    """A model's shape, where it computes, and how much there is to do.

    Attributes:
        heads: of queries; half as many of keys and values.
        dtype: of weights, gradients and optimizer, for everyone alike.
        group, prompts: completions of a prompt, and prompts, in a GRPO step.
        batch: pairs in a step of SFT and distillation; twice as many are scored.
        parts: micro-batches that a step is computed in: changes memory, never the work.
        shrink: divides all lengths (for tests).
    """

    vocab: int = 4096
    hidden: int = 256
    layers: int = 4
    heads: int = 4
    head_dim: int = 64
    feed_forward: int = 768
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    group: int = 8
    prompts: int = 8
    batch: int = 32
    parts: int = 1
    shrink: int = 1

    def lm(self) -> Any:
        """The same random weights for everyone."""
        from transformers import Qwen3Config, Qwen3ForCausalLM

        config = Qwen3Config(
            vocab_size=self.vocab, hidden_size=self.hidden, intermediate_size=self.feed_forward,
            num_hidden_layers=self.layers, num_attention_heads=self.heads, num_key_value_heads=self.heads // 2,
            head_dim=self.head_dim, tie_word_embeddings=True, max_position_embeddings=4096, eos_token_id=2,
            bos_token_id=None, pad_token_id=None,
        )  # fmt: skip
        torch.manual_seed(0)
        with torch.device(self.device):
            return Qwen3ForCausalLM(config).to(dtype=self.dtype)  # type: ignore[arg-type]

    @property
    def weights(self) -> int:
        """Weights of all matrices but the embedding, which is the head too."""
        attention = 3 * self.hidden * self.heads * self.head_dim  # q and o, k and v half as wide
        return self.layers * (attention + 3 * self.hidden * self.feed_forward)

    def teacher(self) -> "Work":
        """Twice as wide: four times the weights."""
        return replace(self, hidden=2 * self.hidden, heads=2 * self.heads, feed_forward=2 * self.feed_forward)

    def tokenizer(self) -> Any:
        """One word, one token."""
        from tokenizers import Tokenizer, models, pre_tokenizers
        from transformers import PreTrainedTokenizerFast

        inner = Tokenizer(models.WordLevel({f"w{i}": i for i in range(self.vocab)}, unk_token="w0"))
        inner.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
        return PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="w0", pad_token="w1", eos_token="w2")

    def rollouts(self, case: str) -> tuple[list[list[int]], int]:
        """Prompts of a GRPO case behind one rubric, and the length of a completion."""
        prompt, rubric, completion = (length // self.shrink for length in GRPO[case])
        return self.behind_rubric(prompt, rubric, self.prompts), completion

    def asked(self) -> list[list[int]]:
        """Prompts to score: 200 tokens, of them 120 of rubric."""
        return self.behind_rubric(200 // self.shrink, 120 // self.shrink, 2 * self.batch)

    def behind_rubric(self, total: int, rubric: int, count: int) -> list[list[int]]:
        """Random prompts that begin alike."""
        draw = Random(0)
        shared = self._words(draw, rubric)
        return [shared + self._words(draw, total - rubric) for _ in range(count)]

    def pairs(self, case: str) -> list[Pair]:
        """Prompts and completions of 200 tokens: 120 of rubric, 32 of sample, 48 of completion, or spread around it."""
        draw, varied = Random(1), case == "sft-varied"
        rubric, found = self._words(draw, 120 // self.shrink), list[Pair]()
        for _ in range(4 * self.batch if varied else self.batch):
            lengths = (draw.randrange(8, 57), draw.randrange(12, 85)) if varied else (32, 48)
            own, answer = (length // self.shrink for length in lengths)
            shared = self._words(draw, len(rubric)) if case == "sft-unshared" else rubric
            found.append((shared + self._words(draw, own), self._words(draw, answer)))
        return found

    def _words(self, draw: Random, count: int) -> list[int]:
        return [draw.randrange(10, self.vocab) for _ in range(count)]
