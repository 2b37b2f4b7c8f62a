"""Every loss against a naive version, and the claims that the method rests on."""

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.proper_reward import LOSSES, measured
from store.trace import write_trace
from store.types import Rule, Trace
from tests.shards_fixture import RULES, TASK
from trainers import losses
from trainers.rewards import GRADE_REWARDS, Case, case, format_reward, judge, trace_rewards

RULEBOOK = {r.id: Rule(r.id, r.text, r.grade) for r in RULES}
GOOD = Trace("2", ("red lamp",), {"kind": "yes"}, ("R03",), "2")
ROW = {"fields": ["red lamp", "a Red LAMP, tall"], "grade": "2", "evidence": ["red lamp"], "steps": ["yes"],
       "rules": ["R03"]}  # fmt: skip


# --- the grade's gradient ------------------------------------------------------------------------


def naive_reward(name, p, gold):
    """One row, in plain Python."""
    k = len(p)
    drawn = {"exact": lambda g: 1.0 if g == gold else -1.0, "ordinal": lambda g: 1 - 2 * abs(g - gold) / (k - 1)}
    if name in drawn:
        return sum(p[g] * drawn[name](g) for g in range(k))
    if name == "brier":
        return 1 - sum((p[g] - (g == gold)) ** 2 for g in range(k))
    return 1 - 2 * sum((sum(p[: j + 1]) - (j >= gold)) ** 2 for j in range(k - 1)) / (k - 1)


def softmax(logits):
    e = [math.exp(x - max(logits)) for x in logits]
    return [x / sum(e) for x in e]


@pytest.mark.parametrize("bf16", [False, True])
@pytest.mark.parametrize("name", GRADE_REWARDS)
@given(st.lists(st.floats(-6, 6), min_size=2, max_size=6), st.data())
@settings(max_examples=25, deadline=None)
def test_what_grades_earn_and_its_gradient_are_the_naive_ones_in_both_precisions(name, bf16, logits, data):
    gold, step = data.draw(st.integers(0, len(logits) - 1)), 1e-5
    given_ = torch.tensor([logits], requires_grad=True)
    with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
        found = GRADE_REWARDS[name](given_.log_softmax(-1).softmax(-1), torch.tensor([gold]))
    found.sum().backward()
    assert found.item() == pytest.approx(naive_reward(name, softmax(logits), gold), abs=1e-5)
    for k in range(len(logits)):
        up, down = ([x + s * (i == k) for i, x in enumerate(logits)] for s in (step, -step))
        slope = (naive_reward(name, softmax(up), gold) - naive_reward(name, softmax(down), gold)) / (2 * step)
        assert given_.grad[0, k].item() == pytest.approx(slope, abs=2e-5)


def test_the_exact_gradient_is_what_a_million_drawn_grades_estimate():
    torch.manual_seed(0)
    logits = torch.randn(1, 4, requires_grad=True)
    GRADE_REWARDS["ordinal"](logits.softmax(-1), torch.tensor([2])).sum().backward()
    p = logits.detach().softmax(-1)[0]
    drawn = torch.multinomial(p, 1_000_000, replacement=True)
    earned = torch.tensor([-1 / 3, 1 / 3, 1.0, 1 / 3])[drawn]
    score = earned[:, None] * (torch.eye(4)[drawn] - p)  # reward times the gradient of log p of each draw
    assert ((logits.grad[0] - score.mean(0)).abs() < 5 * score.std(0) / 1000 + 1e-6).all()


@pytest.mark.parametrize(("proper", "strict"), [("brier", "exact"), ("rps", "ordinal")])
def test_proper_rewards_are_the_strict_ones_at_full_confidence_and_best_at_the_truth(proper, strict):
    sure, gold = torch.eye(5).repeat_interleave(5, 0), torch.arange(5).repeat(5)
    assert torch.allclose(GRADE_REWARDS[proper](sure, gold), GRADE_REWARDS[strict](sure, gold), atol=1e-6)
    truth = torch.tensor([0.05, 0.15, 0.5, 0.2, 0.1])

    def earned(name, p):  # where each grade is true as often as `truth` says
        return (truth * GRADE_REWARDS[name](p.expand(5, 5), torch.arange(5))).sum(-1)

    torch.manual_seed(0)
    others = torch.rand(200, 5) + 0.01
    others = others / others.sum(1, keepdim=True)
    assert all(earned(proper, truth) > earned(proper, p) for p in [*others, *torch.eye(5)])
    assert earned(strict, torch.eye(5)[2]) > earned(strict, truth)  # the strict one wants all on the likeliest grade


@pytest.mark.parametrize(("proper", "strict"), [("brier", "exact"), ("rps", "ordinal")])
def test_where_grades_are_noisy_the_strict_reward_grows_too_sure_and_the_proper_one_does_not(proper, strict):
    (right, gap), (strict_right, strict_gap) = (measured(1, LOSSES[name]) for name in (proper, strict))
    assert gap < 0.1 < 0.15 < strict_gap
    assert right > strict_right - 0.02


