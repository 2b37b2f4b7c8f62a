"""A policy from a folder: which ways of computing a model give what the model itself gives, found out on short texts.

Prefixes are shared where the configuration names no layer that could tell a tree from a sequence, and where the
probabilities are the stock model's; completions are decoded in the fastest way that ends where the stock model does.
"""

import logging
import math
from collections.abc import Callable, Sequence
from functools import partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor
from transformers import GenerationConfig

from store.calibration import CARD
from store.errors import PiarError, UsageError
from trainers.chat import add_template
from trainers.checkpoint import read_card
from trainers.folder import load_lm, load_tokenizer, match_tokens
from trainers.head import Head, OwnHead, decoder
from trainers.layout import Item, Tokens, pack
from trainers.look_over import CAUSAL
from trainers.model import EVERY, Policy, Writes, end_id, prompt_ids
from trainers.rollout import KEEPS, Memory, Prefill, run

log = logging.getLogger(__name__)
WINDOWED = {"full_attention", "sliding_attention", "chunked_attention"}  # layers that are plain causal in their window
LEAST = 32  # tokens: a narrower window is not worth a tree
TOLERANCE, COARSE = {torch.float32: 1e-3}, 0.2  # of `gap`; the second in fewer bits


def load_policy(model: str, *, dtype: torch.dtype = torch.float32, device: str = "cpu") -> tuple[Policy, Any]:
    """A policy and its tokenizer from a Hugging Face folder or hub name; checks that prefixes may be shared.

    Raises:
        PiarError: nothing there that transformers can load as a causal language model, or a tokenizer or chat template
            that does not fit it.
        UsageError: see `refuse_encoder`.
    """
    refuse_encoder(model)
    lm, tokenizer = load_lm(model, dtype), load_tokenizer(model)
    _ready(model, lm, tokenizer)
    return wrap(lm.to(torch.device(device))), tokenizer


def refuse_encoder(model: str) -> None:
    """Make sure that a folder holds no student that only reads.

    The folder of one that is prompted looks like a language model's, but its layers are the lower ones: what they
    write is noise.

    Raises:
        UsageError: it does.
    """
    folder = Path(model)
    if (folder / CARD).is_file() and (card := read_card(folder)).kind == "encoder":
        raise UsageError(
            f"{model} is an encoder, which writes nothing: no language model can be taught or asked there.",
            f"Pass the model that it was made from ({card.base}), or a checkpoint of `piar train sft`. "
            f"As a judge it is `student:{model}`.",
        )


def _say_how_answers_are_written(tokenizer: Any, lm: Any) -> None:
    """Give a tokenizer that names no end of a text its model's, and let the model say how a student's answers are
    written: what ends them, and that each token is the likeliest.

    vLLM and others take their defaults from `generation_config.json`. Those of the base (a temperature, a penalty for
    what was said before) would draw the grade by lot; such as contradict each other cannot even be saved.
    """
    told = lm.generation_config
    configs = [one for one in (told, lm.config.get_text_config()) if one is not None]
    said = [getattr(config, "eos_token_id", None) for config in configs]
    ends = [end for one in said for end in (one if isinstance(one, list) else [one]) if isinstance(end, int)]
    if tokenizer.eos_token is None and ends:
        tokenizer.eos_token = tokenizer.convert_ids_to_tokens(ends[0])
    if told is not None:
        lm.generation_config = GenerationConfig(  # type: ignore[no-untyped-call]
            bos_token_id=told.bos_token_id,
            pad_token_id=told.pad_token_id,
            eos_token_id=list(dict.fromkeys([end_id(tokenizer), *ends])),
            do_sample=True,  # vLLM reads `top_k` and not this; transformers wants it beside `top_k`
            top_k=1,
        )


