"""Splits are whole groups, alike, the same for a seed, and never move."""

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from store.db import Store
from store.importers import ImportMapping, import_table
from store.splits import SplitSettings, assign, near_duplicates, normal_form, with_forms
from store.tables import numbered
from store.task import Task

SHARES = SplitSettings()
TASK = Task.model_validate(
    {
        "name": "t",
        "group_by": "query",
        "fields": ["query", "title"],
        "grades": [{"symbol": str(i), "value": i} for i in range(4)],
    }
)


def groups(n, rows=None):
    frame = pl.DataFrame({"group": [f"group {i}" for i in range(n)], "value": [i % 7 / 2 for i in range(n)]})
    return with_forms(frame.with_columns(rows=pl.Series(rows or [1 + i % 13 for i in range(n)], dtype=pl.Int64)))


@given(st.integers(1, 300), st.integers(0, 5))
@settings(max_examples=30, deadline=None)
def test_shares_are_met_and_row_order_does_not_matter(n, seed):
    frame = groups(n)
    dealt = assign(frame, SHARES, seed)
    assert sorted(dealt["group"]) == sorted(frame["group"])
    assert dealt.equals(assign(frame.sample(fraction=1, shuffle=True, seed=seed), SHARES, seed))
    counts = dict(dealt["split"].value_counts().rows())
    for split, share in SHARES.shares.items():
        assert abs(counts.get(split, 0) - share * n) <= 2  # only the last, incomplete block is off


def test_splits_are_alike_in_grades_and_size():
    frame = groups(400, rows=[1 + (i * i) % 97 for i in range(400)])
    joined = assign(frame, SHARES, 1).join(frame, on="group")
    for (split,), part in joined.group_by("split"):
        assert part["rows"].sum() / frame["rows"].sum() == pytest.approx(SHARES.shares[split], abs=0.02)
        assert part["value"].mean() == pytest.approx(frame["value"].mean(), abs=0.1)


def test_another_seed_is_another_deal_and_shares_can_be_set():
    frame = groups(100)
    assert not assign(frame, SHARES, 1).equals(assign(frame, SHARES, 2))
    only = assign(frame, SplitSettings(train=0, dev=0, holdout=0, test=1), 1)
    assert set(only["split"]) == {"test"}
    with pytest.raises(ValidationError, match="shares sum to"):
        SplitSettings(train=0.9)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("USB cables", "cable USB"),
        ("Caméra!", "camera"),
        ("tv  stand", "TV-stand"),
        ("Straße 5", "5 straße"),
        ("canvas bag", "can\u200bvas bag"),
        ("\u200fحذاء", "حذاء"),
        ("soft\u00adware", "software"),
        ("7", "7.0"),
        ("007", "7"),
    ],
)
def test_spelling_does_not_count(one, other):
    assert normal_form(one) == normal_form(other)


@pytest.mark.parametrize(
    ("one", "other"), [("glass", "glas"), ("iphone 5", "iphone 6"), ("?!", "!?"), ("bus", "bu"), ("7", "70")]
)
def test_words_and_numbers_do(one, other):
    assert normal_form(one) != normal_form(other)


def test_groups_that_differ_in_spelling_are_dealt_as_one():
    frame = pl.concat(
        [groups(200), with_forms(groups(200).drop("form").with_columns(pl.col("group").str.to_uppercase()))]
    )
    split = dict(assign(frame, SHARES, 3).rows())
    assert all(split[f"group {i}"] == split[f"GROUP {i}"] for i in range(200))


def test_pairs_across_splits_are_found():
    frame = with_forms(pl.DataFrame({"group": ["a b", "B a", "c", "C"], "split": ["train", "test", "dev", "dev"]}))
    assert near_duplicates(frame).rows() == [("B a", "test", "a b", "train", 1)]


def load(store, names, **more):
    frame = pl.DataFrame({"query": names, "title": [f"title {n}" for n in names], "grade": ["1"] * len(names)})
    return import_table(store, numbered(frame), ImportMapping(gold="grade", **more), "file", "run", seed=5)


@given(st.lists(st.lists(st.integers(0, 60), min_size=1, max_size=30), min_size=1, max_size=4))
@settings(max_examples=8, deadline=None)
def test_arriving_groups_are_dealt_and_known_ones_never_move(tmp_path_factory, batches):
    store = Store.create(tmp_path_factory.mktemp("s") / "piar.duckdb", TASK)
    seen: dict[str, str] = {}
    for batch in batches:
        report = load(store, [f"query {i}" for i in batch])
        assert report.rejected == []
        now = store.frame("select group_key, string_agg(distinct split, ',') from samples group by 1").rows()
        assert all("," not in split for _, split in now)
        assert seen.items() <= dict(now).items()
        seen = dict(now)


def test_groups_named_by_ids_go_together_where_they_ask_the_same(tmp_path):
    store = Store.create(tmp_path / "piar.duckdb", TASK.model_copy(update={"group_by": "qid"}))
    for ids in ([f"a{i}" for i in range(20)], [f"b{19 - i}" for i in range(20)]):
        queries = [f"lamp{'s' * (name[0] == 'b')} {name[1:]}" for name in ids]
        frame = pl.DataFrame({"qid": ids, "query": queries, "title": ids, "grade": ["1"] * 20})
        import_table(store, numbered(frame), ImportMapping(gold="grade"), ids[0], "run")
    where = dict(store.frame("select group_key, split from samples").rows())
    assert len(set(where.values())) > 2
    assert all(where[f"a{i}"] == where[f"b{i}"] for i in range(20))


def test_a_late_group_goes_where_its_double_is_and_a_leak_that_was_said_is_reported(tmp_path):
    store = Store.create(tmp_path / "piar.duckdb", TASK)
    load(store, [f"lamp {i}" for i in range(20)])
    assert load(store, [f"Lamps: {i}" for i in range(20)]).near_duplicates == []
    where = dict(store.frame("select group_key, split from samples").rows())
    assert all(where[f"lamp {i}"] == where[f"Lamps: {i}"] for i in range(20))
    other = "test" if where["lamp 0"] != "test" else "train"
    frame = pl.DataFrame({"query": ["LAMP 0"], "title": ["x"], "grade": ["1"], "split": [other]})
    report = import_table(store, numbered(frame), ImportMapping(gold="grade", split="split"), "said", "run")
    assert ("LAMP 0", "lamp 0") in report.near_duplicates