# --- credit --------------------------------------------------------------------------------------


def naive_advantages(rewards, group, credit):
    m, s = rewards.shape
    out = torch.zeros(m, s)
    value = rewards.clone()
    if credit == "outcome":
        for i, row in enumerate(rewards):
            value[i] = row[~row.isnan()].mean() if (~row.isnan()).any() else 0.0
    for i in range(m):
        for j in range(s):
            peers = [value[k, j] for k in range(m) if group[k] == group[i] and not value[k, j].isnan()]
            if rewards[i, j].isnan() or not peers:
                continue
            peers = torch.stack(peers)
            spread = peers.std(correction=0)
            if spread >= 1e-6:
                out[i, j] = ((value[i, j] - peers.mean()) / (spread + 1e-4)).clamp(-2, 2)
    return out


values = st.sampled_from([0.0, 1.0, math.nan])


@given(st.lists(st.tuples(values, values, values), min_size=1, max_size=10), st.data(),
       st.sampled_from(["local", "outcome"]))  # fmt: skip
@settings(max_examples=150, deadline=None)
def test_advantages_are_what_the_naive_version_says(rows, data, credit):
    rewards = torch.tensor(rows)
    group = torch.tensor([data.draw(st.integers(0, 2)) for _ in rows])
    found = losses.advantages(rewards, group, credit=credit)
    assert torch.allclose(found, naive_advantages(rewards, group, credit), atol=1e-4)
    assert found.isfinite().all()


@pytest.mark.parametrize("credit", ["local", "outcome"])
def test_equal_groups_nan_rewards_and_lone_rollouts_have_no_advantage(credit):
    equal = torch.tensor([[1.0, math.nan], [1.0, math.nan], [0.0, math.nan]])
    found = losses.advantages(equal, torch.tensor([0, 0, 1]), credit=credit)
    assert torch.equal(found, torch.zeros(3, 2))


# --- the policy loss -----------------------------------------------------------------------------


@given(st.integers(0, 10_000))
@settings(max_examples=40, deadline=None)
def test_the_segment_loss_is_what_the_naive_version_says(seed):
    generator = torch.Generator().manual_seed(seed)
    m, s, n = 3, 4, 30
    logp, old = (torch.randn(n, generator=generator) * 0.4 for _ in range(2))
    a, w = torch.randn(m, s, generator=generator), torch.rand(m, s, generator=generator)
    owner, segment = torch.randint(m, (n,), generator=generator), torch.randint(s, (n,), generator=generator)
    found, clipped = losses.segment_loss(logp, old, a, w, owner, segment, clip_low=0.2, clip_high=0.28)
    cut = 0
    for i in range(m):
        total = 0.0
        for j in range(s):
            tokens = [t for t in range(n) if owner[t] == i and segment[t] == j]
            terms = []
            for t in tokens:
                ratio = math.exp(logp[t] - old[t])
                low = min(max(ratio, 0.8), 1.28)
                terms.append(-min(ratio * a[i, j].item(), low * a[i, j].item()))
                cut += ratio * a[i, j] > low * a[i, j]
            total += w[i, j].item() * (sum(terms) / len(terms) if terms else 0.0)
        assert found[i].item() == pytest.approx(total, abs=1e-5)
    assert clipped.item() == pytest.approx(float(cut) / n)


def test_on_policy_the_gradient_is_the_plain_policy_gradient():
    logp = torch.tensor([-1.0, -2.0], requires_grad=True)
    a = torch.tensor([[1.5]])
    losses.segment_loss(logp, logp.detach(), a, torch.ones(1, 1), torch.tensor([0, 0]), torch.tensor([0, 0]),
                        clip_low=0.2, clip_high=0.28)[0].sum().backward()  # fmt: skip
    assert logp.grad.tolist() == pytest.approx([-0.75, -0.75])


def test_the_kl_estimate_is_unbiased_and_never_negative():
    torch.manual_seed(0)
    p, q = torch.randn(5).log_softmax(0), torch.randn(5).log_softmax(0)
    drawn = torch.multinomial(p.exp(), 400_000, replacement=True)
    found = losses.kl_estimate(p[drawn], q[drawn])
    assert (found >= -1e-6).all()
    assert found.mean().item() == pytest.approx((p.exp() * (p - q)).sum().item(), rel=0.02)


# --- distillation --------------------------------------------------------------------------------


