"""Slices suggest themselves, and only those in which errors are over-represented by group are told."""

import numpy as np

from piar.evolve.inputs import automatic, by_grade, members, owners
from piar.evolve.inspection import telling_predicates, telling_slices
from piar.evolve.truth import Truth
from store.types import Sample
from tests.worlds import TASK, fill


def test_slices_come_from_the_fields_and_hold_their_rows(tmp_path):
    store, _ = fill(
        tmp_path, [(f"q{i % 4}", f"{'long ' * (i % 3)}title {i if i % 2 else 'x'}", "train", "1") for i in range(40)]
    )
    found = members(store, automatic(store))
    assert {"query is 'q0'", "title with a number"} <= set(found)
    assert any(name.startswith("title of at most") for name in found)
    titles = dict(store.frame("select sample_id::varchar, title from samples").rows())
    assert found["title with a number"] == {i for i, title in titles.items() if any(c.isdigit() for c in title)}
    assert set(members(store, owners(store))) == set(TASK.slices)


def test_a_text_from_the_data_is_never_sql(tmp_path):
    store, _ = fill(tmp_path, [("'; drop table samples; --", f"t{i}", "train", "1") for i in range(9)])
    found = members(store, automatic(store))
    assert all(isinstance(ids, frozenset) for ids in found.values())
    assert store.frame("select count(*) from samples").item() == 9


def test_a_slice_for_each_true_grade():
    assert by_grade({"a": Truth("0"), "b": Truth("2"), "c": Truth("0")}) == {
        "grade 0": frozenset("ac"), "grade 2": frozenset("b")
    }  # fmt: skip


def world(seed=0, groups=40, size=8):
    rng = np.random.default_rng(seed)
    samples, wrong = [], []
    for g in range(groups):
        for n in range(size):
            spare = rng.random() < 0.3
            title = f"{'spare' if spare else 'whole'} part {g} {n}"
            samples.append(Sample(f"{g}/{n}", f"g{g}", {"query": f"thing {g}", "title": title}))
            wrong.append(bool(rng.random() < (0.8 if spare else 0.15)))
    return samples, wrong


def test_what_errors_share_is_told_and_what_they_do_not_is_not():
    samples, wrong = world()
    spare = frozenset(s.id for s in samples if "spare" in s.fields["title"])
    odd = frozenset(s.id for s in samples if s.id.endswith(("1", "3", "5", "7")))
    (told,) = telling_slices(samples, wrong, {"spare": spare, "odd": odd})
    assert told.what == "spare"
    assert told.errors == sum(w for s, w in zip(samples, wrong, strict=True) if s.id in spare)
    learned = telling_predicates(samples, wrong)
    assert '"spare"' in learned[0].what
    assert telling_predicates(samples, [False] * len(samples)) == []


def test_errors_of_one_group_alone_tell_nothing():
    samples, _ = world()
    wrong = [s.group == "g3" for s in samples]
    assert telling_slices(samples, wrong, {"g3": frozenset(s.id for s in samples if s.group in ("g3", "g4"))}) == []
