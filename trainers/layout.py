"""One layout, one mask: prompts and completions as a tree of tokens.

A pack is one row of tokens, depth first: `[rubric | sample_i | completion_ij …]`. Whatever prefix
prompts share (a rubric, a query) is stored and computed once. One integer per token says who sees
it: position q sees position kv iff `kv <= q < sub_end[kv]`. Position ids are depths. The same pack
serves SFT, grouped rollouts, distillation and first-token scoring.

The last prompt token is repeated as the first of each completion, so that every completion has
logit rows of its own.

On CPU, attention runs in blocks: a subtree against its ancestors and itself, never one T×T mask
over the pack (FlexAttention has no CPU backward). On GPU the same integers make a FlexAttention
BlockMask. Left out: dropout inside attention, linear attention, and sequences longer than a sliding
window (they are computed whole, see `repeated`).
"""

import importlib.util
import logging
import os
import shutil
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

log = logging.getLogger(__name__)
Tokens = Sequence[int]
SHARE = 8  # a common prefix shorter than this many tokens is not worth a node
BLOCK = 256  # subtrees up to this many tokens are one attention block
FLEX_PAD = 128
CPU_PAD = 32
# What transformers' models hand to their attention that changes nothing here; all else is a term of a model's own, such
# as `softcap`, `s_aux` or `position_bias`.
PLAIN = {"dropout", "position_ids", "sliding_window", "use_cache", "output_attentions", "logits_to_keep"}


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt and the completions that hang from it."""

    prompt: Tokens
    completions: Sequence[Tokens]

    @property
    def depth(self) -> int:
        """Tokens of its longest sequence, as far as a model reads them: the last of a completion is only predicted."""
        return len(self.prompt) + max(map(len, self.completions), default=1) - 1


@dataclass(frozen=True, slots=True)
class Node:
    """A segment `start:stop` of the pack, followed by its children up to `end`."""

    start: int
    stop: int
    end: int
    children: tuple["Node", ...] = ()


@dataclass(frozen=True, eq=False)
class Block:
    """Queries `start:end`; they may see the ancestors' `spans` and, masked, each other."""

    start: int
    end: int
    spans: tuple[tuple[int, int], ...]
    sub_end: Tensor  # [end - start], of the block's own tokens

    @cached_property
    def causal(self) -> bool:
        """Whether it is a plain causal block without ancestors, which needs no mask."""
        return not self.spans and bool((self.sub_end >= self.end).all())

    @cached_property
    def mask(self) -> Tensor:
        """[queries, keys] of 0 and -inf."""
        device = self.sub_end.device
        own = torch.arange(self.start, self.end, device=device)
        sees = (own[None, :] <= own[:, None]) & (own[:, None] < self.sub_end[None, :])
        above = torch.ones(len(own), sum(b - a for a, b in self.spans), dtype=torch.bool, device=device)
        seen = torch.cat([above, sees], 1)
        return torch.zeros(seen.shape, device=device).masked_fill(~seen, -torch.inf)