def wrap(lm: Any) -> Policy:
    """A policy that shares prefixes as far as the model can, with a word where it cannot.

    Raises:
        PiarError: the model does not run on text alone, lets tokens see those that follow, or computes or writes its
            answers in a way that cannot be followed.
    """
    kind, told = lm.config.model_type, _stock(Policy(lm))
    one, other, *_ = (logits[:1] for logits in told.logits)  # of two completions of one prompt
    if (ahead := gap(one, other)) > TOLERANCE.get(lm.dtype, COARSE):
        raise PiarError(f"{kind} is no causal language model: its tokens see those that follow ({ahead:.1e}).", CAUSAL)
    policy = _reading(lm, told)
    policy.turn = _turn(lm.config)
    if policy.shares and (why := unlike(policy, partial(_writing_gap, policy, told, _shared))) is not None:
        log.info("%s writes without shared prefixes: %s", kind, why)
        policy.written = 0
    if policy.written < EVERY:
        policy.writes = _writes(policy, told)
    if policy.writes == "anew":
        log.warning("%s keeps no keys and values that piar can use: traces are written slowly", kind)
    policy.body(trees=False)  # as it came
    return policy


def _reading(lm: Any, told: "Told") -> Policy:
    """The policy with the widest window and the plainest head whose probabilities are the stock model's."""
    kind, reasons = lm.config.model_type, list[str]()
    widest = _widest(lm)
    for window, head in product(dict.fromkeys([widest, 0]), (Head.of, OwnHead.of)):
        policy = Policy(lm, window=window, head=head)
        why = unlike(policy, partial(parity_gap, policy, told))
        if why is None:
            break
        reasons.append(why)
    else:
        raise PiarError(f"{kind} computes its answers in a way that piar cannot follow ({reasons[-2]}).", CAUSAL)
    if not policy.shares:
        log.warning("%s cannot share prefixes: prompts are computed whole, in padded batches, slower", kind)
        log.info("%s carries no tree: %s", kind, reasons[0] if widest else "its layers are of other kinds")
    elif policy.window < EVERY:
        log.info("%s shares the prefixes of sequences up to %d tokens", kind, policy.window)
    return policy


def load_reader(model: str, *, dtype: torch.dtype = torch.float32, depth: float = 1.0) -> tuple[Policy, Any]:
    """A policy that is read for its states alone, and its tokenizer; errors as for `load_policy`.

    Args:
        depth: share of the layers that is loaded, see `load_lm`; all where the lower ones do not stand alone.
    """
    tokenizer = load_tokenizer(model)
    try:
        lm = load_lm(model, dtype, depth=depth)
        policy = _reader(lm)
    except PiarError as error:
        if depth == 1.0:
            raise
        log.info("%s is read with all its layers: %s", model, error.message)
        return load_reader(model, dtype=dtype)
    return policy, _ready(model, lm, tokenizer)


def _ready(model: str, lm: Any, tokenizer: Any) -> Any:
    """The tokenizer with a template; makes sure that it is its model's."""
    add_template(tokenizer)
    match_tokens(model, lm, tokenizer)
    _say_how_answers_are_written(tokenizer, lm)
    [asked] = prompt_ids(tokenizer, [[{"role": "user", "content": "a"}]])
    match_tokens(model, lm, tokenizer, end_id(tokenizer), *asked)
    return tokenizer


def _reader(lm: Any) -> Policy:
    """A policy whose hidden rows are the stock model's; below the top layer they make no probabilities."""
    why: str | None = None
    for window in dict.fromkeys([_widest(lm), 0]):
        policy = Policy(lm, window=window)
        if (why := unlike(policy, partial(state_gap, policy))) is None:
            return policy
    raise PiarError(f"{lm.config.model_type} reads in a way that piar cannot follow ({why}).", CAUSAL)


def _widest(lm: Any) -> int:
    return _window(lm.config) if decoder(lm)._can_set_attn_implementation() else 0


def _kinds(config: Any) -> set[str]:
    """Kinds of layers; older configurations do not say, so that any kind of attention may be there."""
    return set(getattr(config.get_text_config(), "layer_types", None) or WINDOWED)


def _turn(config: Any) -> int:
    """See `Policy.turn`."""
    told = getattr(config.get_text_config(), "rope_parameters", None) or {}
    ways = [one for one in (told, *told.values()) if isinstance(one, dict) and one.get("rope_type") == "longrope"]
    return min((int(one["original_max_position_embeddings"]) for one in ways), default=EVERY)


