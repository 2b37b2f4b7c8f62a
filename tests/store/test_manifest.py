"""The shard contract: mixtures over time, and folders that are refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from store.errors import PiarError
from store.manifest import DEFAULT_STAGES, Schedule, Stage, mixture_at, read_manifest
from store.types import BUCKETS

ROWS = {"easy": 700, "mid": 200, "hard": 80, "suspect": 20}
schedules = st.builds(
    Schedule,
    kind=st.sampled_from(["stages", "gaussian", "natural", "shuffled"]),
    sigma=st.floats(0.1, 3),
    natural_tail=st.floats(0, 1),
)
counts = st.dictionaries(st.sampled_from(BUCKETS), st.integers(0, 1000), min_size=1)


def test_gaussian_moves_from_easy_to_suspect_as_published():
    schedule = Schedule(kind="gaussian", natural_tail=0.0)
    start, end = mixture_at(schedule, 0.0, ROWS), mixture_at(schedule, 0.999999, ROWS)
    assert [round(start[b], 2) for b in BUCKETS] == [0.63, 0.17, 0.10, 0.10]
    assert [round(end[b], 2) for b in BUCKETS] == [0.10, 0.10, 0.17, 0.63]


def test_stages_follow_each_other_and_end_on_the_natural_mixture():
    at = [mixture_at(Schedule(), t, ROWS) for t in (0.0, 0.31, 0.61, 0.91)]
    assert at[0] == pytest.approx({"easy": 0.2, "mid": 0.8, "hard": 0, "suspect": 0})
    assert at[1] == pytest.approx({"easy": 0, "mid": 0.5, "hard": 0.5, "suspect": 0})
    assert at[2] == pytest.approx(DEFAULT_STAGES[2].mixture)
    assert at[3] == pytest.approx({b: n / 1000 for b, n in ROWS.items()})


@given(schedules, st.floats(0, 1), counts)
def test_a_mixture_is_a_distribution_over_buckets_that_have_rows(schedule, t, rows):
    mixture = mixture_at(schedule, t, rows)
    assert all(rows[bucket] > 0 for bucket in mixture)
    assert sum(mixture.values()) == pytest.approx(1.0 if any(rows.values()) else 0.0)
    assert all(share >= 0 for share in mixture.values())


def test_an_empty_bucket_gives_its_share_to_the_others():
    stage = Stage(name="only", mixture={"hard": 0.5, "mid": 0.5}, share=1)
    schedule = Schedule(stages=(stage,), natural_tail=0)
    assert mixture_at(schedule, 0.5, {"mid": 10, "hard": 0}) == {"mid": 1.0}
    assert mixture_at(schedule, 0.5, {"easy": 10}) == {"easy": 1.0}


@pytest.mark.parametrize("bad", [{"stages": ()}, {"floor": 0.5}, {"natural_tail": 2}, {"sigma": 0}])
def test_a_schedule_that_cannot_be_followed_is_refused(bad):
    with pytest.raises(ValidationError):
        Schedule(**bad)


def test_a_folder_without_manifest_is_refused(tmp_path):
    with pytest.raises(PiarError, match="did not finish"):
        read_manifest(tmp_path)
