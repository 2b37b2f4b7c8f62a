from datetime import UTC, datetime
from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from piar.llm.openai.pacing import OUTAGE_STREAK, PAUSE_MOST, Allowance, Pacer, duration, retry_after


def run_round(pacer, now, outcome):
    """One round: fill the slots at `now`, then let `outcome(pacer, now)` say how each ended."""
    started = 0
    while pacer.wait(now, 10) == 0:
        pacer.started(now, 10)
        started += 1
    for _ in range(started):
        pacer.ended(10)
        outcome(pacer, now + 1)
    return started


def ok(pacer, now):
    pacer.succeeded(now, now - 1)


def test_doubles_until_congestion_then_grows_by_one_slot_a_round():
    pacer = Pacer(most=1000)
    assert [run_round(pacer, t, ok) for t in range(4)] == [16, 32, 64, 128]
    pacer.limited(10, started_at=9, retry_after=0)
    assert pacer.limit == 128
    sizes = [run_round(pacer, 20 + t, ok) for t in range(4)]
    assert sizes == [128, 128, 129, 130]


def test_a_storm_of_429_halves_once_a_round_and_honours_retry_after():
    pacer = Pacer(most=64, limit=64)
    for _ in range(64):
        pacer.limited(1.0, started_at=0.0, retry_after=7.0)
    assert pacer.limit == 32
    assert pacer.wait(1.0, 1) == pytest.approx(7.0)
    assert pacer.wait(8.0, 1) == 0


def test_without_retry_after_pauses_grow_until_something_succeeds():
    pacer, pauses, now = Pacer(most=8), [], 0.0
    for _ in range(9):
        pacer.limited(now + 0.1, started_at=now, retry_after=None)
        pauses.append(pacer.wait(now + 0.1, 1))
        now += 100
    assert pauses[:4] == pytest.approx([0.5, 1, 2, 4])
    assert pauses[-1] == PAUSE_MOST
    pacer.succeeded(now, now - 3)
    pacer.limited(now + 0.1, started_at=now, retry_after=None)
    assert pacer.wait(now + 0.1, 1) == pytest.approx(0.5)


def test_where_answers_are_quick_a_429_holds_everyone_back_for_one_answers_time_only():
    pacer, pauses = Pacer(most=8), []
    pacer.succeeded(1.0, started_at=0.98)
    for now in (2.0, 3.0, 4.0):
        pacer.limited(now + 0.01, started_at=now, retry_after=None)
        pauses.append(pacer.wait(now + 0.01, 1))
    assert pauses == pytest.approx([0.02, 0.04, 0.08])


def test_rare_failures_hardly_slow_down_but_a_round_of_failures_halves():
    rare, dead = Pacer(most=64, limit=64), Pacer(most=64, limit=64)
    for i in range(2000):
        (rare.failed(i, i - 1) if i % 100 == 0 else rare.succeeded(i, i - 1))
    assert rare.limit > 60
    for _ in range(OUTAGE_STREAK - 1):
        dead.failed(0, -1)
    assert dead.limit == 64 - (OUTAGE_STREAK - 1) / 2


def test_an_outage_is_probed_by_one_request_at_a_time_with_growing_pauses():
    pacer, probes, now = Pacer(most=64, limit=64), 0, 0.0
    run_round(pacer, now, lambda p, t: p.failed(t, 0.0))
    assert pacer.limit == 1
    while now < 60:
        if pacer.wait(now, 10) == 0:
            probes += run_round(pacer, now, lambda p, t: p.failed(t, t - 1))
        now += 0.25
    assert 4 <= probes <= 9
    while pacer.wait(now, 10) > 0:
        now += 1
    assert [run_round(pacer, now + t, ok) for t in range(5)] == [1, 2, 4, 8, 16]


def test_keeps_to_the_allowances_that_the_endpoint_tells():
    pacer = Pacer(most=64, limit=64)
    pacer.told(
        0.0,
        {
            "x-ratelimit-limit-requests": "60",
            "x-ratelimit-remaining-requests": "2",
            "x-ratelimit-reset-requests": "58s",
            "x-ratelimit-limit-tokens": "6000",
            "x-ratelimit-remaining-tokens": "1000",
        },
    )
    assert pacer.wait(0.0, 1000) == 0
    pacer.started(0.0, 1000)
    assert pacer.wait(0.0, 500) == pytest.approx(5.0)  # 100 tokens a second
    assert pacer.wait(0.0, 0) == 0
    pacer.started(0.0, 0)
    assert pacer.wait(0.0, 0) == pytest.approx(1.0)  # one request a second


def test_what_is_already_on_its_way_counts_against_what_remains():
    pacer = Pacer(most=64, limit=64)
    for _ in range(4):
        pacer.started(0.0, 0)
    pacer.told(0.0, {"x-ratelimit-limit-requests": "60", "x-ratelimit-remaining-requests": "4"})
    assert pacer.wait(0.0, 0) == pytest.approx(1.0)


def test_a_request_larger_than_the_window_waits_for_a_full_one_only():
    allowance = Allowance()
    allowance.told(0.0, limit=100, remaining=0, reset=None, on_the_way=0)
    assert allowance.wait(0.0, 1e9) == pytest.approx(60)


@given(
    st.lists(
        st.tuples(st.sampled_from(["start", "ok", "limited", "failed", "told"]), st.floats(0, 5), st.integers(0, 500)),
        max_size=200,
    )
)
def test_whatever_happens_limits_hold_and_waiting_ends(events):
    pacer, now, open_requests = Pacer(most=8), 0.0, []
    for what, gap, tokens in events:
        now += gap
        if what == "start":
            if pacer.wait(now, tokens) == 0:
                pacer.started(now, tokens)
                open_requests.append((now, tokens))
        elif what == "told":
            pacer.told(now, {"x-ratelimit-limit-tokens": "1000", "x-ratelimit-remaining-tokens": str(tokens)})
        elif open_requests:
            began, used = open_requests.pop()
            pacer.ended(used)
            if what == "ok":
                pacer.succeeded(now, began)
            else:
                getattr(pacer, what)(now, began, None)
        assert pacer.in_flight == len(open_requests) <= 8
        assert 1 <= pacer.limit <= 8
    for _, used in open_requests:
        pacer.ended(used)
    wait = pacer.wait(now, 100)
    assert wait < inf
    assert pacer.wait(now + wait + 1e-6, 100) <= 1e-6


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("20ms", 0.02), ("6m0s", 360), ("1h2m", 3720), ("1.5", 1.5), ("", None), ("soon", None), ("nan", None)],
)
def test_durations(text, seconds):
    assert duration(text) == (None if seconds is None else pytest.approx(seconds))


def test_retry_after_in_its_three_spellings():
    now = datetime(2026, 1, 1, 12, 0, 0, tzinfo=UTC)
    assert retry_after({"retry-after": "3"}, now) == 3
    assert retry_after({"retry-after-ms": "250", "retry-after": "3"}, now) == 0.25
    assert retry_after({"retry-after": "Thu, 01 Jan 2026 12:00:05 GMT"}, now) == 5
    assert retry_after({"retry-after": "Thu, 01 Jan 2026 11:00:00 GMT"}, now) == 0
    assert retry_after({"retry-after": "later"}, now) is None
    assert retry_after({}, now) is None
