"""The tree layout against repeated prompts: same log-probabilities, loss, gradients, attention."""

from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from trainers import layout
from trainers.head import Head, log_probs, over_rows, read_labels
from trainers.layout import Item, pack, repeated
from trainers.loading import parity_gap, wrap
from trainers.model import Policy
from trainers.rollout import Below, generate, run
from trainers.tiny import tiny_model

VOCAB = 60
GRADES = torch.tensor([3, 4, 5])

tokens = st.lists(st.integers(0, VOCAB - 1), min_size=1, max_size=12)
families = st.lists(st.tuples(tokens, st.lists(tokens, min_size=1, max_size=3)), min_size=1, max_size=4)


@st.composite
def trees(draw):
    """Prompts with nested common prefixes (rubric, then query), each with a few completions."""
    rubric = draw(st.lists(st.integers(0, VOCAB - 1), max_size=30))
    items = []
    for middle, tails in draw(families):
        long = middle * draw(st.sampled_from([1, 3]))
        items += [
            Item(rubric + long + tail, draw(st.lists(tokens, min_size=1, max_size=3)))
            for tail in tails * draw(st.sampled_from([1, 2]))
        ]
    return items


@pytest.fixture(scope="module")
def policy():
    return wrap(tiny_model(VOCAB, hidden=64, layers=2)).double()


def loss_and_gradient(policy, packs):
    """A loss in which every row has a weight of its own, and its gradient."""
    policy.zero_grad()
    targets = torch.cat([one.targets for one in packs])
    out = policy(packs, lambda h, w: read_labels(h, w, targets, GRADES))
    weight = torch.linspace(0.5, 1.5, len(targets), dtype=torch.float64)
    loss = -(out.logp * weight).mean() + (out.grades.exp()[:, 1] * weight).mean()
    loss.backward()
    return loss.item(), torch.cat([p.grad.flatten() for p in policy.parameters()])


@given(trees(), st.sampled_from([16, 64, 100_000]))
@settings(max_examples=12, deadline=None)
def test_a_tree_has_the_loss_and_gradient_of_repeated_prompts(policy, items, block):
    policy.float()
    expected, gradient = loss_and_gradient(policy, repeated(items))
    one = pack(items)
    one.__dict__["blocks"] = list(layout._blocks(one.nodes, (), one.sub_end, block))
    found, shared = loss_and_gradient(policy, [one])
    assert found == pytest.approx(expected, rel=1e-5)
    assert ((shared - gradient).norm() / gradient.norm()).item() < 1e-5


@given(trees())
@settings(max_examples=30, deadline=None)
def test_a_pack_holds_every_sequence_once_and_its_blocks_cover_it(items):
    one = pack(items)
    sees = (torch.arange(len(one.tokens))[None] <= one.rows[:, None]) & (one.rows[:, None] < one.sub_end[None])
    found = {}
    for i, (owner, place) in enumerate(zip(one.owner.tolist(), one.place.tolist(), strict=True)):
        path = one.tokens[sees[i]].tolist()
        assert one.positions[sees[i]].tolist() == list(range(len(path)))
        found[owner, place] = [*path, int(one.targets[i])]
    flat = [(item.prompt, c) for item in items for c in item.completions]
    assert found == {(j, k): [*prompt, *c[: k + 1]] for j, (prompt, c) in enumerate(flat) for k in range(len(c))}
    assert [b.start for b in one.blocks[1:]] == [b.end for b in one.blocks[:-1]]
    assert (one.blocks[0].start, one.blocks[-1].end) == (0, len(one.tokens))


def test_a_shared_rubric_is_stored_once():
    rubric = list(range(40))
    one = pack([Item([*rubric, 50, i], [[1, 2]] * 4) for i in range(8)])
    assert len(one.tokens) == 41 + 8 * 4 * 2


@pytest.mark.parametrize("items", [[Item([], [[1]])], [Item([1], [[]])]])
def test_empty_prompts_and_completions_are_refused(items):
    with pytest.raises(ValueError, match="empty"):
        pack(items)