def _window(config: Any) -> int:
    """Tokens up to which every layer sees all that came before; 0 for layers of other kinds than attention."""
    text, kinds = config.get_text_config(), _kinds(config)
    if not kinds <= WINDOWED or getattr(config, "is_encoder_decoder", False):
        return 0
    named = {"sliding_attention": "sliding_window", "chunked_attention": "attention_chunk_size"}
    sizes = [getattr(text, name, None) or EVERY for kind, name in named.items() if kind in kinds]
    window = min([*sizes, _turn(config)])
    return window if window >= LEAST else 0


class Told(NamedTuple):
    """What the stock model says of completions, each computed by itself."""

    items: Sequence[Item]
    logits: list[Tensor]  # of each completion [tokens, V], over all items

    @property
    def second(self) -> Tensor:
        """[n, V] after the first token of each completion."""
        return torch.stack([one[1] for one in self.logits])


@torch.no_grad()
def _stock(policy: Policy) -> Told:
    items = _short_texts(policy.lm)
    with policy.judging():
        policy.body(trees=False)
        try:
            return Told(items, [_alone(policy, item.prompt, end) for item in items for end in item.completions])
        except (MemoryError, torch.OutOfMemoryError):
            raise
        except Exception as error:  # of many kinds: pictures, sounds or a second text are missing
            kind = policy.lm.config.model_type
            raise PiarError(f"{kind} does not run on a text alone ({_said(error)}).", CAUSAL) from None


def _short_texts(lm: Any) -> list[Item]:
    text, draw = _text_tokens(lm), torch.Generator().manual_seed(0)
    rubric, *tails = (text[torch.randint(len(text), (n,), generator=draw)].tolist() for n in (12, 5, 9, 4, 6, 3))
    return [Item(rubric + tails[0], [tails[2], tails[3]]), Item(rubric + tails[1], [tails[4]])]


def _text_tokens(lm: Any) -> Tensor:
    """[n] tokens that may stand in a text: not those for which its configuration has a name, such as a picture's."""
    kept = torch.ones(lm.get_input_embeddings().weight.shape[0], dtype=torch.bool)
    named = vars(lm.config) | vars(lm.config.get_text_config())
    for name, token in named.items():
        if name.endswith(("_token_id", "_token_index")) and isinstance(token, int) and token < len(kept):
            kept[token] = False
    return kept.nonzero()[:, 0]


def _alone(policy: Policy, prompt: Tokens, completion: Tokens) -> Tensor:
    ids = torch.tensor([[*prompt, *completion[:-1]]], device=policy.device)
    logits: Tensor = policy.lm(input_ids=ids, use_cache=False).logits[0, len(prompt) - 1 :]
    return logits


def unlike(policy: Policy, measure: Callable[[], float]) -> str | None:
    """What is not as in the stock model: its probabilities, or its ways altogether; None if all is."""
    try:
        found, tolerance = measure(), TOLERANCE.get(policy.lm.dtype, COARSE)
    except (PiarError, MemoryError, torch.OutOfMemoryError):
        raise
    except Exception as error:  # whatever the model's code does not expect
        return _said(error)
    return f"what it says differs by {found:.1e}" if found > tolerance else None


def _said(error: Exception) -> str:
    return f"{type(error).__name__}: {next(iter(str(error).splitlines()), '')}"


def parity_gap(policy: Policy, told: Told | None = None) -> float:
    """How far a small tree is from the stock model on repeated prompts, see `gap`."""
    told = told or _stock(policy)

    def read() -> Tensor:
        logits: Tensor = policy(policy.pack(told.items), lambda hidden, head: head(hidden))
        return logits

    with policy.judging():
        scored = read()
        with torch.enable_grad():  # scoring takes a shorter way
            trained = read().detach()
    return max(gap(found, torch.cat(told.logits)) for found in (scored, trained))


