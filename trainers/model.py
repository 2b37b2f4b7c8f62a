"""The student's network: any Hugging Face causal model (`trainers.tiny` makes a small one from nothing).

`Policy` runs packs of trees through a stock transformers model: the tree mask enters as an attention
function of transformers' own interface, no model code is patched. Sequences longer than a model's sliding
window, and those of a model that cannot carry the tree (linear attention, attention with terms of its own:
told apart by its configuration or by the parity check), are computed whole, in padded batches.
"""

import logging
import math
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.nn.functional import pad
from torch.nn.utils.rnn import pad_sequence
from transformers import AttentionInterface

from store.errors import PiarError, UsageError
from trainers.chat import FAILURES, add_template, encode, encode_plain, render
from trainers.folder import load_lm, load_tokenizer, match_tokens
from trainers.head import Head, read_grades
from trainers.layout import Item, Pack, Tokens, even, pack, repeated, tree_attention

T = TypeVar("T")
log = logging.getLogger(__name__)

ATTENTION = "piar_tree"
AttentionInterface.register(ATTENTION, tree_attention)

END_OF_TURN = "<|im_end|>"


PADDED = 8192  # tokens, padding included, that are computed at once where no prefix is shared
EVERY = sys.maxsize  # a window that every sequence fits
WINDOWED = {"full_attention", "sliding_attention", "chunked_attention"}  # layers that are plain causal in their window
LEAST = 32  # tokens: a narrower window is not worth a tree
TOLERANCE, COARSE = {torch.float32: 1e-3}, 0.2  # of `parity_gap`; the second in fewer bits


class Policy(nn.Module):
    """A causal model read at labelled rows.

    Args:
        lm: a transformers causal model.
        window: tokens of the longest sequence that may share its prefix with others; 0 for a model that cannot.
            Longer ones are packs of their own, computed in padded batches.
    """

    def __init__(self, lm: Any, *, window: int = EVERY) -> None:
        super().__init__()
        self.lm = lm
        self.window = window
        self._set(trees=window > 0)

    @property
    def shares(self) -> bool:
        """Whether any prefix may be shared."""
        return self.window > 0

    @property
    def head(self) -> Head:
        """What makes logits of its hidden rows."""
        return Head.of(self.lm)

    def body(self, *, trees: bool) -> Any:
        """The layers below the head, ready for packs of trees or for whole sequences."""
        self._set(trees=trees)
        return self.lm.get_decoder()

    def _set(self, *, trees: bool) -> None:
        wanted = ATTENTION if trees else "sdpa" if self.lm._supports_sdpa else "eager"
        if self.lm.config._attn_implementation != wanted:
            self.lm.set_attn_implementation(wanted)

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

    def _hidden(self, body: Any, one: Pack) -> Tensor:
        if self._evens:
            one = one.padded(even(len(one.tokens)))
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
            if after is None or len(packs[after].tokens) * (len(batch) + 1) > PADDED:
                ids = pad_sequence([packs[j].tokens for j in batch], batch_first=True).to(self.device)
                if self._evens:
                    ids = pad(ids, (0, even(ids.shape[1]) - ids.shape[1]))
                hidden = body(input_ids=ids, use_cache=False).last_hidden_state
                found |= {j: row[packs[j].rows.to(self.device)] for j, row in zip(batch, hidden, strict=True)}
                batch = []
        return [found[i] for i in range(len(packs))]


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
    parts = [last.mlp, *(getattr(attention, name) for name in ("q_proj", "o_proj") if hasattr(attention, name))]

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


def load_policy(model: str, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Policy, Any]:
    """A policy and its tokenizer from a Hugging Face folder or hub name; checks that prefixes may be shared.

    Raises:
        PiarError: nothing there that transformers can load as a causal language model, or a tokenizer or chat template
            that does not fit it.
    """
    lm, tokenizer = load_lm(model, dtype), load_tokenizer(model)
    add_template(tokenizer)
    match_tokens(model, lm, tokenizer)
    [asked] = prompt_ids(tokenizer, [[{"role": "user", "content": "a"}]])
    match_tokens(model, lm, tokenizer, end_id(tokenizer), *asked)
    return wrap(lm.to(torch.device(device))), tokenizer


def wrap(lm: Any) -> Policy:
    """A policy that shares prefixes as far as the model can, with a word where it cannot.

    Raises:
        PiarError: the model's own probabilities are not those of its hidden rows and head.
    """
    kind, policy = lm.config.model_type, Policy(lm, window=_window(lm.config))
    if policy.shares and (why := _unlike(policy)) is not None:
        log.info("%s carries no tree: %s", kind, why)
        policy = Policy(lm, window=0)
    if not policy.shares:
        if (why := _unlike(policy)) is not None:
            raise PiarError(
                f"{kind} computes its answers in a way that piar cannot follow ({why}).", "Use another model."
            )
        log.warning("%s cannot share prefixes: prompts are computed whole, in padded batches, slower", kind)
    elif policy.window < EVERY:
        log.info("%s shares the prefixes of sequences up to %d tokens, its window", kind, policy.window)
    return policy