def test_flex_attention_sees_the_same_tree(policy):
    """The mask that GPUs use, run by eager FlexAttention on CPU, gives what the blocks give."""
    from torch.nn.attention.flex_attention import flex_attention

    items = [Item([*range(30), 40 + i, 9], [[1, 2, 3], [4, 5]]) for i in range(3)]
    one = pack(items)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 2, len(one.tokens), 16, generator=generator) for _ in range(3))
    with pytest.warns(UserWarning, match="compile"):
        flex = flex_attention(q, k, v, block_mask=one.block_mask)
    blocks, _ = layout.tree_attention(None, q, k, v, None, tree=one)
    assert torch.allclose(flex.transpose(1, 2), blocks, atol=1e-5)


def test_the_padding_that_gpus_get_changes_no_row(policy):
    policy.float()
    items = [Item([*range(30), 40 + i, 9], [[1, 2, 3], [4, 5]]) for i in range(3)]
    one = pack(items)
    wide = one.padded(128)
    assert len(wide.tokens) == 128
    assert (wide.blocks[-1].end, wide.padded(128)) == (128, wide)
    plain, padded = (policy([p], lambda hidden, head: head(hidden)) for p in (one, wide))
    served = run(policy, wide.tokens, wide.positions, Below(wide, {}), wide.rows)  # as a session runs it
    assert torch.allclose(plain, padded, atol=1e-5)
    assert torch.allclose(plain, served, atol=1e-5)


def test_chunks_of_the_head_change_nothing(monkeypatch):
    import trainers.head as head

    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(37, 8, generator=generator, requires_grad=True)
    weight = torch.randn(VOCAB, 8, generator=generator, requires_grad=True)
    targets = torch.randint(VOCAB, (37,), generator=generator)

    def run():
        out = read_labels(hidden, Head(weight), targets, GRADES)
        (out.logp.sum() + out.grades.square().sum()).backward()
        grads = hidden.grad.clone(), weight.grad.clone()
        hidden.grad = weight.grad = None
        return out.logp.detach(), out.entropy, *grads

    whole = run()
    monkeypatch.setattr(head, "CHUNK", VOCAB * 10)
    for a, b in zip(whole, run(), strict=True):
        assert torch.allclose(a, b, atol=1e-5)
    naive = torch.distributions.Categorical(logits=hidden @ weight.T)
    assert torch.allclose(whole[0], naive.log_prob(targets), atol=1e-5)
    assert torch.allclose(whole[1], naive.entropy(), atol=1e-4)
    assert over_rows(lambda logits: (logits.sum(-1),), hidden, Head(weight))[0].shape == (37,)


@pytest.mark.parametrize("learns", [True, False], ids=["learns", "frozen"])
@pytest.mark.parametrize("made", [{}, {"bias": True}, {"scale": 0.3}, {"cap": 3.0, "scale": 1.7, "bias": True}])
def test_log_probabilities_and_their_gradient_are_those_of_the_whole_softmax(monkeypatch, made, learns):
    monkeypatch.setattr("trainers.head.CHUNK", VOCAB * 10)
    generator = torch.Generator().manual_seed(1)
    draw = partial(torch.randn, generator=generator, dtype=torch.float64)
    hidden, weight = draw(37, 8).requires_grad_(), draw(VOCAB, 8).requires_grad_(learns)
    bias = draw(VOCAB).requires_grad_(learns) if made.get("bias") else None
    head = Head(weight, **{**made, "bias": bias})
    ids, pull = torch.randint(VOCAB, (37, 5), generator=generator), draw(37, 5)
    learnt = [hidden, *([weight] if learns else []), *([bias] if learns and bias is not None else [])]

    whole = head.scale * (hidden @ weight.T + (0 if bias is None else bias))
    naive = (head.cap * (whole / head.cap).tanh() if head.cap else whole).log_softmax(-1)
    logp, entropy = log_probs(hidden, head, ids)
    assert torch.allclose(logp.double(), naive.gather(1, ids), atol=1e-5)
    assert torch.allclose(entropy.double(), -(naive.exp() * naive).sum(-1), atol=1e-4)

    def gradient(of):
        return torch.autograd.grad((of.sin() * pull).sum(), learnt, retain_graph=True)  # no linear function of them

    for one, other in zip(gradient(logp), gradient(naive.gather(1, ids)), strict=True):
        assert torch.allclose(one, other, atol=1e-4)


