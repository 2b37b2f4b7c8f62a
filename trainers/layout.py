"""One layout, one mask: prompts and completions as a tree of tokens.

A pack is one row of tokens, depth first: `[rubric | sample_i | completion_ij …]`. Whatever prefix
prompts share (a rubric, a query) is stored and computed once. One integer per token says who sees
it: position q sees position kv iff `kv <= q < sub_end[kv]`. Position ids are depths. The same pack
serves SFT, grouped rollouts, distillation and first-token scoring.

The last prompt token is repeated as the first of each completion, so that every completion has
logit rows of its own.

On CPU, attention runs in blocks: a subtree against its ancestors and itself, never one T×T mask
over the pack (FlexAttention has no CPU backward). On GPU the same integers make a FlexAttention
BlockMask. Left out: dropout inside attention, sliding windows and linear attention (the models
that need them take one sequence a pack, see `repeated`).
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.functional import pad, scaled_dot_product_attention

Tokens = Sequence[int]
SHARE = 8  # a common prefix shorter than this many tokens is not worth a node
BLOCK = 256  # subtrees up to this many tokens are one attention block
FLEX_PAD = 128


@dataclass(frozen=True, slots=True)
class Item:
    """A prompt and the completions that hang from it (at least one, none of them empty)."""

    prompt: Tokens
    completions: Sequence[Tokens]


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
    def mask(self) -> Tensor | None:
        """[queries, keys] of 0 and -inf, or None for a plain causal block without ancestors."""
        device = self.sub_end.device
        own = torch.arange(self.start, self.end, device=device)
        sees = (own[None, :] <= own[:, None]) & (own[:, None] < self.sub_end[None, :])
        if not self.spans and bool((self.sub_end >= self.end).all()):
            return None
        above = torch.ones(len(own), sum(b - a for a, b in self.spans), dtype=torch.bool, device=device)
        seen = torch.cat([above, sees], 1)
        return torch.zeros(seen.shape, device=device).masked_fill(~seen, -torch.inf)

    @cached_property
    def half_mask(self) -> Tensor | None:
        """`mask` in bfloat16."""
        return None if self.mask is None else self.mask.bfloat16()


@dataclass(frozen=True, eq=False)
class Pack:
    """A tree of T tokens with n labelled rows.

    Attributes:
        nodes: the tree, by position.
        tokens: [T].
        positions: [T], depth of each token in its own sequence.
        sub_end: [T], first position after the subtree of each token.
        rows: [n], positions whose logits predict `targets`; completions stay in order and whole.
        targets: [n].
        owner: [n], index of the completion that a row belongs to, counted over items in the order given.
        place: [n], index of the row inside its completion (0 is the grade).
    """

    nodes: tuple[Node, ...] = field(repr=False)
    tokens: Tensor
    positions: Tensor
    sub_end: Tensor
    rows: Tensor
    targets: Tensor
    owner: Tensor
    place: Tensor

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
        one = self.padded(FLEX_PAD) if device.type == "cuda" else self
        columns = (one.tokens, one.positions, one.sub_end, one.rows, one.targets, one.owner, one.place)
        return Pack(one.nodes, *(t.to(device) for t in columns))

    def padded(self, multiple: int) -> "Pack":
        """Longer, by tokens at the end that see only themselves."""
        size = len(self.tokens)
        extra = -size % multiple
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
        self.first = [0]
        for item in items:
            self.first.append(self.first[-1] + len(item.completions))
        self.tokens: list[int] = []
        self.positions: list[int] = []
        self.sub_end: list[int] = []
        self.labels: dict[int, tuple[int, Tokens]] = {}  # completion -> (first row, targets)

    def node(self, members: list[int], depth: int, common: int) -> Node:
        """Items whose prompts agree on tokens `depth:common`; the last prompt token never joins."""
        start = self._segment(self.items[members[0]].prompt[depth:common], depth)
        stop = len(self.tokens)
        children: list[Node] = []
        for group in _split(members, common, self.items):
            if len(group) == 1 and len(self.items[group[0]].prompt) - 1 == common:
                children += self._completions(group[0])
            else:
                children.append(self.node(group, common, _common(group, self.items)))
        return self._close(start, stop, tuple(children))

    def _completions(self, item: int) -> Iterator[Node]:
        prompt = self.items[item].prompt
        for j, completion in enumerate(self.items[item].completions):
            if not completion:
                raise ValueError("an empty completion has no row to label")
            start = self._segment([prompt[-1], *completion[:-1]], len(prompt) - 1)
            self.labels[self.first[item] + j] = (start, completion)
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
    if any(not item.prompt for item in items):
        raise ValueError("an empty prompt has no token to answer after")
    writer = _Writer(items)
    everyone = list(range(len(items)))
    root = writer.node(everyone, 0, _common(everyone, items))
    return _finish(writer, (root,))


def repeated(items: Sequence[Item]) -> list[Pack]:
    """One plain causal sequence a pack, nothing shared: the reference, and the fallback."""
    return [pack([Item(item.prompt, [completion])]) for item in items for completion in item.completions]


@dataclass(frozen=True, eq=False)
class Labels:
    """Targets, owners and places of the labelled rows of several packs; owners counted through."""

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


def _finish(writer: _Writer, nodes: tuple[Node, ...]) -> Pack:
    rows: list[int] = []
    targets: list[int] = []
    owner: list[int] = []
    place: list[int] = []
    for index in sorted(writer.labels):
        start, completion = writer.labels[index]
        rows += range(start, start + len(completion))
        targets += completion
        owner += [index] * len(completion)
        place += range(len(completion))
    lists = (writer.tokens, writer.positions, writer.sub_end, rows, targets, owner, place)
    return Pack(nodes, *(torch.tensor(values, dtype=torch.long) for values in lists))


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
    module: Any, query: Tensor, key: Tensor, value: Tensor, attention_mask: Tensor | None, *,
    tree: Any = None, scaling: float | None = None, **_: Any,
) -> tuple[Tensor, None]:  # fmt: skip
    """Attention function for transformers' interface. `tree` is a `Pack`, or anything with an `attend` method.

    Args:
        query: [1, heads, T, head_dim]; key and value: [1, kv_heads, T, head_dim].

    Returns:
        [1, T, heads, head_dim], and None for the weights.
    """
    query, key = query.to(value.dtype), key.to(value.dtype)  # under autocast, norms give them back in float32
    if not isinstance(tree, Pack):
        return tree.attend(module.layer_idx, module, query, key, value, scaling), None
    if query.is_cuda:
        out = _flex()(query, key, value, block_mask=tree.block_mask, scale=scaling, enable_gqa=True)
        return out.transpose(1, 2), None
    return attend_blocks(tree.blocks, query, key, value, scaling), None


def attend_blocks(
    blocks: Sequence[Block], query: Tensor, key: Tensor, value: Tensor, scaling: float | None,
    above: tuple[Tensor, Tensor] | None = None,
) -> Tensor:  # fmt: skip
    """Attention block by block.

    Args:
        query: [1, heads, T, head_dim]; key and value: [1, kv_heads, T, head_dim].
        above: key and value [1, kv_heads, P, head_dim] of a prefix that ran before; the blocks then have the
            span (-P, 0), see `below`.

    Returns:
        [1, T, heads, head_dim].
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
    return torch.cat([_attend(block, i, number, parts, scaling) for i, block in enumerate(blocks)], 1)


def below(one: Pack, prefix: int) -> list[Block]:
    """Attention blocks of a pack whose every token also sees `prefix` tokens that ran before it."""
    spans = ((-prefix, 0),) if prefix else ()
    return list(_blocks(one.nodes, spans, one.sub_end, BLOCK))


def _attend(
    block: Block, i: int, number: dict[int, int], parts: Sequence[Sequence[Tensor]], scaling: float | None
) -> Tensor:
    query, *memory = parts
    above = [number[start] for start, _ in block.spans]  # an ancestor's own segment is a block
    key, value = (torch.cat([t[j] for j in (*above, i)], 2) if above else t[i] for t in memory)
    mask = block.half_mask if query[i].dtype == torch.bfloat16 else block.mask
    out = scaled_dot_product_attention(query[i], key, value, attn_mask=mask, is_causal=mask is None, scale=scaling)
    return out.transpose(1, 2)


@lru_cache(maxsize=1)
def _flex() -> Any:
    from torch.nn.attention.flex_attention import flex_attention

    return torch.compile(flex_attention, dynamic=True)