@dataclass(frozen=True, eq=False)
class Pack:
    """A tree of T tokens with n labelled rows; completions stay in order and whole."""

    nodes: tuple[Node, ...] = field(repr=False)  # by position
    tokens: Tensor  # [T]
    positions: Tensor  # [T], depth of each token in its own sequence
    sub_end: Tensor  # [T], first position after the subtree of each token
    rows: Tensor  # [n], positions whose logits predict `targets`
    targets: Tensor  # [n]
    owner: Tensor  # [n], the completion that a row belongs to, counted over items in the order given
    place: Tensor  # [n], where in its completion a row is (0 is the grade)

    @cached_property
    def depth(self) -> int:
        """Tokens of the longest sequence, see `Item.depth`."""
        return int(self.positions.max()) + 1

    @cached_property
    def blocks(self) -> list[Block]:
        """Attention blocks in order of position; together they cover the pack."""
        return list(_blocks(self.nodes, (), self.sub_end, BLOCK))

    @cached_property
    def block_mask(self) -> Any:
        """The same tree for FlexAttention."""
        from torch.nn.attention.flex_attention import create_block_mask

        ends = self.sub_end
        return create_block_mask(
            lambda b, h, q, kv: (kv <= q) & (q < ends[kv]), None, None, len(ends), len(ends), device=str(ends.device)
        )

    def to(self, device: torch.device) -> "Pack":
        """On another device; on CUDA padded to a multiple of 128."""
        if device == self.tokens.device:
            return self
        size = len(self.tokens)
        one = self.padded(size + -size % FLEX_PAD) if device.type == "cuda" else self
        columns = (one.tokens, one.positions, one.sub_end, one.rows, one.targets, one.owner, one.place)
        return Pack(one.nodes, *(t.to(device) for t in columns))

    def padded(self, length: int) -> "Pack":
        """Longer, by tokens at the end that see only themselves."""
        size = len(self.tokens)
        extra = length - size
        if not extra:
            return self
        ends = torch.cat([self.sub_end, torch.arange(size + 1, size + extra + 1)])
        tokens, positions = (pad(t, (0, extra)) for t in (self.tokens, self.positions))
        end = Node(size, size + extra, size + extra)
        return replace(self, nodes=(*self.nodes, end), tokens=tokens, positions=positions, sub_end=ends)


class _Writer:
    """Writes the tree depth first into flat lists."""

    def __init__(self, items: Sequence[Item]) -> None:
        self.items = items
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.sub_end: list[int] = []
        self.starts: dict[tuple[int, int], int] = {}  # (item, its completion) -> first row

    def node(self, members: list[int], depth: int) -> Node:
        """The members' prompts from `depth` on, as far as they agree; the last prompt token never joins."""
        common = _common(members, self.items)
        start = self._segment(self.items[members[0]].prompt[depth:common], depth)
        stop = len(self.tokens)
        children: list[Node] = []
        for group in _split(members, common, self.items):
            if len(group) == 1 and len(self.items[group[0]].prompt) - 1 == common:
                children += self._completions(group[0])
            else:
                children.append(self.node(group, common))
        return self._close(start, stop, tuple(children))

    def _completions(self, item: int) -> Iterator[Node]:
        prompt = self.items[item].prompt
        for j, completion in enumerate(self.items[item].completions):
            start = self._segment([prompt[-1], *completion[:-1]], len(prompt) - 1)
            self.starts[item, j] = start
            yield self._close(start, len(self.tokens), ())

    def _segment(self, tokens: Tokens, depth: int) -> int:
        start = len(self.tokens)
        self.tokens += tokens
        self.positions += range(depth, depth + len(tokens))
        self.sub_end += [0] * len(tokens)
        return start

    def _close(self, start: int, stop: int, children: tuple[Node, ...]) -> Node:
        end = len(self.tokens)
        self.sub_end[start:stop] = [end] * (stop - start)
        return Node(start, stop, end, children)


def pack(items: Sequence[Item]) -> Pack:
    """Lay items out as one tree that shares their prompts' common token prefixes.

    Raises:
        ValueError: an empty prompt or an empty completion.
    """
    if not all(item.prompt and all(item.completions) for item in items):
        raise ValueError("an empty prompt has no token to answer after, an empty completion no row to label")
    writer = _Writer(items)
    root = writer.node(list(range(len(items))), 0)
    rows, targets, owner, place = list[int](), list[int](), list[int](), list[int]()
    flat = [(i, j, completion) for i, item in enumerate(items) for j, completion in enumerate(item.completions)]
    for index, (i, j, completion) in enumerate(flat):
        start = writer.starts[i, j]
        rows += range(start, start + len(completion))
        targets += completion
        owner += [index] * len(completion)
        place += range(len(completion))
    lists = (writer.tokens, writer.positions, writer.sub_end, rows, targets, owner, place)
    return Pack((root,), *(torch.tensor(values, dtype=torch.long) for values in lists))


