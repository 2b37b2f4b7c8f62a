from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from benchmarks.judging import judge, session
from piar.judging.labeller import Labeller
from piar.judging.requests import Assignment
from piar.judging.settings import LabelSettings
from piar.judging.trust import tallies
from piar.judging.votes import count, rounds, sure_enough
from piar.llm.cost import Budget
from store.judges import Judge
from store.types import Failure, Verdict
from tests.judging.test_label import INSTRUCTION, Scripted, place, samples  # noqa: F401


class Wavering(Scripted):
    """Sure of even samples; of every third it says now this, now that; of the others always 0, and not how surely."""

    def one(self, request, on_completion):
        done = super().one(request, None)
        number = int(request.messages[-1].content.split('"t')[-1].split('"')[0])
        if done.failure is None and number % 2 == 0:
            done = replace(done, text="1", probs={"0": 0.02, "1": 0.98})
        elif done.failure is None:
            done = replace(done, text=str(request.seed % 2) if number % 3 == 0 else "0", probs=None)
        on_completion(done)
        return done


def wanted(number):
    return 1 if number % 2 == 0 else 5 if number % 3 == 0 else 3


def test_more_is_asked_only_while_unsure(place):  # noqa: F811
    store, journal = place
    client, seen, shown = Wavering(), [], []
    with Labeller(
        session(store, client, journal, settings=LabelSettings(chunk=5), on_progress=shown.append)
    ) as labeller:
        report = labeller.judge([Assignment(INSTRUCTION, samples(12), votes=5, sure=0.9)], seen.append)
    asked = {s.id: sum(v.sample_id == s.id for v in seen) for s in samples(12)}
    assert list(asked.values()) == [wanted(i) for i in range(12)]
    assert (len(client.asked), report.asked, report.unsure) == (sum(asked.values()), sum(asked.values()), 2)
    assert client.batches[:3] == [
        5,
        4,
        2,
    ]  # a chunk of five samples: all, then the unsure ones, then those still unsure
    assert (shown[-1].done, shown[-1].total) == (sum(asked.values()), sum(asked.values()))
    again = judge(store, client, INSTRUCTION, samples(12), journal=journal, votes=5, sure=0.9)
    assert (again.asked, again.cached, again.unsure) == (0, sum(asked.values()), 2)


def test_the_next_round_is_pending_once_the_first_is_known(place):  # noqa: F811
    store, journal = place
    assignment = Assignment(INSTRUCTION, samples(12), votes=5, sure=0.9)
    with Labeller(session(store, Wavering(), journal)) as labeller:
        assert len(list(labeller.agenda.pending([assignment]))) == 12
        assert len(list(labeller.agenda.pending([replace(assignment, sure=None)]))) == 60
        labeller.judge([replace(assignment, votes=1)])
        assert len(list(labeller.agenda.pending([assignment]))) == 2 * 6
        assert len(list(labeller.agenda.requests([assignment]))) == 60


def test_votes_stop_at_the_cap_and_after_failures(place):  # noqa: F811
    store, journal = place
    report = judge(
        store, Wavering(), INSTRUCTION, samples(12), journal=journal, votes=5, sure=0.9, budget=Budget(max_calls=14)
    )
    assert (report.asked, report.failed["budget"]) == (14, 2 * 6 - 2)
    broken = Wavering(lambda fields: Failure("timeout", "slow") if fields["title"] == "t13" else "1")
    report = judge(store, broken, INSTRUCTION, samples(14)[12:], journal=journal, votes=5, sure=0.9)
    assert (report.asked, report.failed) == (2, {"timeout": 1})


@given(st.integers(1, 12), st.sampled_from([None, 0.5, 1.0]))
def test_rounds_cover_all_votes_once(votes, sure):
    found = rounds(votes, sure)
    assert [vote for part in found for vote in part] == list(range(votes))
    assert len(found) == (1 if sure is None else votes // 2 + 1)
    assert all(part.stop % 2 for part in found[:-1]) or sure is None


def verdict(grade, probs=None):
    return Verdict("k", "s", "j", "i", 0, grade, probs)


def test_counting():
    symbols = ("0", "1")
    assert count([verdict(None)], symbols).grade is None
    assert count([verdict("1"), verdict("0")], symbols).grade == "0"
    both = count([verdict("1", (0.4, 0.6)), verdict("0", (0.9, 0.1)), verdict(None)], symbols)
    assert (both.grade, both.confidence, both.probs) == ("0", 0.65, (0.65, 0.35))
    assert not sure_enough([verdict("1")], symbols, 0.9)
    assert sure_enough([verdict("1"), verdict("1")], symbols, 0.9)
    assert sure_enough([verdict("1", (0.1, 0.9))], symbols, 0.9)


def test_the_store_counts_as_the_labeller_does(place):  # noqa: F811
    store, journal = place
    said = {}
    judge(store, Wavering(), INSTRUCTION, samples(12), journal=journal, votes=4,
          on_verdict=lambda v: said.setdefault(v.sample_id, []).append(v))  # fmt: skip
    with store.write() as con:
        for sample in samples(12):
            con.execute(
                "insert into samples (sample_id, group_key, split, source, run_id, created_at, query, title) "
                "values (?, 'g', 'pool', 's', 'r', now(), 'q', 't')",
                [sample.id],
            )
    rows = tallies(store, Judge("teacher:scripted", INSTRUCTION.id))
    assert rows.height == 12
    for row in rows.iter_rows(named=True):
        tally = count(said[row["sample_id"]], ("0", "1"))
        assert (row["grade"], round(row["confidence"], 6), row["told"]) == (tally.grade, tally.confidence, tally.told)