def state_gap(policy: Policy) -> float:
    """How far a small tree's hidden rows are from the stock model's, as a share of their length, at the farthest."""
    items = _short_texts(policy.lm)
    with policy.judging():
        found = policy(policy.pack(items), lambda hidden, head: hidden).float()
        body, told = policy.body(trees=False), []
        for item in items:
            for end in item.completions:
                ids = torch.tensor([[*item.prompt, *end[:-1]]], device=policy.device)
                told.append(body(input_ids=ids, use_cache=False).last_hidden_state[0, len(item.prompt) - 1 :])
    return farthest(found, torch.cat(told).float())


def farthest(found: Tensor, told: Tensor) -> float:
    """How far states [n, h] are from others, as a share of their length, at the farthest."""
    far = ((found - told).norm(dim=-1) / told.norm(dim=-1)).max()
    return math.inf if far.isnan() else float(far)


def gap(found: Tensor, told: Tensor) -> float:
    """How far logits [n, V] are from the stock model's, at their farthest token.

    In float32 the largest difference of log-probabilities. In fewer bits those of tokens that never come are noise, so
    there it is the total variation distance of the next token: .02 to .12 between two right ways to compute a real
    model in bfloat16, .4 and more where a token stands one place off or sees a sibling.

    Raises:
        PiarError: the stock model's are no numbers.
    """
    exact = told.dtype == torch.float32
    found, told = found.float().log_softmax(-1), told.float().log_softmax(-1)
    if told.isnan().any():
        raise PiarError(
            f"The model's probabilities are no numbers in {'float32' if exact else 'so few bits'}.",
            "Its weights are damaged: download it again. Or they are too large for so few bits: ask for float32.",
        )
    far = (found - told).abs().max() if exact else (found.exp() - told.exp()).abs().sum(-1).max() / 2
    return math.inf if far.isnan() else float(far)


def _writes(policy: Policy, told: Told) -> Writes:
    """The fastest way to write without shared prefixes whose second token is the stock model's.

    Raises:
        PiarError: none is.
    """
    ways: dict[Writes, Callable[[Policy, Told], Tensor]] = {"padded": _together, "alike": _apart, "anew": _together}
    if not _kinds(policy.lm.config) <= WINDOWED:
        del ways["padded"]  # layers could read what pads them
    why: str | None = None
    for policy.writes, write in ways.items():
        if (why := unlike(policy, partial(_writing_gap, policy, told, write))) is None:
            return policy.writes
    raise PiarError(f"{policy.lm.config.model_type} writes in a way that piar cannot follow ({why}).", CAUSAL)


@torch.no_grad()
def _writing_gap(policy: Policy, told: Told, write: Callable[[Policy, Told], Tensor]) -> float:
    with policy.judging():
        return gap(write(policy, told), told.second)


def _begun(told: Told) -> tuple[list[Tokens], list[int]]:
    """Prompts and first tokens of all completions."""
    begun = [(item.prompt, completion[0]) for item in told.items for completion in item.completions]
    return [prompt for prompt, _ in begun], [token for _, token in begun]


def _shared(policy: Policy, told: Told) -> Tensor:
    prompts, tokens = _begun(told)
    prefill = Prefill(pack([Item(prompt, [[0]]) for prompt in prompts]).to(policy.device))
    run(policy, prefill.pack.tokens, prefill.pack.positions, prefill, prefill.pack.rows)
    memory = Memory(prefill, 1, 2)
    places = torch.tensor([len(prompt) for prompt in prompts], device=policy.device)
    return run(policy, torch.tensor(tokens, device=policy.device), places, memory, slice(None))


def _together(policy: Policy, told: Told) -> Tensor:
    prompts, tokens = _begun(told)
    kept = KEEPS[policy.writes](policy)
    kept.read(prompts)
    return kept.read([[token] for token in tokens])


def _apart(policy: Policy, told: Told) -> Tensor:
    each = [Told([Item(item.prompt, [end])], told.logits) for item in told.items for end in item.completions]
    return torch.cat([_together(policy, one) for one in each])
