"""The student's network: any Hugging Face causal model, or a small Qwen3 made from nothing.

`Policy` runs packs of trees through a stock transformers model: the tree mask enters as an attention
function of transformers' own interface, no model code is patched. A model that cannot carry it
(sliding windows, linear attention, logit scaling) is told apart by its configuration or by the
parity check, and takes one sequence a pack instead.
"""

import logging
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from transformers import AttentionInterface, AutoModelForCausalLM, AutoTokenizer
from transformers.utils.logging import disable_progress_bar

from store.errors import PiarError, UsageError
from store.task import Task
from trainers.layout import Item, Pack, pack, repeated, tree_attention

T = TypeVar("T")
log = logging.getLogger(__name__)
disable_progress_bar()  # type: ignore[no-untyped-call]

ATTENTION = "piar_tree"
AttentionInterface.register(ATTENTION, tree_attention)

CHAT_TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
SPECIAL = ("<|endoftext|>", "<|im_start|>", "<|im_end|>")


class Policy(nn.Module):
    """A causal model read at labelled rows.

    Args:
        lm: a transformers causal model.
        shares: whether prefixes are shared; otherwise each sequence is a pack of its own.
    """

    def __init__(self, lm: Any, *, shares: bool = True) -> None:
        super().__init__()
        self.lm = lm
        self.shares = shares
        lm.set_attn_implementation(ATTENTION if shares else "sdpa")

    @property
    def device(self) -> torch.device:
        """Where the weights are."""
        return torch.device(next(self.lm.parameters()).device)

    def pack(self, items: Sequence[Item]) -> list[Pack]:
        """Items as packs that this model can read, completions in order."""
        return [pack(items)] if self.shares else repeated(items)

    def forward(self, packs: Sequence[Pack], read: Callable[[Tensor, Tensor], T]) -> T:
        """`read(hidden [n, h], head weight [V, h])` of the labelled rows of all packs, in order."""
        rows = torch.cat([self._hidden(one.to(self.device)) for one in packs])
        return read(rows, self.lm.get_output_embeddings().weight)

    def _hidden(self, one: Pack) -> Tensor:
        extra: dict[str, Any] = {"tree": one} if self.shares else {}
        body = self.lm.get_decoder()
        out = body(input_ids=one.tokens[None], position_ids=one.positions[None], use_cache=False, **extra)
        hidden: Tensor = out.last_hidden_state[0, one.rows]
        return hidden


def load_policy(model: str, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Policy, Any]:
    """A policy and its tokenizer from a Hugging Face folder or hub name; checks that prefixes may be shared.

    Raises:
        PiarError: nothing there that transformers can load as a causal language model.
    """
    try:
        lm = AutoModelForCausalLM.from_pretrained(model, dtype=dtype)
    except (OSError, ValueError) as error:
        raise _cannot_load(model, error) from None
    lm.to(torch.device(device))  # type: ignore[arg-type]
    return wrap(lm), load_tokenizer(model)


def load_tokenizer(model: str) -> Any:
    """The tokenizer of a Hugging Face folder or hub name.

    Raises:
        PiarError: none there.
    """
    try:
        return AutoTokenizer.from_pretrained(model)
    except (OSError, ValueError) as error:
        raise _cannot_load(model, error) from None


def _cannot_load(model: str, error: Exception) -> PiarError:
    return PiarError(
        f"Cannot load {model!r} as a causal language model: {str(error).splitlines()[0]}",
        "Pass `tiny`, a Hugging Face folder, or the name of a model that was downloaded.",
    )


def wrap(lm: Any) -> Policy:
    """A policy that shares prefixes if the model can, else one that does not, with a word about it."""
    policy = Policy(lm, shares=_can_share(lm.config))
    if policy.shares and (gap := parity_gap(policy)) > _tolerance(lm.dtype):
        log.warning("tree and repeated prompts differ by %.1e in this model", gap)
        policy = Policy(lm, shares=False)
    if not policy.shares:
        log.warning("%s cannot share prefixes: every prompt is computed alone, slower", lm.config.model_type)
    return policy


def _can_share(config: Any) -> bool:
    kinds = set(getattr(config, "layer_types", None) or ["full_attention"])
    return kinds == {"full_attention"} and not getattr(config, "is_encoder_decoder", False)


def _tolerance(dtype: torch.dtype) -> float:
    return 1e-3 if dtype == torch.float32 else 0.15


@torch.no_grad()
def parity_gap(policy: Policy) -> float:
    """Largest difference of log-probabilities between a small tree and the stock model on repeated prompts."""
    vocab = policy.lm.get_input_embeddings().weight.shape[0]
    draw = torch.Generator().manual_seed(0)
    rubric, *tails = (torch.randint(vocab, (n,), generator=draw).tolist() for n in (12, 5, 9, 4, 6, 3))
    items = [Item(rubric + tails[0], [tails[2], tails[3]]), Item(rubric + tails[1], [tails[4]])]
    was_training = policy.training
    policy.eval()
    tree = policy(policy.pack(items), lambda h, w: (h @ w.T).float().log_softmax(-1))
    policy.lm.set_attn_implementation("sdpa")
    stock = []
    for item in items:
        for completion in item.completions:
            ids = torch.tensor([[*item.prompt, *completion[:-1]]], device=policy.device)
            logits = policy.lm(input_ids=ids, use_cache=False).logits[0, len(item.prompt) - 1 :]
            stock.append(logits.float().log_softmax(-1))
    policy.lm.set_attn_implementation(ATTENTION)
    policy.train(was_training)
    return float((tree - torch.cat(stock)).abs().max())