def context(lm: Any) -> int | None:
    """Tokens of the longest sequence that a model has positions for; None where its configuration does not say."""
    most = getattr(lm.config.get_text_config(), "max_position_embeddings", None)
    return most if isinstance(most, int) and most > 0 else None


def _window(config: Any) -> int:
    """Tokens up to which every layer sees all that came before; 0 for layers of other kinds than attention."""
    text = config.get_text_config()
    kinds = set(getattr(text, "layer_types", None) or WINDOWED)  # older configurations do not say: any may be there
    if not kinds <= WINDOWED or getattr(config, "is_encoder_decoder", False):
        return 0
    named = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
    sizes = [getattr(text, name, None) or EVERY for kind, name in named.items() if kind in kinds]
    window = min([*sizes, EVERY])
    return window if window >= LEAST else 0


def _unlike(policy: Policy) -> str | None:
    """What is not as in the stock model: its probabilities, or its ways altogether; None if all is."""
    try:
        gap, tolerance = parity_gap(policy), TOLERANCE.get(policy.lm.dtype, COARSE)
        if math.isnan(gap):
            raise PiarError(
                f"The model's probabilities are no numbers in {str(policy.lm.dtype).removeprefix('torch.')}.",
                "Its weights are damaged: download it again. Or they are too large for so few bits: ask for float32.",
            )
        kept = policy.lm(input_ids=torch.zeros(1, 1, dtype=torch.long, device=policy.device), use_cache=True)
    except torch.OutOfMemoryError:
        raise
    except (AttributeError, NotImplementedError, RuntimeError, TypeError, ValueError) as error:
        return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"
    if getattr(kept, "past_key_values", None) is None:
        return "it keeps no keys and values"
    return f"its probabilities differ by {gap:.1e}" if gap > tolerance else None


def parity_gap(policy: Policy) -> float:
    """How far a small tree is from the stock model on repeated prompts, at its farthest token.

    In float32 the largest difference of log-probabilities. In fewer bits those of tokens that never come are noise, so
    there it is the total variation distance of the next token: .02 to .12 between two right ways to compute a real
    model in bfloat16, .4 and more where a token stands one place off or sees a sibling.
    """
    vocab = policy.lm.get_input_embeddings().weight.shape[0]
    draw = torch.Generator().manual_seed(0)
    rubric, *tails = (torch.randint(vocab, (n,), generator=draw).tolist() for n in (12, 5, 9, 4, 6, 3))
    items = [Item(rubric + tails[0], [tails[2], tails[3]]), Item(rubric + tails[1], [tails[4]])]
    stock = []
    with policy.judging():
        scored = policy(policy.pack(items), lambda hidden, head: head(hidden).log_softmax(-1))
        with torch.enable_grad():  # scoring takes a shorter way
            trained = policy(policy.pack(items), lambda hidden, head: head(hidden).log_softmax(-1)).detach()
        policy.body(trees=False)
        for item in items:
            for completion in item.completions:
                ids = torch.tensor([[*item.prompt, *completion[:-1]]], device=policy.device)
                logits = policy.lm(input_ids=ids, use_cache=False).logits[0, len(item.prompt) - 1 :]
                stock.append(logits.float().log_softmax(-1))
    told = torch.cat(stock)
    if policy.lm.dtype == torch.float32:
        return max(float((found - told).abs().max()) for found in (scored, trained))
    return max(float((found.float().exp() - told.exp()).abs().sum(-1).max()) / 2 for found in (scored, trained))


def prompt_ids(tokenizer: Any, chats: Sequence[Sequence[dict[str, str]]]) -> list[list[int]]:
    """Tokens of each chat up to where the assistant answers; what its messages say is plain text (`trainers.chat`)."""
    return encode(tokenizer, render(tokenizer, chats))


def completion_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of each answer, as plain text, closed by the end-of-turn token."""
    end = end_id(tokenizer)
    return [[*ids, end] for ids in encode_plain(tokenizer, texts)]


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
        alone = tokenizer(symbol, add_special_tokens=False)["input_ids"]
        before_line = tokenizer(symbol + "\nevidence:", add_special_tokens=False)["input_ids"]
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
    return {s: tokenizer.decode([i]) for s, i in first.items() if len(encode_plain(tokenizer, [s])[0]) > 1}
