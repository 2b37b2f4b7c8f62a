"""The student's network: any Hugging Face causal model (`trainers.tiny` makes a small one from nothing).

`Policy` runs packs of trees through a stock transformers model: the tree mask enters as an attention
function of transformers' own interface, no model code is patched. Sequences longer than a model's sliding
window, and those of a model that cannot carry the tree (`trainers.loading` finds out), are computed whole, in padded
batches.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface

from store.errors import PiarError, UsageError
from trainers.chat import FAILURES, encode, encode_plain, render
from trainers.head import Head, decoder, read_grades
from trainers.layout import Item, Pack, Tokens, even, pack, repeated, tree_attention

T = TypeVar("T")
CHARACTERS = 8  # of a token at most, where a text is far too long

ATTENTION = "piar_tree"
AttentionInterface.register(ATTENTION, tree_attention)

END_OF_TURN = "<|im_end|>"
_BLANK = "▁"  # as SentencePiece writes it


# How completions of prompts that share nothing are decoded: in one batch, shorter ones padded; only with others of
# their length; or all is computed anew for each token.
Writes = Literal["padded", "alike", "anew"]
PADDED = 8192  # tokens, padding included, that are computed at once where no prefix is shared
EVERY = sys.maxsize  # a window that every sequence fits


class Policy(nn.Module):
    """A causal model read at labelled rows.

    Args:
        lm: a transformers causal model.
        window: tokens of the longest sequence that may share its prefix with others; 0 for a model that cannot.
            Longer ones are packs of their own, computed in padded batches.
        head: what makes logits of its hidden rows.

    Attributes:
        written: the same as `window` for the writing of completions.
        writes: how longer ones are written.
        turn: tokens of the longest sequence whose places are told as in a short one (LongRoPE tells them otherwise in
            longer ones, and in whatever stands in one batch with them).
    """

    def __init__(self, lm: Any, *, window: int = EVERY, head: Callable[[Any], Head] = Head.of) -> None:
        super().__init__()
        self.lm = lm
        self.window = window
        self.written = window
        self.writes: Writes = "padded"
        self.turn = EVERY
        self._head_of = head
        self.body(trees=self.shares)

    @property
    def shares(self) -> bool:
        """Whether any prefix may be shared."""
        return self.window > 0

    @property
    def head(self) -> Head:
        """What makes logits of its hidden rows."""
        return self._head_of(self.lm)

    def body(self, *, trees: bool) -> Any:
        """The layers below the head, ready for packs of trees or for whole sequences."""
        layers = decoder(self.lm)
        wanted = ATTENTION if trees else "sdpa" if layers._supports_sdpa else "eager"
        if layers.config._attn_implementation != wanted and layers._can_set_attn_implementation():
            layers.set_attn_implementation(wanted)
        return layers

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(next(self.lm.parameters()).device)

    def pack(self, items: Sequence[Item]) -> list[Pack]:
        """Items as packs that this model can read, completions in order: one tree, if all of them fit the window."""
        return [pack(items)] if max(item.depth for item in items) <= self.window else repeated(items)

    @property
    def _evens(self) -> bool:
        """Whether lengths are padded to a few, see `even`."""
        rounded = self.lm.dtype == torch.bfloat16 or torch.is_autocast_enabled("cpu")
        return self.device.type == "cpu" and rounded

    @contextmanager
    def judging(self) -> Iterator[None]:
        """Neither gradients nor dropout, for as long as it lasts."""
        was_training = self.training
        self.eval()
        try:
            with torch.no_grad():
                yield
        finally:
            self.train(was_training)

    def grades(self, prompts: Sequence[Tokens], ids: Tensor) -> Tensor:
        """[m, K] probabilities of the grades (tokens `ids` [K]) after each prompt, all in one prefill."""
        with self.judging():
            packs = self.pack([Item(prompt, [[0]]) for prompt in prompts])
            probs: Tensor = self(packs, lambda hidden, head: read_grades(hidden, head, ids))
        return probs

    def forward(self, packs: Sequence[Pack], read: Callable[[Tensor, Head], T]) -> T:
        """`read(hidden [n, h], head)` of the labelled rows of all packs, in order."""
        trees = max(one.depth for one in packs) <= self.window
        body = self.body(trees=trees)
        found = [self._hidden(body, one.to(self.device)) for one in packs] if trees else self._whole(body, packs)
        return read(torch.cat(found), self.head)

    def evened(self, one: Pack) -> Pack:
        """A pack with a length for which kernels are kept, where the machine makes them for each; see `even`."""
        return one.padded(even(len(one.tokens))) if self._evens else one

    def _hidden(self, body: Any, one: Pack) -> Tensor:
        one = self.evened(one)
        with only_rows(body, one.rows, len(one.tokens)) as narrow:
            out = body(
                input_ids=one.tokens[None], position_ids=one.positions[None], use_cache=False, tree=one, narrow=narrow
            )
        hidden: Tensor = out.last_hidden_state[0, one.rows]
        return hidden

    def _whole(self, body: Any, packs: Sequence[Pack]) -> list[Tensor]:
        """Hidden rows of packs of one sequence each, alike in length together; nothing attends to what follows it."""
        found: dict[int, Tensor] = {}
        batch: list[int] = []
        order = sorted(range(len(packs)), key=lambda i: len(packs[i].tokens))
        for i, after in zip(order, [*order[1:], None], strict=True):
            batch.append(i)
            turns = after is not None and len(packs[i].tokens) <= self.turn < len(packs[after].tokens)
            if after is None or turns or len(packs[after].tokens) * (len(batch) + 1) > PADDED:
                ids = pad_sequence([packs[j].tokens for j in batch], batch_first=True).to(self.device)
                if self._evens:
                    ids = pad(ids, (0, even(ids.shape[1]) - ids.shape[1]))
                hidden = body(input_ids=ids, use_cache=False).last_hidden_state
                found |= {j: row[packs[j].rows.to(self.device)] for j, row in zip(batch, hidden, strict=True)}
                batch = []
        return [found[i] for i in range(len(packs))]


def context(lm: Any) -> int | None:
    """Tokens of the longest sequence that a model has positions for; None where its configuration does not say."""
    most = getattr(lm.config.get_text_config(), "max_position_embeddings", None)
    return most if isinstance(most, int) and most > 0 else None


@contextmanager
def only_rows(body: Any, rows: Tensor, size: int) -> Iterator[Any]:
    """The last layer's feed-forward sees `rows` alone, since nobody reads others; so do its queries, in scoring.

    Saves a sixth of a prefill through four layers, in scoring a quarter. Not for experts, whose modules differ,
    nor while activations are recomputed: that happens after the hooks are gone. Yields the attention that is narrowed.
    """
    last: Any = body.layers[-1] if hasattr(body, "layers") else None
    if not hasattr(getattr(last, "mlp", None), "down_proj") or body.is_activation_checkpointing:
        yield None
        return
    attention = None if torch.is_grad_enabled() else getattr(last, "self_attn", None)
    named = [last.mlp, *(getattr(attention, name, None) for name in ("q_proj", "o_proj"))]
    parts = [part for part in named if isinstance(part, nn.Module)]

    def narrow(_: nn.Module, given: tuple[Tensor]) -> tuple[Tensor]:
        return (given[0][:, rows],)

    def widen(_: nn.Module, given: tuple[Tensor], out: Tensor) -> Tensor:
        return out.new_zeros(1, size, out.shape[-1]).index_copy(1, rows, out)

    hooks = [part.register_forward_pre_hook(narrow) for part in parts]
    hooks += [part.register_forward_hook(widen) for part in parts]
    try:
        yield attention
    finally:
        for hook in hooks:
            hook.remove()


def prompt_ids(tokenizer: Any, chats: Sequence[Sequence[dict[str, str]]]) -> list[list[int]]:
    """Tokens of each chat up to where the assistant answers; what its messages say is plain text (`trainers.chat`)."""
    return encode(tokenizer, render(tokenizer, chats))


def fitting_prompts(
    rows: Sequence[Sequence[str]],
    write: Callable[[Sequence[Sequence[str]]], list[list[int]]],
    most: int,
    fix: str,
    *,
    end: bool = False,
) -> tuple[list[list[int]], int]:
    """Tokens of prompts about rows of texts, a row's longest text cut where its prompt is longer than `most`; and how
    many rows were cut.

    Args:
        write: makes the tokens of the prompts about some rows.
        end: of a text that is cut its end stays, not its start.

    Raises:
        PiarError: a prompt is too long without any text; `fix` says what to do.
    """
    shorter = [[shortened(text, CHARACTERS * most, end=end) for text in row] for row in rows]
    prompts, cut = write(shorter), {i for i, row in enumerate(rows) if list(row) != shorter[i]}
    while long := [i for i, prompt in enumerate(prompts) if len(prompt) > most]:
        for i in long:
            texts = shorter[i]
            lengths = list(map(len, texts))
            k = lengths.index(max(lengths))
            if len(texts[k]) < 2:
                raise PiarError(f"A prompt has {len(prompts[i]):,} tokens; this student reads {most:,}.", fix)
            texts[k] = shortened(texts[k], int(0.95 * most / len(prompts[i]) * len(texts[k])), end=end)
        for i, prompt in zip(long, write([shorter[i] for i in long]), strict=True):
            prompts[i] = prompt
        cut |= set(long)
    return prompts, len(cut)


def shortened(text: str, characters: int, *, end: bool) -> str:
    """The beginning of a text, or its end."""
    return text[max(len(text) - characters, 0) :] if end else text[:characters]


def completion_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of each answer, as plain text, closed by the end-of-turn token."""
    end = end_id(tokenizer)
    return [[*ids, end] for ids in answer_ids(tokenizer, texts)]


