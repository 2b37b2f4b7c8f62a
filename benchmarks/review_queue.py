"""The review queue on simulated shops with planted faults: how many of its first 200 rows were worth people's time.

`python -m benchmarks review_queue`. At most 12 % of the rows are planted faults: wrong gold, and ambiguous rows on
which every rater guesses and the teacher errs four times as often. A batch is drawn as `piar review push` draws it;
its random share is left out. Beside it: rows at random, and cleanlab's ranking of the same rows from the same teacher
probabilities; it knows nothing of the raters, so the shops are judged with and without them. The teacher follows the
planted policies, or a rough first draft.
"""

import sys
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

import numpy as np
import polars as pl

from benchmarks.judging import judge
from mining import MiningSettings, mine
from piar.offline.teacher import RulebookClient
from piar.review.batch import compose
from piar.review.settings import ReviewSettings
from piar.shop.world import ShopWorld, make_shop
from store.db import Store
from store.importers import ImportMapping, import_files
from store.journal import Journal
from store.types import Instruction, Sample

PAIRS = 4000
FIRST = 200
AMBIGUOUS = 0.05
NOISE = 0.1  # of the teacher on plain rows; four times as much on ambiguous ones
VOTES = 3
RATERS = ("rater_1", "rater_2", "rater_3")
# What is measured: who the teacher follows, and whether raters are known.
KINDS = {
    "planted policies, three raters": {"oracle": True, "raters": True},
    "planted policies, gold alone": {"oracle": True, "raters": False},
    "first draft, three raters": {"oracle": False, "raters": True},
}


class Teacher(RulebookClient):
    """The offline teacher under one name whatever its noise, which is greater where rows are ambiguous."""

    model = "simulated"


@dataclass(frozen=True, slots=True)
class World:
    """A store, and which of its samples are planted faults."""

    store: Store
    wrong: set[str]
    ambiguous: set[str]

    def worth(self, ids: Sequence[str]) -> float:
        """Share of these samples that are planted faults."""
        return float(np.mean([i in self.wrong or i in self.ambiguous for i in ids]))


def make_world(folder: Path, seed: int, *, oracle: bool, raters: bool) -> World:
    """A shop whose ambiguous rows are guessed by every rater, judged by a teacher three times.

    Args:
        oracle: whether the teacher follows the planted policies or the first draft.
        raters: whether the store knows what the raters said, or gold alone.
    """
    shop, rng = make_shop(PAIRS, seed), Random(seed)
    rows = shop.pairs.to_dicts()
    guessed = {row["pair"] for row in rows if rng.random() < AMBIGUOUS}
    for row in rows:
        if row["pair"] in guessed:
            row |= {name: rng.choice("0123") for name in RATERS}
    pl.DataFrame(rows).write_csv(folder / "shop.csv")
    store = Store.create(folder / "piar.duckdb", shop.task)
    mapping = ImportMapping(gold="grade", group="query", id="pair", raters=RATERS if raters else ())
    import_files(store, [folder / "shop.csv"], mapping, "import-1", seed)
    ids = dict(store.frame("select external_id, sample_id from samples").rows())
    wrong = {ids[p] for p in shop.answers.filter(pl.col("gold_wrong") != "")["pair"] if p in ids}
    world = World(store, wrong, {ids[p] for p in guessed if p in ids})
    _judge(world, shop, shop.oracle if oracle else shop.seed, folder)
    return world


def _judge(world: World, shop: ShopWorld, instruction: Instruction, folder: Path) -> None:
    open_rows = world.store.samples(where="split in ('train', 'pool')")
    parts: dict[float, list[Sample]] = {NOISE: [], 4 * NOISE: []}
    for sample in open_rows:
        parts[4 * NOISE if sample.id in world.ambiguous else NOISE].append(sample)
    journal = Journal(folder / "journal")
    for noise, samples in parts.items():
        teacher = Teacher(noise=noise, seed=1)
        judge(world.store, teacher, instruction, samples, journal=journal, votes=VOTES)
        judge(world.store, teacher, shop.seed if instruction is shop.oracle else shop.oracle, samples, journal=journal)
    journal.close()
    mine(world.store, MiningSettings(), "mine-1", instruction.id)


def batch(world: World) -> tuple[list[str], set[str]]:
    """A batch's rows from the queue, and its random share."""
    share = 0.2
    hours = FIRST / (1 - share) * 20 / 3600
    settings = ReviewSettings(annotators=("ann",), hours=hours, overlap=0, random=share, checks=0)
    rows = compose(world.store, "w1", settings, "r").assignments
    return [a.sample_id for a in rows if a.role == "queue"], {a.sample_id for a in rows if a.role == "random"}


def cleanlab(world: World, drawn: set[str]) -> list[str]:
    """The first rows by cleanlab, of those not drawn at random: its issues by self-confidence, then the others."""
    from cleanlab.filter import find_label_issues

    rows = world.store.frame(
        """select v.sample_id, list(v.probs order by vote) as p, any_value(g.position) as gold
           from verdict v join truth t using (sample_id) join grades g on g.symbol = t.grade
           where instruction in (select instruction from verdict where vote = 1) group by v.sample_id order by 1"""
    )
    probs = np.array([np.mean(votes, axis=0) for votes in rows["p"].to_list()])
    probs /= probs.sum(axis=1, keepdims=True)
    gold = rows["gold"].to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        issues = find_label_issues(gold, probs, n_jobs=1)
    order = np.lexsort((probs[np.arange(len(gold)), gold], ~issues))
    return [str(i) for i in rows["sample_id"].gather(order) if i not in drawn][:FIRST]


def run(seeds: int = 5) -> None:
    """Print precision of the first rows for each kind of world: mean and range."""
    for kind, known in KINDS.items():
        found: dict[str, list[float]] = {"queue": [], "cleanlab": [], "random": []}
        reasons: dict[str, list[float]] = {}
        for seed in range(seeds):
            with tempfile.TemporaryDirectory() as folder:
                world = make_world(Path(folder), seed, **known)
                rows, drawn = batch(world)
                everything = world.store.frame("select sample_id from samples where split in ('train', 'pool')")
                found["queue"].append(world.worth(rows))
                found["cleanlab"].append(world.worth(cleanlab(world, drawn)))
                found["random"].append(world.worth(everything["sample_id"].to_list()))
                why = dict(world.store.frame("select sample_id, reason from review_tasks").rows())
                for row in rows:
                    reasons.setdefault(why[row], []).append(world.worth([row]))
        print(f"simulated shops, {PAIRS:,} pairs, {seeds} worlds; {kind}")
        for name, values in found.items():
            times = [v / base for v, base in zip(values, found["random"], strict=True)]
            print(
                f"  {name:10} {np.mean(values):.3f} ({min(values):.3f}–{max(values):.3f}), "
                f"{np.mean(times):.1f} × random ({min(times):.1f}–{max(times):.1f})"
            )
        for name, hits in sorted(reasons.items(), key=lambda item: -len(item[1])):
            print(f"    {name:26} {np.mean(hits):.2f} of {len(hits) / seeds:.0f} rows")


if __name__ == "__main__":
    run(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