def repeated(items: Sequence[Item]) -> list[Pack]:
    """One plain causal sequence a pack, nothing shared: the reference, and the fallback."""
    return [pack([Item(item.prompt, [completion])]) for item in items for completion in item.completions]


def even(size: int) -> int:
    """The next of a few lengths, at most an eighth above `size` from 256 on: 8 in each doubling, else multiples of 32.

    For bf16 on CPUs, where every new length compiles kernels that stay in memory.
    """
    step = max(CPU_PAD, 1 << max(0, size.bit_length() - 4))
    return -(-size // step) * step


class Labels(NamedTuple):
    """Targets, owners and places [n] of the labelled rows of several packs; owners counted through."""

    targets: Tensor
    owner: Tensor
    place: Tensor


def labels(packs: Sequence[Pack], device: torch.device) -> Labels:
    """The labels of packs, in the order in which `Policy` reads their rows."""
    owners, count = [], 0
    for one in packs:
        owners.append(one.owner + count)
        count += int(one.owner[-1]) + 1
    columns = (torch.cat([p.targets for p in packs]), torch.cat(owners), torch.cat([p.place for p in packs]))
    return Labels(*(column.to(device) for column in columns))


def _common(members: Sequence[int], items: Sequence[Item]) -> int:
    """Length of the longest common token prefix of the members' prompts, their last tokens left out."""
    first = items[members[0]].prompt
    length = len(first) - 1
    for member in members[1:]:
        prompt = items[member].prompt
        length = min(length, len(prompt) - 1)
        while tuple(first[:length]) != tuple(prompt[:length]):
            length = next(i for i in range(length) if first[i] != prompt[i])
    return length


def _split(members: list[int], depth: int, items: Sequence[Item]) -> Iterable[list[int]]:
    """Members grouped by the next `SHARE` tokens; a group of prompts that end here becomes single members."""
    if len(members) == 1:
        return [members]
    groups: dict[tuple[int, ...], list[int]] = {}
    for member in members:
        head = tuple(items[member].prompt[depth:-1][:SHARE])
        groups.setdefault(head if len(head) == SHARE else (-1 - member,), []).append(member)
    return groups.values()


def _blocks(nodes: Sequence[Node], spans: tuple[tuple[int, int], ...], sub_end: Tensor, limit: int) -> Iterator[Block]:
    """Cut a run of siblings into blocks of at most `limit` tokens; a larger subtree is cut below its own segment."""
    run: list[Node] = []
    for node in (*nodes, None):
        if run and (node is None or node.end - run[0].start > limit):
            yield Block(run[0].start, run[-1].end, spans, sub_end[run[0].start : run[-1].end])
            run = []
        if node is None:
            return
        if node.end - node.start <= limit or not node.children:
            run.append(node)
            continue
        if node.stop > node.start:
            yield Block(node.start, node.stop, spans, sub_end[node.start : node.stop])
        above = (*spans, (node.start, node.stop)) if node.stop > node.start else spans
        yield from _blocks(node.children, above, sub_end, limit)


def tree_attention(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree: Any = None,
    narrow: Any = None,
    scaling: float | None = None,
    **own: Any,
) -> tuple[Tensor, None]:
    """Attention function for transformers' interface; shapes as for `attend_blocks`, and None for the weights.

    `tree` is a `Pack`, or anything with an `attend` method; the module `narrow` answers labelled rows only.

    Raises:
        NotImplementedError: the model's attention has a mask or terms of its own (a cap, sinks, a bias of positions).
    """
    terms = [name for name, value in own.items() if value is not None and name not in PLAIN]
    if tree is None or attention_mask is not None or terms:
        raise NotImplementedError(f"attention with {', '.join(terms) or 'a mask'} of its own")
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast, norms give them back in float32
    if not isinstance(tree, Pack):
        return tree.attend(module.layer_idx, module, query, key, value, scaling), None
    if query.is_cuda and (flex := _flex()) is not None:
        out = flex(query, key, value, block_mask=tree.block_mask, scale=scaling, enable_gqa=True)
        return out.transpose(1, 2), None
    rows = tree.rows.sort().values if narrow is not None and module is narrow else None
    return attend_blocks(tree.blocks, query, key, value, scaling, rows=rows), None


def attend_blocks(
    blocks: Sequence[Block],
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scaling: float | None,
    above: tuple[Tensor, Tensor] | None = None,
    *,
    rows: Tensor | None = None,
) -> Tensor:
    """[1, T, heads, head_dim] attention block by block.

    Args:
        query: [1, heads, T, head_dim]; key and value: [1, kv_heads, T, head_dim].
        above: key and value [1, kv_heads, P, head_dim] of a prefix that ran before; the blocks then have the
            span (-P, 0), see `below`.
        rows: [n] ascending, the only queries to be answered; the others get 0.
    """
    repeats = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(repeats, 1) if repeats > 1 else t for t in (key, value))
    # One split for all blocks: a slice for each would make every backward pass as long as the pack.
    sizes = [block.end - block.start for block in blocks]
    parts = [torch.split(t, sizes, 2) for t in (query, key, value)]
    number = {block.start: i for i, block in enumerate(blocks)}
    if above is not None:
        number[-above[0].shape[2]] = len(blocks)
        wide = (t.repeat_interleave(repeats, 1) if repeats > 1 else t for t in above)
        parts = [parts[0], *((*part, t) for part, t in zip(parts[1:], wide, strict=True))]
    if rows is None:
        return torch.cat([_attend(block, i, number, parts, scaling) for i, block in enumerate(blocks)], 1)
    inside = [rows[(rows >= block.start) & (rows < block.end)] - block.start for block in blocks]
    found = [_attend(block, i, number, parts, scaling, inside[i]) for i, block in enumerate(blocks)]
    return query.new_zeros(query.transpose(1, 2).shape).index_copy(1, rows, torch.cat(found, 1))


