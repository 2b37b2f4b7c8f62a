from piar.label import Labeller
from piar.votes import count, vote
from store.types import Verdict
from tests.test_label import INSTRUCTION, Scripted, place, samples  # noqa: F401


class Wavering(Scripted):
    """Sure of some samples; of others it says now this, now that."""

    def one(self, request, on_completion):
        from dataclasses import replace

        done = super().one(request, None)
        number = int(request.messages[-1].content.split('"t')[-1].split('"')[0])
        if number % 2 == 0:
            done = replace(done, text="1", probs={"0": 0.02, "1": 0.98})
        elif number % 3 == 0:
            done = replace(done, text=str(request.seed % 2), probs=None)
        else:
            done = replace(done, text="0", probs=None)
        on_completion(done)
        return done


def test_more_is_asked_only_while_unsure(place):  # noqa: F811
    store, journal = place
    client = Wavering()
    with Labeller(store, client, journal) as labeller:
        ballots = vote(labeller, INSTRUCTION, samples(12), steps=(1, 3, 5), sure=0.9)
    asked = [b.votes for b in ballots]
    assert asked == [1 if i % 2 == 0 else 5 if i % 3 == 0 else 3 for i in range(12)]
    assert len(client.asked) == sum(asked)
    assert [b.grade for b in ballots] == ["1" if i % 2 == 0 else "0" for i in range(12)]
    assert [b.confidence for b in ballots if b.votes == 5] == [0.6, 0.6]
    with Labeller(store, client, journal) as labeller:
        assert vote(labeller, INSTRUCTION, samples(12)) == ballots
    assert len(client.asked) == sum(asked)


def verdict(grade, probs=None):
    return Verdict("k", "s", "j", "i", 0, grade, probs)


def test_counting():
    symbols = ("0", "1")
    assert count("s", [verdict(None)], symbols).grade is None
    assert count("s", [verdict("1"), verdict("0")], symbols).grade == "0"
    both = count("s", [verdict("1", (0.4, 0.6)), verdict("0", (0.9, 0.1))], symbols)
    assert (both.grade, round(both.confidence, 3)) == ("0", 0.65)