def test_a_frozen_head_is_multiplied_once_forward_and_never_backward(monkeypatch):
    read = []
    real = Head.__call__
    monkeypatch.setattr(Head, "__call__", lambda self, hidden, ids=None: read.append(1) or real(self, hidden, ids))
    monkeypatch.setattr("trainers.head.CHUNK", VOCAB * 10)
    hidden = torch.randn(30, 8, requires_grad=True)
    log_probs(hidden, Head(torch.randn(VOCAB, 8)), torch.zeros(30, 1, dtype=torch.long))[0].sum().backward()
    assert len(read) == 3


def test_parity_is_checked_and_a_broken_mask_is_noticed(policy, monkeypatch, caplog):
    assert parity_gap(policy.float()) < 1e-4
    broken_masks(monkeypatch)
    assert not wrap(tiny_model(VOCAB, hidden=64, layers=2)).shares
    assert "slower" in caplog.text


def test_in_few_bits_parity_is_of_what_a_model_would_say(monkeypatch):
    """A real model is sure: of tokens that never come, two right ways in bfloat16 differ by any log-probability."""
    lm = tiny_model(VOCAB, hidden=64, layers=2)
    with torch.no_grad():
        lm.get_input_embeddings().weight.mul_(4)  # the head's, too
    policy = wrap(lm.bfloat16())
    assert policy.shares
    assert parity_gap(policy) < 0.1
    broken_masks(monkeypatch)
    assert not wrap(lm).shares


def broken_masks(monkeypatch):
    """Everything sees everything of its block, and what comes after it."""
    broken = lambda self: torch.zeros(self.end - self.start, sum(b - a for a, b in self.spans) + self.end - self.start)  # noqa: E731
    monkeypatch.setattr(layout.Block, "mask", property(broken))
    monkeypatch.setattr(layout.Block, "causal", False)


def test_a_sliding_window_model_falls_back_and_still_answers():
    from transformers import Qwen3Config, Qwen3ForCausalLM

    config = Qwen3Config(vocab_size=VOCAB, hidden_size=32, intermediate_size=64, num_hidden_layers=2, head_dim=16,
                         num_attention_heads=2, num_key_value_heads=1, use_sliding_window=True, sliding_window=8,
                         max_window_layers=1)  # fmt: skip
    lm = Qwen3ForCausalLM(config).eval()
    policy = wrap(lm)
    assert not policy.shares
    items = [Item(list(range(20)), [[1, 2, 3], [4]])]
    out = policy(policy.pack(items), lambda hidden, head: head(hidden))
    stock = lm(input_ids=torch.tensor([[*range(20), 1, 2]])).logits[0, 19:]
    assert torch.allclose(out[:3], stock, atol=1e-5)
    assert len(generate(policy, [[1, 2, 3]], end=0, limit=4, copies=2)[0]) == 2


@given(trees())
@settings(max_examples=5, deadline=None)
def test_shared_rollouts_are_those_of_a_plain_forward(policy, items):
    policy.float()
    prompts = [item.prompt for item in items]
    found = generate(policy, prompts, end=0, limit=6, temperature=0)
    for prompt, [completion] in zip(prompts, found, strict=True):
        ids = list(prompt)
        for token in completion:
            ids_in = [Item(ids, [[0]])]
            logits = policy(repeated(ids_in), lambda hidden, head: head(hidden))[0]
            assert logits[token] >= logits.max() - 1e-4
            ids.append(token)
        assert completion[-1] == 0 or len(completion) == 6


def test_rollouts_are_drawn_from_the_policy(policy):
    policy.float()
    prompt = [1, 2, 3, 4]
    logits = policy(repeated([Item(prompt, [[0]])]), lambda hidden, head: head(hidden))[0].detach() / 0.5
    drawn = generate(policy, [prompt], end=0, limit=1, copies=20_000, temperature=0.5,
                     generator=torch.Generator().manual_seed(1))  # fmt: skip
    counts = torch.bincount(torch.tensor([c[0] for c in drawn[0]]), minlength=VOCAB) / 20_000
    assert (counts - logits.softmax(-1)).abs().max() < 0.015
    starts = generate(policy, [prompt, prompt], end=0, limit=3, copies=2, starts=[7, 8])
    assert [[c[0] for c in group] for group in starts] == [[7, 7], [8, 8]]
    assert isinstance(policy, Policy)