def below(one: Pack, prefix: int) -> list[Block]:
    """Attention blocks of a pack whose every token also sees `prefix` tokens that ran before it."""
    spans = ((-prefix, 0),) if prefix else ()
    return list(_blocks(one.nodes, spans, one.sub_end, BLOCK))


def _attend(
    block: Block,
    i: int,
    number: dict[int, int],
    parts: Sequence[Sequence[Tensor]],
    scaling: float | None,
    rows: Tensor | None = None,
) -> Tensor:
    (queries, *memory), mask, causal = parts, None, block.causal and rows is None
    above = [number[start] for start, _ in block.spans]  # an ancestor's own segment is a block
    key, value = (torch.cat([t[j] for j in (*above, i)], 2) if above else t[i] for t in memory)
    query = queries[i] if rows is None else queries[i][:, :, rows]
    if query.device.type == "cpu" and query.dtype == torch.bfloat16:
        # Blocks differ in length, and a CPU compiles bf16 kernels for each new one: float32 is faster.
        query, key, value = query.float(), key.float(), value.float()
    if not causal:
        mask = (block.mask if rows is None else block.mask[rows]).to(query.dtype)
    with torch.autocast(query.device.type, enabled=False):
        out = scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=causal, scale=scaling)
    return out.to(memory[0][i].dtype).transpose(1, 2)


@lru_cache(maxsize=1)
def _flex() -> Any:
    """FlexAttention, compiled; None, with a word, where Triton or the C compiler that it needs is missing."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    if compiler is None or importlib.util.find_spec("triton") is None:
        log.warning("without Triton and a C compiler attention runs in blocks, slower: install both")
        return None
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)