def answer_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of each answer, as plain text.

    SentencePiece puts a blank before a text; where that is a token of its own, all answers would begin with it
    (Llama 2's `▁`, `1`), so it is left out: a prompt has ended just before.
    """
    blank = tokenizer.convert_tokens_to_ids(_BLANK)
    return [
        ids[1:] if len(ids) > 1 and ids[0] == blank != tokenizer.unk_token_id and not text[:1].isspace() else ids
        for text, ids in zip(texts, encode_plain(tokenizer, texts), strict=True)
    ]


def end_id(tokenizer: Any) -> int:
    """The token that ends an answer: `<|im_end|>` where the vocabulary has it, else the end of sequence."""
    found: int | None = tokenizer.convert_tokens_to_ids(END_OF_TURN)
    if found is None or found == tokenizer.unk_token_id:
        found = tokenizer.eos_token_id
    if found is None:
        raise PiarError("The tokenizer has no end-of-sequence token.", "Set `eos_token` in its configuration.")
    return found


def turn_ends(tokenizer: Any) -> tuple[int, ...]:
    """The tokens that end a model's own answers, the usual one first: what its template writes there, then `end_id`."""
    chat = [{"role": "user", "content": "piaruser"}, {"role": "assistant", "content": "piaranswer"}]
    try:
        [text] = tokenizer.apply_chat_template([chat], tokenize=False)
    except FAILURES:
        text = ""
    behind = tokenizer(text.rpartition("piaranswer")[2], add_special_tokens=False)["input_ids"] if text else []
    ends = [i for i in behind[:1] if i in tokenizer.added_tokens_decoder]
    return tuple(dict.fromkeys([*ends, end_id(tokenizer)]))


def symbol_ids(tokenizer: Any, symbols: Sequence[str]) -> list[int]:
    """One token id per grade symbol: its first, where it has several.

    Raises:
        UsageError: a symbol is unknown to the vocabulary, begins otherwise before a line's end than alone, or two
            symbols begin with the same token.
    """
    found: dict[int, str] = {}
    for symbol in symbols:
        alone, before_line = answer_ids(tokenizer, [symbol, symbol + "\nevidence:"])
        if not alone or tokenizer.unk_token_id in alone or before_line[:1] != alone[:1]:
            raise UsageError(
                f"Grade symbol {symbol!r} is not in this model's vocabulary.",
                "Choose another symbol in task.toml (digits are safe), or another model.",
            )
        if alone[0] in found:
            raise UsageError(
                f"Grade symbols {found[alone[0]]!r} and {symbol!r} begin with the same token for this model "
                f"({tokenizer.decode(alone[:1])!r}), and a grade is read at its first.",
                "Choose symbols in task.toml that differ from their beginning (digits are safe).",
            )
        found[alone[0]] = symbol
    return list(found)


def beginnings(tokenizer: Any, symbols: Sequence[str]) -> dict[str, str]:
    """The grades that are several tokens, and the text of the first, at which each is read."""
    first = dict(zip(symbols, symbol_ids(tokenizer, symbols), strict=True))
    return {s: tokenizer.decode([i]) for s, i in first.items() if len(answer_ids(tokenizer, [s])[0]) > 1}
