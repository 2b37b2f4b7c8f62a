"""Decoding with shared prefixes: each prompt is prefilled once, its rubric is kept once for all.

A batch of rollouts is one row of tokens for the model; `Memory` is the attention of that row. Keys
and values of the root (the rubric) are stored once, those of a prompt's own tokens beside each of
its rollouts, in a static buffer that compacts as rollouts end. Left out: speculative decoding, paged
caches, CUDA graphs (for large models use vLLM on the exported checkpoint).
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import partial
from inspect import signature
from typing import Any, Protocol

import torch
from torch import Tensor

from trainers.layout import Item, Pack, Tokens, attend_blocks, below, pack, tree_attention
from trainers.model import EVERY, PADDED, Policy, Writes, context, only_rows

Layers = dict[int, tuple[Tensor, Tensor]]  # layer -> keys and values, each [1, Hkv, T, D]
Draw = Callable[[Tensor, Sequence[int]], Tensor]  # [n, V] logits and which completions they are of -> [n] tokens


class Guide(Protocol):
    """What holds one completion to a form."""

    def allow(self, logits: Tensor) -> Tensor:
        """[V] logits of the next token, without those that may not follow."""
        ...

    def took(self, token: int) -> None:
        """The token that was chosen."""
        ...


class Prefill:
    """Runs a pack and keeps every layer's keys and values."""

    def __init__(self, one: Pack) -> None:
        self.pack = one
        self.layers: Layers = {}
        self.narrow: Any = None  # the attention of which labelled rows alone are read, see `only_rows`

    def attend(self, layer: int, module: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Keep keys and values, and attend as the pack does."""
        self.layers[layer] = (key, value)
        one = self.pack
        return tree_attention(module, query, key, value, None, tree=one, narrow=self.narrow, scaling=scaling)[0]

    @property
    def own_from(self) -> int:
        """Position in the pack where a prompt's own tokens begin; all before it is shared."""
        return self.pack.nodes[0].stop

    @property
    def shared(self) -> Layers:
        """Keys and values of what all prompts share."""
        return {n: (k[:, :, : self.own_from], v[:, :, : self.own_from]) for n, (k, v) in self.layers.items()}


class Below(Prefill):
    """Runs a pack of prompts whose first tokens ran before.

    Args:
        one: the prompts without those tokens; its positions go on from theirs.
        root: the keys and values of those tokens.
    """

    own_from = 0

    def __init__(self, one: Pack, root: Layers) -> None:
        super().__init__(one)
        self._root = root
        self._blocks = below(one, next((keys.shape[2] for keys, _ in root.values()), 0))

    @property
    def shared(self) -> Layers:
        """The root's."""
        return self._root

    def attend(self, layer: int, module: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """Keep keys and values, and attend to the root and the pack."""
        self.layers[layer] = (key, value)
        rows = self.pack.rows.sort().values if self.narrow is not None and module is self.narrow else None
        return attend_blocks(self._blocks, query, key, value, scaling, self._root.get(layer), rows=rows)


class Root:
    """What all prompts begin with, computed once.

    Args:
        tokens: none where the model shares no prefix: prompts are then computed whole.
    """

    def __init__(self, policy: Policy, tokens: Tokens = ()) -> None:
        self.tokens, self.layers = list(tokens), Layers()
        if tokens:
            prefill = Prefill(pack([Item([*tokens, 0], [[0]])]).to(policy.device))
            hidden_rows(policy, prefill)
            size = len(tokens)
            self.layers = {n: (k[:, :, :size], v[:, :, :size]) for n, (k, v) in prefill.layers.items()}

    def below(self, policy: Policy, items: Sequence[Item]) -> Prefill:
        """A pack of items of which only what follows the root is computed; all of it, where one begins otherwise."""
        size = len(self.tokens)
        warm = size > 0 and all(len(item.prompt) > size and list(item.prompt[:size]) == self.tokens for item in items)
        left = [Item(item.prompt[size:], item.completions) for item in items] if warm else items
        one = policy.evened(pack(left)).to(policy.device)
        return Below(replace(one, positions=one.positions + size), self.layers) if warm else Prefill(one)


def hidden_rows(policy: Policy, prefill: Prefill) -> Tensor:
    """[n, h] hidden states of the labelled rows of a pack."""
    one, body = prefill.pack, policy.body(trees=True)
    with only_rows(body, one.rows, len(one.tokens)) as prefill.narrow:
        out = body(input_ids=one.tokens[None], position_ids=one.positions[None], use_cache=False, tree=prefill)
    rows: Tensor = out.last_hidden_state[0, one.rows]
    return rows


class Memory:
    """Keys and values of B running rollouts.

    Args:
        prefill: a pack of N prompts that was run, one completion each.
        copies: rollouts per prompt; B = N * copies.
        room: tokens that a rollout may add.
    """

    def __init__(self, prefill: Prefill, copies: int, room: int) -> None:
        one = prefill.pack
        own = [_path(one, int(row), prefill.own_from) for row in one.rows]
        self.width, self.step = max(map(len, own)), 0
        device = one.tokens.device
        index = torch.zeros(len(own), self.width, dtype=torch.long, device=device)
        self.hidden = torch.full((len(own) * copies, self.width), -torch.inf, device=device)
        for i, path in enumerate(own):
            index[i, : len(path)] = path
            self.hidden[i * copies : (i + 1) * copies, : len(path)] = 0
        self.shared = {n: (k[0], v[0]) for n, (k, v) in prefill.shared.items()}
        self.own = {n: tuple(_spread(t[0], index, copies, room) for t in kv) for n, kv in prefill.layers.items()}

    def attend(self, layer: int, _: Any, query: Tensor, key: Tensor, value: Tensor, scaling: float) -> Tensor:
        """One new token per rollout: query [1, H, B, D], key and value [1, Hkv, B, D] -> [1, B, H, D]."""
        _, heads, batch, dim = query.shape
        groups = key.shape[1]
        at, keys, values = self.width + self.step, *self.own[layer]
        keys[:, :, at], values[:, :, at] = key[0].transpose(0, 1), value[0].transpose(0, 1)
        shared_keys, shared_values = self.shared[layer]
        split = shared_keys.shape[1]  # 0 where prompts share nothing
        by_rollout = query[0].view(groups, heads // groups, batch, dim).permute(2, 0, 1, 3) * scaling  # [B, Hkv, g, D]
        by_head = by_rollout.permute(1, 0, 2, 3).reshape(groups, -1, dim)  # [Hkv, B * g, D]
        above = (by_head @ shared_keys.transpose(1, 2)).view(groups, batch, heads // groups, split).transpose(0, 1)
        own = by_rollout @ keys[:, :, : at + 1].transpose(2, 3)
        own[..., : self.width] += self.hidden[:, None, None].to(own.dtype)
        weights = torch.cat([above, own], -1).softmax(-1)
        from_own = weights[..., split:] @ values[:, :, : at + 1]
        from_shared = weights[..., :split].transpose(0, 1).reshape(groups, by_head.shape[1], split) @ shared_values
        out = from_own + from_shared.view(groups, batch, heads // groups, dim).transpose(0, 1)
        return out.reshape(1, batch, heads, dim)

    def keep(self, rows: Tensor) -> None:
        """Forget all rollouts but these."""
        self.hidden = self.hidden[rows]
        self.own = {layer: tuple(t[rows] for t in kv) for layer, kv in self.own.items()}


def _path(one: Pack, leaf: int, root: int) -> Tensor:
    seen = torch.arange(root, leaf + 1, device=one.sub_end.device)
    return seen[one.sub_end[root : leaf + 1] > leaf]


def _spread(states: Tensor, index: Tensor, copies: int, room: int) -> Tensor:
    """[Hkv, T, D] -> [N * copies, Hkv, width + room, D], each prompt's own tokens first."""
    own = states[:, index].transpose(0, 1).repeat_interleave(copies, 0)
    buffer = own.new_empty(own.shape[0], own.shape[1], own.shape[2] + room, own.shape[3])
    buffer[:, :, : own.shape[2]] = own
    return buffer


class Stock:
    """The model's own cache of a batch of whole sequences, shorter ones padded on the left."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self._cache = policy, None
        self._seen = torch.zeros(0, 0, dtype=torch.long)
        takes = signature(policy.lm.forward).parameters
        self._places, self._last = "position_ids" in takes, {"logits_to_keep": 1} if "logits_to_keep" in takes else {}

    def read(self, rows: Sequence[Tokens]) -> Tensor:
        """[B, V] logits after more tokens of each of the B sequences."""
        policy, width = self._policy, max(map(len, rows))
        more = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in rows], device=policy.device)
        ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in rows], device=policy.device)
        self._seen = torch.cat([self._seen, more], 1) if self._cache is not None else more
        given: dict[str, Any] = dict(self._last)
        if not self._seen.all():
            places = (self._seen.cumsum(1) - 1).clamp(min=0)[:, -width:]
            given |= {"attention_mask": self._seen} | ({"position_ids": places} if self._places else {})
        policy.body(trees=False)
        out = policy.lm(input_ids=ids, past_key_values=self._cache, use_cache=True, **given)
        self._cache = out.past_key_values
        logits: Tensor = out.logits[:, -1].float()
        return logits


class Anew:
    """Nothing kept but the sequences: of a model with states of another kind than keys and values, slow."""

    def __init__(self, policy: Policy) -> None:
        self._policy, self._rows = policy, list[list[int]]()

    def read(self, rows: Sequence[Tokens]) -> Tensor:
        """[B, V] logits after more tokens of each of the B sequences."""
        before = self._rows or [[] for _ in rows]
        self._rows = [[*old, *more] for old, more in zip(before, rows, strict=True)]
        packs = self._policy.pack([Item(row, [[0]]) for row in self._rows])
        logits: Tensor = self._policy(packs, lambda hidden, head: head(hidden))
        return logits


KEEPS: dict[Writes, type[Stock] | type[Anew]] = {"padded": Stock, "alike": Stock, "anew": Anew}


@torch.no_grad()
def generate(
    policy: Policy,
    prompts: Sequence[Tokens],
    *,
    end: int | Sequence[int],
    limit: int,
    copies: int = 1,
    starts: Sequence[int] | None = None,
    temperature: float = 1.0,
    generator: torch.Generator | None = None,
    guides: Sequence[Guide] | None = None,
) -> list[list[list[int]]]:
    """Token ids that complete each prompt, `copies` times: `completions[prompt][copy]`.

    Args:
        end: token that ends a completion (and is part of it), or several of which each does.
        limit: most tokens of a completion; one that reaches it has no `end`. Fewer where the model has no more places
            after a prompt.
        starts: a first token for each prompt, given instead of drawn.
        temperature: 0 for the most likely token.
        guides: what holds the completion of each prompt to a form; `copies` is 1 then.
    """
    found: dict[int, list[list[int]]] = {}
    ends = [end] if isinstance(end, int) else list(end)
    for write, batch, most in _parts(policy, prompts, copies, limit):
        given = None if starts is None else [starts[i] for i in batch]
        held = None if guides is None else [guides[i] for i in batch]
        draw = partial(_draw, temperature=temperature, generator=generator, guides=held)
        written = write(policy, [prompts[i] for i in batch], ends, most, copies, given, draw)
        found |= dict(zip(batch, written, strict=True))
    return [found[i] for i in range(len(prompts))]


def _parts(
    policy: Policy, prompts: Sequence[Tokens], copies: int, limit: int
) -> Iterator[tuple[Callable[..., list[list[list[int]]]], list[int], int]]:
    """How prompts are completed together, which, and to how many tokens: all of a part have room for as many."""
    places, rooms = context(policy.lm) or EVERY, dict[int, list[int]]()
    for i, prompt in enumerate(prompts):
        rooms.setdefault(max(1, min(limit, places - len(prompt))), []).append(i)
    for room, chosen in rooms.items():
        short = [i for i in chosen if len(prompts[i]) + room <= policy.written]
        if short:
            yield _shared, short, room
        long = sorted(set(chosen) - set(short), key=lambda i: len(prompts[i]))
        for batch in _batches(policy, prompts, long, copies, room):
            yield _whole, batch, room


def _shared(
    policy: Policy,
    prompts: Sequence[Tokens],
    ends: list[int],
    limit: int,
    copies: int,
    starts: Sequence[int] | None,
    draw: Draw,
) -> list[list[list[int]]]:
    """Completions of prompts whose prefixes are shared."""
    prefill = Prefill(pack([Item(p, [ends[:1]]) for p in prompts]).to(policy.device))
    logits = run(policy, prefill.pack.tokens, prefill.pack.positions, prefill, prefill.pack.rows)
    if starts is None:
        token = draw(logits.repeat_interleave(copies, 0), range(len(prompts) * copies))
    else:
        token = torch.tensor(starts, device=policy.device).repeat_interleave(copies)
    memory, stops = Memory(prefill, copies, limit), torch.tensor(ends, device=policy.device)
    done: list[list[int]] = [[] for _ in range(len(prompts) * copies)]
    alive = torch.arange(len(done), device=policy.device)
    depth = torch.tensor([len(p) for p in prompts], device=policy.device).repeat_interleave(copies)
    for step in range(limit):
        for row, value in zip(alive.tolist(), token.tolist(), strict=True):
            done[row].append(value)
        open_rows = torch.isin(token, stops, invert=True).nonzero()[:, 0]
        if step == limit - 1 or not len(open_rows):
            break
        if len(open_rows) < len(token):
            memory.keep(open_rows)
            alive, token, depth = alive[open_rows], token[open_rows], depth[open_rows]
        memory.step = step
        token = draw(run(policy, token, depth + step, memory, slice(None)), alive.tolist())
    return [done[i : i + copies] for i in range(0, len(done), copies)]


def run(policy: Policy, tokens: Tensor, positions: Tensor, tree: Any, rows: Any) -> Tensor:
    """Logits [n, V] of the rows of one row of tokens [T], through a `tree` with an `attend` method."""
    body = policy.body(trees=True)
    out = body(input_ids=tokens[None], position_ids=positions[None], use_cache=False, tree=tree)
    return policy.head(out.last_hidden_state[0, rows])


def _draw(
    logits: Tensor,
    rows: Sequence[int],
    *,
    temperature: float,
    generator: torch.Generator | None,
    guides: Sequence[Guide] | None,
) -> Tensor:
    """[n] tokens from [n, V] logits, of those that the rows' guides allow."""
    if guides is not None:
        logits = torch.stack([guides[row].allow(one) for row, one in zip(rows, logits, strict=True)])
    if temperature == 0:
        tokens = logits.argmax(-1)
    else:
        tokens = torch.multinomial((logits / temperature).softmax(-1), 1, generator=generator)[:, 0]
    if guides is not None:
        for row, token in zip(rows, tokens.tolist(), strict=True):
            guides[row].took(token)
    return tokens


def _batches(
    policy: Policy, prompts: Sequence[Tokens], chosen: Sequence[int], copies: int, limit: int
) -> Iterator[list[int]]:
    """Prompts chosen in order of length, in batches; of one length, where the model would read what pads them."""
    batch: list[int] = []
    for i in chosen:
        size = len(prompts[i])
        before = len(prompts[batch[-1]]) if batch else size
        apart = policy.writes == "alike" and size != before
        if (
            apart
            or before + limit <= policy.turn < size + limit
            or (batch and (size + limit) * copies * (len(batch) + 1) > PADDED)
        ):
            yield batch
            batch = []
        batch.append(i)
    if batch:
        yield batch


def _whole(
    policy: Policy,
    prompts: Sequence[Tokens],
    ends: list[int],
    limit: int,
    copies: int,
    starts: Sequence[int] | None,
    draw: Draw,
) -> list[list[list[int]]]:
    """Completions of prompts that share nothing, all of them token by token together."""
    stock = KEEPS[policy.writes](policy)
    logits = stock.read([prompt for prompt in prompts for _ in range(copies)])
    given = None if starts is None else [start for start in starts for _ in range(copies)]
    every = range(len(prompts) * copies)
    done = [[token] for token in (draw(logits, every).tolist() if given is None else given)]
    for _ in range(limit - 1):
        if all(row[-1] in ends for row in done):
            break
        more = draw(stock.read([row[-1:] for row in done]), every).tolist()
        for row, token in zip(done, more, strict=True):
            if row[-1] not in ends:
                row.append(token)
    return [done[i : i + copies] for i in range(0, len(done), copies)]