# --- from nothing -----------------------------------------------------------------------------


def tiny_tokenizer(texts: Sequence[str], symbols: Sequence[str], vocab_size: int = 4096) -> Any:
    """A byte-level BPE tokenizer trained on the texts; digits stand alone, and so does every grade symbol."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
    from transformers import PreTrainedTokenizerFast

    inner = Tokenizer(models.BPE())
    words = Regex(r"\d| ?\p{L}+|[ ]?[^\s\p{L}\d]|\n|\s")
    inner.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Split(words, "isolated"), pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    inner.decoder = decoders.ByteLevel()
    inner.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size,
            special_tokens=list(SPECIAL),
            initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
            show_progress=False,
        ),
    )
    inner.add_tokens([AddedToken(s, single_word=True, normalized=False) for s in symbols if len(s) > 1])
    tokenizer = PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=inner, eos_token=SPECIAL[2], pad_token=SPECIAL[0], clean_up_tokenization_spaces=False
    )
    tokenizer.chat_template = CHAT_TEMPLATE
    return tokenizer


def tiny_model(vocab_size: int, *, hidden: int = 256, layers: int = 6, eos: int = 2, seed: int = 0) -> Any:
    """A Qwen3 with random weights: `hidden` wide, heads of 64, feed-forward three times as wide, tied embeddings."""
    from transformers import Qwen3Config, Qwen3ForCausalLM

    heads = max(1, hidden // 64)
    config = Qwen3Config(
        vocab_size=vocab_size, hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=max(1, heads // 2), head_dim=64, tie_word_embeddings=True,
        max_position_embeddings=4096, eos_token_id=eos, bos_token_id=None, pad_token_id=None,
    )  # fmt: skip
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return Qwen3ForCausalLM(config)


# --- prompts and grade symbols ------------------------------------------------------------------


def prompt_ids(tokenizer: Any, chats: Sequence[Sequence[dict[str, str]]]) -> list[list[int]]:
    """Tokens of each chat up to where the assistant answers; thinking switched off where the template knows it."""
    texts = tokenizer.apply_chat_template(
        [list(chat) for chat in chats], tokenize=False, add_generation_prompt=True, enable_thinking=False
    )
    ids: list[list[int]] = tokenizer(texts, add_special_tokens=False)["input_ids"] if texts else []
    return ids


def completion_ids(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """Tokens of each answer, closed by the end-of-turn token."""
    end = end_id(tokenizer)
    return [[*ids, end] for ids in tokenizer(list(texts), add_special_tokens=False)["input_ids"]] if texts else []


def end_id(tokenizer: Any) -> int:
    """The token that ends an answer: `<|im_end|>` where the vocabulary has it, else the end of sequence."""
    found: int | None = tokenizer.convert_tokens_to_ids(SPECIAL[2])
    if found is None or found == tokenizer.unk_token_id:
        found = tokenizer.eos_token_id
    if found is None:
        raise PiarError("The tokenizer has no end-of-sequence token.", "Set `eos_token` in its configuration.")
    return found


def grade_ids(tokenizer: Any, task: Task) -> list[int]:
    """One token id per grade, in the task's order; see `symbol_ids`."""
    return symbol_ids(tokenizer, task.symbols)


def symbol_ids(tokenizer: Any, symbols: Sequence[str]) -> list[int]:
    """One token id per grade symbol.

    Raises:
        UsageError: a symbol is not one token at the start of an answer, is unknown to the
            vocabulary, or two symbols share a token.
    """
    found = []
    for symbol in symbols:
        alone = tokenizer(symbol, add_special_tokens=False)["input_ids"]
        before_line = tokenizer(symbol + "\nevidence:", add_special_tokens=False)["input_ids"]
        if not alone or tokenizer.unk_token_id in alone:
            raise UsageError(
                f"Grade symbol {symbol!r} is not in this model's vocabulary.",
                "Choose another symbol in task.toml (digits are safe), or another model.",
            )
        if len(alone) != 1 or before_line[:1] != alone:
            pieces = " + ".join(repr(tokenizer.decode([i])) for i in alone)
            raise UsageError(
                f"Grade symbol {symbol!r} is {len(alone)} tokens for this model ({pieces}); it must be one.",
                "Choose a one-token symbol in task.toml (digits are safe).",
            )
        found.append(alone[0])
    if len(set(found)) != len(found):
        raise UsageError("Two grade symbols are the same token for this model.", "Choose other symbols in task.toml.")
    return found