@given(st.integers(0, 10_000), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_the_divergence_is_what_the_naive_version_says(seed, beta):
    generator = torch.Generator().manual_seed(seed)
    s, t = (torch.randn(6, generator=generator).log_softmax(0) for _ in range(2))
    ps, pt = s.exp(), t.exp()
    if beta == 0:
        naive = (pt * (t - s)).sum()
    elif beta == 1:
        naive = (ps * (s - t)).sum()
    else:
        mix = beta * pt + (1 - beta) * ps
        naive = beta * (pt * (t - mix.log())).sum() + (1 - beta) * (ps * (s - mix.log())).sum()
    assert losses.generalised_jsd(s, t, beta).item() == pytest.approx(naive.item(), abs=1e-5)


@pytest.mark.parametrize("beta", [0.0, 0.5, 1.0])
def test_a_teacher_whose_numbers_end_is_not_taken_for_one_that_agrees(beta):
    student, teacher = torch.tensor([0.5, 0.5]).log(), torch.tensor([1.0, 0.0]).log()
    assert losses.generalised_jsd(student, teacher, beta).isfinite()
    assert losses.generalised_jsd(student, torch.tensor([math.nan, math.nan]), beta).isnan()


def test_top_k_and_tail_sum_to_one_and_all_tokens_give_the_full_divergence():
    torch.manual_seed(0)
    t, s = torch.randn(2, 20).log_softmax(-1), torch.randn(2, 20).log_softmax(-1)
    ids = t.topk(20).indices
    assert torch.allclose(losses.with_tail(t.gather(-1, ids[:, :5])).exp().sum(-1), torch.ones(2), atol=1e-6)
    whole = losses.generalised_jsd(s, t, 0.5)
    assert torch.allclose(
        losses.generalised_jsd(losses.with_tail(s.gather(-1, ids)), losses.with_tail(t.gather(-1, ids)), 0.5),
        whole,
        atol=1e-5,
    )
    coarse = losses.generalised_jsd(
        losses.with_tail(s.gather(-1, ids[:, :5])), losses.with_tail(t.gather(-1, ids[:, :5])), 0.5
    )
    assert (coarse <= whole + 1e-6).all()  # merging outcomes can only lose divergence


# --- rewards -------------------------------------------------------------------------------------


def judged(trace=GOOD, row=ROW, *, text=None, ended=True):
    written = text if text is not None else write_trace(trace, TASK)
    return judge(case(written, ended, row, TASK, RULEBOOK), TASK)


def changed(**values):
    return replace(GOOD, **values)


def test_a_perfect_trace_earns_everything():
    assert judged() == {"evidence": 1, "kind": 1, "rules": 1, "verdict": 1, "format": 1}
    assert list(trace_rewards(TASK)) == ["evidence", "kind", "rules", "verdict", "format"]


@pytest.mark.parametrize(
    ("trace", "loses"),
    [
        (changed(evidence=("blue lamp",)), "evidence"),
        (changed(evidence=("lamp",)), "evidence"),  # verbatim, but a single word
        (changed(evidence=("red la",)), "evidence"),  # part of a word
        (changed(evidence=("red lamp", "tall blue")), "evidence"),
        (changed(evidence=(), rules=()), "evidence"),  # no spans and no rules must not earn full marks
        (changed(rules=("R02",)), "rules"),
        (changed(rules=("R03", "R02")), "rules"),
        (changed(steps={"kind": "no"}), "kind"),
        (changed(verdict="1"), "verdict"),
    ],
)
def test_each_reward_is_strict(trace, loses):
    assert judged(trace)[loses] == 0
    assert judged(trace)["format"] == 1


def test_spans_are_compared_ignoring_case_and_punctuation():
    assert judged(changed(evidence=("A red, lamp",)))["evidence"] == 1


def test_without_reference_one_existing_rule_that_admits_the_grade_is_due():
    free = {**ROW, "rules": None}
    assert judged(row=free)["rules"] == 1
    assert judged(changed(rules=("R01",)), free)["rules"] == 0  # admits another grade
    assert judged(changed(rules=("R99",)), free)["rules"] == 0
    assert judged(changed(rules=()), free)["rules"] == 0
    none = judge(case(write_trace(GOOD, TASK), True, free, TASK, {}), TASK)
    assert none["rules"] is None  # no rulebook, nothing to check


def test_an_unknown_step_is_masked():
    assert judged(row={**ROW, "steps": [None]})["kind"] is None
    assert judged(row={**ROW, "steps": None})["kind"] is None


@pytest.mark.parametrize("text", ["", "2", "2\nevidence:", write_trace(GOOD, TASK) + "\nmore", "Sure!\n2", "\x00" * 50])
def test_what_does_not_follow_the_grammar_earns_nothing(text):
    assert all(not value for value in judged(text=text).values())


@given(st.text(max_size=80))
@settings(max_examples=60, deadline=None)
def test_no_text_breaks_a_reward(text):
    assert isinstance(format_reward(case(text, True, ROW, TASK, RULEBOOK)), float)
    assert set(judged(text=text)) == set(trace_rewards(TASK))
    assert isinstance(case(text, True, ROW, TASK, RULEBOOK), Case)


def test_an_answer_cut_off_at_the_limit_has_no_format():
    assert judged(ended=False)["format"] == 0
