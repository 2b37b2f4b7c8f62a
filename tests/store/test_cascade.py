import pytest
from hypothesis import given
from hypothesis import strategies as st

from store.cascade import PEOPLE, Cascade, Tier, read_cascade
from store.errors import PiarError, UsageError
from store.stats import Interval
from store.types import Verdict

SYMBOLS = ("0", "1", "2")
SHARE = Interval(value=0.5)


def tier(judge, threshold, **more):
    return Tier(judge=judge, threshold=threshold, share=SHARE, precision=SHARE, **more)


def cascade(*tiers):
    return Cascade(
        target=0.95, split="dev", rows=9, groups=3, tiers=tiers, people=SHARE, made="2026-11-29T00:00:00+00:00"
    )


def verdict(judge, grade, probs=None, failure=None):
    return Verdict("", "s", judge, "", 0, grade, probs, failure=failure)


numbers = st.floats(0, 1) | st.just(float("nan"))
probs = st.none() | st.tuples(numbers, numbers, numbers)
thresholds = st.none() | st.floats(0.3, 1)


def verdicts(judge):
    return st.builds(verdict, st.just(judge), st.sampled_from([*SYMBOLS, None]), probs, st.sampled_from([None, "auth"]))


@given(
    st.lists(st.tuples(verdicts("student:a"), verdicts("teacher:m")), min_size=1, max_size=8),
    thresholds,
    thresholds,
    st.booleans(),
    st.booleans(),
)
def test_whoever_is_not_sure_enough_never_decides(pairs, low, high, silent, down):
    found = cascade(tier("student:a", low), tier("teacher:m", high, silent=silent))
    firsts, seconds = (list(part) for part in zip(*pairs, strict=True))
    handed = found.handed_on(firsts, SYMBOLS)
    said = "teacher: cannot be asked" if down else [seconds[place] for place in handed]
    out = found.closed(firsts, handed, said, SYMBOLS)
    assert len(out) == len(firsts)
    for place, one in enumerate(out):
        if one.judge == PEOPLE:
            assert (one.grade, one.probs) == (None, None)
            assert one.failure
            continue
        limit = low if one.judge == "student:a" else high
        assert one == (firsts if one.judge == "student:a" else seconds)[place]
        assert limit is not None
        assert one.grade is not None
        assert (one.probs is None and silent) or one.probs[SYMBOLS.index(one.grade)] >= limit - 1e-6
        assert one.judge == "student:a" or (place in handed and not down)


def test_a_row_says_why_nobody_decides_it():
    found = cascade(tier("student:a", 0.9), tier("teacher:m", 0.9))
    unsure, failed = verdict("student:a", "1", (0.3, 0.4, 0.3)), verdict("teacher:m", None, failure="refused")
    cases = {
        "teacher: refused": [failed],
        "teacher: no probabilities": [verdict("teacher:m", "1")],
        "teacher: unsure": [verdict("teacher:m", "1", (0.1, 0.8, 0.1))],
        "teacher: no answer within 3 s": "teacher: no answer within 3 s",
        "student: unsure": "",
    }
    for reason, said in cases.items():
        handed = found.handed_on([unsure], SYMBOLS)
        assert [one.failure for one in found.closed([unsure], handed, said, SYMBOLS)] == [reason]


def test_a_second_judge_that_would_decide_nothing_is_not_asked():
    assert cascade(tier("student:a", 0.9), tier("teacher:m", None)).second is None
    assert cascade(tier("student:a", None)).second is None
    assert cascade(tier("student:a", None), tier("teacher:m", 0.5)).second.judge == "teacher:m"


def test_the_document_comes_back_and_others_are_refused(tmp_path):
    made, path = cascade(tier("student:a", 0.9, fingerprint="f"), tier("teacher:m", None)), tmp_path / "c.json"
    made.save(path)
    assert read_cascade(path) == made
    made.require(0, "f", "student:b")  # moved, and the same
    with pytest.raises(PiarError) as stale:
        made.require(0, "g", "student:b")
    assert "`piar cascade --tiers student:b,teacher --precision 0.95`" in stale.value.fix
    for text in ("{}", "[1]", "nonsense", made.model_dump_json().replace('"format":1', '"format":2')):
        path.write_text(text)
        with pytest.raises(UsageError, match="no cascade that this version can read"):
            read_cascade(path)
    with pytest.raises(UsageError, match="There is no cascade"):
        read_cascade(tmp_path / "none.json")
