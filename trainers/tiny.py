"""A student from nothing: a tokenizer trained on the shards' texts, and a small Qwen3 that starts out matching words.

Judging relevance is first of all seeing which words of one text occur in another. Random weights take most
of their training to find that out; these choices of ours shorten it (figures in docs/experiments/trainers.md):

- What all prompts and answers repeat (JSON keys, line names, rule ids) is one token each, which halves a row.
- Half of the heads start with queries equal to keys, so that a token looks for its like (after mimetic initialisation,
  arXiv 2305.09828), tempered so that it does not see itself alone.
- Tokens that are one word but for case and the space before it start nearly equal.
- The first lesson needs no label: say which words of the other fields the first field shares.
"""

import re
from collections.abc import Sequence
from typing import Any

import torch

from store.task import Task, sample_text
from store.trace import write_trace
from store.types import Trace
from trainers.model import END_OF_TURN

PAD, START = "<|endoftext|>", "<|im_start|>"
CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
ASKS = f"{END_OF_TURN}\n{START}assistant\n"
HOLE = "\ue000"  # a private character: stands where a row's own text goes
TEMPER = 0.7  # of the queries' norm
SHARED, OTHER = "shared: ", "\nother: "
VARIANT = 0.3  # share of its own in the vector of a word's further spelling
_WORD = re.compile(r"[^\W\d_]+")


def phrases(task: Task, rules: Sequence[str] = ()) -> list[str]:
    """What prompts and answers of a task repeat word for word, longest first."""
    sample = sample_text(dict.fromkeys(task.fields, HOLE)).split(HOLE)
    steps = {step.name: HOLE for step in task.steps}
    answer = write_trace(Trace("", (HOLE, HOLE), steps, (HOLE,), HOLE), task).split(HOLE)
    found = {ASKS, SHARED, OTHER, *sample, *answer, *rules} - {""}
    return sorted(found, key=lambda text: (-len(text), text))


def lesson(fields: Sequence[str], first: int = 0) -> str:
    """What the first lesson teaches to write: the words of the other fields that the first has, then those it lacks."""
    known = set(_WORD.findall(fields[first].casefold()))
    words = [word for i, text in enumerate(fields) if i != first for word in _WORD.findall(text)]
    shared = " ".join(word for word in words if word.casefold() in known)
    other = " ".join(word for word in words if word.casefold() not in known)
    return f"{SHARED}{shared}{OTHER}{other}"


def tiny_tokenizer(
    texts: Sequence[str], symbols: Sequence[str], vocab_size: int = 4096, phrases: Sequence[str] = ()
) -> Any:
    """A byte-level BPE tokenizer trained on the texts; digits stand alone, and so does every grade symbol.

    Args:
        phrases: texts that become one token each.
    """
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    words = Regex(r"\d| ?\p{L}+|[ ]?[^\s\p{L}\d]|\n|\s")
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    inner.decoder = decoders.ByteLevel()
    cut = re.compile("|".join(map(re.escape, phrases)) or "$^")
    inner.train_from_iterator(
        (piece for text in texts for piece in cut.split(text)),
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=[PAD, START, END_OF_TURN],
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    inner.add_tokens([AddedToken(s, single_word=True, normalized=False) for s in symbols if len(s) > 1])
    inner.add_tokens([AddedToken(text, normalized=False) for text in phrases if text not in symbols])
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=inner, eos_token=END_OF_TURN, pad_token=PAD, clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_model(
    vocab_size: int, *, hidden: int = 256, layers: int = 6, eos: int = 2, seed: int = 0, words: Sequence[str] = ()
) -> Any:
    """A Qwen3 from nothing: `hidden` wide, heads of 64, feed-forward three times as wide, tied embeddings.

    Args:
        words: the text of each token, to let the spellings of a word start nearly equal.
    """
    from transformers import Qwen3Config, Qwen3ForCausalLM

    heads = max(1, hidden // 64)
    config = Qwen3Config(
        vocab_size=vocab_size,
        hidden_size=hidden,
        intermediate_size=3 * hidden,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        num_key_value_heads=max(1, heads // 2),
        head_dim=64,
        tie_word_embeddings=True,
        max_position_embeddings=4096,
        eos_token_id=eos,
        bos_token_id=None,
        pad_token_id=None,
        initializer_range=hidden**-0.5,
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        lm = Qwen3ForCausalLM(config)
    _look_for_its_like(lm)
    _spell_alike(lm.model.embed_tokens.weight, words)
    return lm


@torch.no_grad()
def _look_for_its_like(lm: Any) -> None:
    """The first query head of each key head's group starts equal to it."""
    for layer in lm.get_decoder().layers:
        attention = layer.self_attn
        size = attention.head_dim
        attention.q_norm.weight.fill_(TEMPER)
        keys = attention.k_proj.weight.unflatten(0, (-1, size))  # [kv heads, head size, hidden]
        queries = attention.q_proj.weight.unflatten(0, (len(keys), -1, size))  # [kv heads, group, head size, hidden]
        queries[:, 0] = keys


@torch.no_grad()
def _spell_alike(embedding: torch.Tensor, words: Sequence[str]) -> None:
    first: dict[str, int] = {}
    for i, word in enumerate(words):
        plain = word.strip().casefold()
        if plain and first.setdefault(plain, i) != i:
            embedding[i] = embedding[first[plain]] * (1 - VARIANT**2) ** 0.5 + VARIANT * embedding[i]
