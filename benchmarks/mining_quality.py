"""What mining finds of faults planted in a *simulated* shop: each signal and the queue, beside cleanlab and chance.

python -m benchmarks.mining_quality              worlds 1, 2 and 3; nothing was ever tuned on them
python -m benchmarks.mining_quality 0            the world that choices were made on

Planted: wrong gold (4 %), ambiguous rows (5 %: their three raters grade at random, gold stays right), and
near-duplicates (products typed again). The teacher follows the planted policies with 10 % noise, three votes a row.
"""

import sys
import tempfile
import warnings
from pathlib import Path
from random import Random

import numpy as np
import polars as pl

from benchmarks.judging import judge
from mining import MiningSettings, mine
from piar.offline.teacher import RulebookClient
from piar.shop.world import ShopWorld, make_shop
from store.db import Store
from store.importers import ImportMapping, import_files
from store.journal import Journal

AMBIGUOUS = 0.05
RATERS = ("rater_1", "rater_2", "rater_3")
Planted = dict[str, set[str]]


def plant(world: ShopWorld, seed: int) -> tuple[pl.DataFrame, Planted]:
    """The world's pairs with random raters on some and copies typed again; fault -> ids of the rows that have it."""
    rng, rows = Random(seed), world.pairs.to_dicts()
    ambiguous = {row["pair"] for row in rows if rng.random() < AMBIGUOUS}
    for row in rows:
        if row["pair"] in ambiguous:
            row |= {name: rng.choice("0123") for name in RATERS}
    copied = rng.sample(rows, len(rows) // 30)
    copies = [row | {"pair": f"copy-{row['pair']}", "title": _retyped(row["title"], rng)} for row in copied]
    wrong = set(world.answers.filter(pl.col("gold_wrong") != "")["pair"])
    return pl.DataFrame(rows + copies), {"wrong gold": wrong, "ambiguous": ambiguous}


def _retyped(title: str, rng: Random) -> str:
    """The same product typed again: other case, and a word more."""
    return f"{title.upper()} {rng.choice(('new', 'sale', 'original'))}"


def mined(folder: Path, pairs: int, seed: int) -> tuple[pl.DataFrame, Planted, Store]:
    """Judge and mine a world; its rows with every signal and the reason for which they are queued, null for none."""
    world = make_shop(pairs, seed)
    frame, planted = plant(world, seed)
    frame.write_csv(folder / "shop.csv")
    store = Store.create(folder / "shop.duckdb", world.task)
    mapping = ImportMapping(fields={"query": "query", "title": "title"}, gold="grade", group="query", id="pair",
                            raters=RATERS)  # fmt: skip
    import_files(store, [folder / "shop.csv"], mapping, "import-1", 0)
    with store.write() as con:
        con.execute("update samples set split = 'train'")  # nothing is held out here: every planted fault can be found
    client, journal = RulebookClient(noise=0.1, seed=seed + 1), Journal(folder / "journal")
    judge(store, client, world.oracle, store.samples(), journal=journal, votes=3)
    judge(store, client, world.seed, store.samples(), journal=journal)
    journal.close()
    mine(store, MiningSettings(top=pairs // 10), "mine-1", world.oracle.id)
    found = store.frame(
        "select s.external_id as pair, s.query, x.*, q.reason from samples s join signals x using (sample_id) "
        "left join queue q using (sample_id) order by pair"
    )
    return found, planted, store


def table(rows: pl.DataFrame, planted: Planted, top: int) -> dict[str, dict[str, tuple[float, float, float]]]:
    """Fault -> ranking -> average precision, precision of its first n (n planted rows), recall of its first `top`."""
    from sklearn.metrics import average_precision_score

    rankings = {name: rows[name] for name in rows.columns if rows[name].dtype == pl.Float64}
    rankings["random"] = pl.Series(np.random.default_rng(0).random(len(rows)))
    found: dict[str, dict[str, tuple[float, float, float]]] = {}
    for fault, ids in planted.items():
        truth = rows["pair"].is_in(list(ids)).to_numpy()
        found[fault] = {}
        for name, column in rankings.items():
            score = column.fill_null(-1.0).fill_nan(-1.0).to_numpy()
            order = np.argsort(-score, kind="stable")
            found[fault][name] = (
                float(average_precision_score(truth, score)),
                float(truth[order[: truth.sum()]].mean()),
                float(truth[order[:top]].sum() / truth.sum()),
            )
    return found


def cleanlab_ranking(store: Store, rows: pl.DataFrame) -> pl.Series:
    """1 − self-confidence of the issues that cleanlab's defaults find, from the same probabilities; −1 for no issue."""
    from cleanlab.filter import find_label_issues

    held = store.frame(
        "select s.external_id as pair, list(v.probs) as votes, any_value(t.grade)::integer as gold "
        "from verdict v join truth t using (sample_id) join samples s using (sample_id) "
        "where v.instruction in (select instruction from verdict where vote = 1) group by s.external_id order by pair"
    )
    probs = np.array([np.mean(votes, axis=0) for votes in held["votes"].to_list()])
    probs /= probs.sum(axis=1, keepdims=True)
    gold = held["gold"].to_numpy()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        issues = find_label_issues(gold, probs, n_jobs=1)
    score = np.where(issues, 1 - probs[np.arange(len(gold)), gold], -1.0)
    table = pl.DataFrame({"pair": held["pair"], "cleanlab": score})
    return rows.join(table, on="pair", how="left", maintain_order="left")["cleanlab"]


def queue_figures(rows: pl.DataFrame, planted: Planted) -> dict[str, float]:
    """Precision of the queue's own reasons and of the whole, and its recall of each fault."""
    queued, faults = rows.filter(pl.col("reason").is_not_null()), set[str]().union(*planted.values())
    share = lambda part, ids: float(part["pair"].is_in(list(ids)).mean() or 0.0)  # noqa: E731
    return {
        "precision of suspect gold": share(queued.filter(pl.col("reason") == "suspect gold"), planted["wrong gold"]),
        "precision of ambiguous": share(queued.filter(pl.col("reason") == "ambiguous"), planted["ambiguous"]),
        "precision of the queue": share(queued, faults),
        "precision of a random queue": share(rows, faults),
        **{
            f"recall of {fault}": len(set(queued["pair"]) & ids) / len(ids & set(rows["pair"]))
            for fault, ids in planted.items()
        },
    }


def duplicates(rows: pl.DataFrame) -> tuple[float, float]:
    """Precision and recall of `near_duplicate` on the planted copies: of each pair one has it."""
    both = {copy.removeprefix("copy-") for copy in rows["pair"] if copy.startswith("copy-")}
    flagged = [pair.removeprefix("copy-") for pair in rows.filter(pl.col("near_duplicate").is_not_null())["pair"]]
    return sum(pair in both for pair in flagged) / max(len(flagged), 1), len(both & set(flagged)) / len(both)


def main(pairs: int = 3000) -> None:
    """Print each world's figures, then their means."""
    worlds: list[dict[str, dict[str, tuple[float, float, float]]]] = []
    queues: list[dict[str, float]] = []
    for seed in map(int, sys.argv[1:] or (1, 2, 3)):
        with tempfile.TemporaryDirectory() as name:
            rows, planted, store = mined(Path(name), pairs, seed)
            own = rows.filter(~pl.col("pair").str.starts_with("copy-"))
            own = own.with_columns(cleanlab_ranking(store, own).alias("cleanlab 2.9.0"))
        precision, recall = duplicates(rows)
        print(f"world {seed}: near-duplicates, precision {precision:.2f}, recall {recall:.2f}", flush=True)
        worlds.append(table(own, planted, pairs // 10))
        queues.append(queue_figures(own, planted))
    for fault, first in worlds[0].items():
        print(f"\n{fault}: average precision (each world) · precision at n · recall at {pairs // 10}")
        mean = {name: np.mean([world[fault][name] for world in worlds], axis=0) for name in first}
        for name in sorted(mean, key=lambda name: -mean[name][0]):
            each = ", ".join(f"{world[fault][name][0]:.3f}" for world in worlds)
            ap, precision, recall = mean[name]
            print(f"  {name:24} {ap:.3f} ({each}) · {precision:.2f} · {recall:.2f}")
    print(f"\nqueue of {pairs // 10}")
    for what in queues[0]:
        print(f"  {what:32} {np.mean([q[what] for q in queues]):.2f} ({', '.join(f'{q[what]:.2f}' for q in queues)})")


if __name__ == "__main__":
    main()
