"""Synthesis on a *simulated* shop whose rarest rules are thinned to three examples: what is filled, and is it right?

python -m benchmarks.synth [WORLD…]      worlds 1 and 2; offline drafts and a simulated writer, with and without noise

Whether a kept row's target is right is decided by `benchmarks.shop_reader`: the hidden policies on the structure of
the pair. It shares nothing with the teacher, which reads English. A row that the reader cannot read counts as wrong.
The writer stands for a language model: it writes pairs of the shop and is often mistaken about the rule.
"""

import json
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from random import Random

import polars as pl

from benchmarks.judging import judge, session
from benchmarks.shop_reader import UnclearError, decide
from mining import MiningSettings, mine
from piar.llm.base import Completion, OnCompletion, Request, Usage
from piar.offline.teacher import RulebookClient
from piar.shop.world import ShopWorld, make_shop
from store.db import Store
from store.ids import seed_of
from store.importers import ImportMapping, import_files
from store.journal import Journal
from synth import SynthReport, SynthSettings, synthesize

PAIRS, RARE, LEFT = 1500, 8, 3
SETTINGS = SynthSettings(n=400)


class SimulatedWriter:
    """Writes pairs of another simulated shop: for the rule asked when it can, for any rule one time in three."""

    model = "simulated-writer"

    def __init__(self, seed: int) -> None:
        other = make_shop(6000, seed + 1000)
        pairs = other.pairs.join(other.answers.select("pair", "rule"), on="pair")
        self.all = pairs.select("query", "title").to_dicts()
        self.by_rule = {rule: part.select("query", "title").to_dicts()
                        for (rule,), part in pairs.partition_by("rule", as_dict=True).items()}  # fmt: skip

    def generate(self, requests: Sequence[Request], on_completion: OnCompletion | None = None) -> list[Completion]:
        """One JSON answer for each request, as many samples as it asks for."""
        answers = []
        for request in requests:
            prompt, rng = request.messages[0].content, Random(seed_of(request.key))
            rule = re.search(r"^(R\d\d): ", prompt, re.MULTILINE)
            wanted = int(next(iter(re.findall(r"\b(\d+) (?:new|samples|different|other)", prompt)), 5))
            right = self.by_rule.get(rule.group(1) if rule else "", [])
            drawn = [rng.choice(right if right and rng.random() < 2 / 3 else self.all) for _ in range(wanted)]
            answers.append(
                Completion(request.key, self.model, json.dumps({"samples": drawn}), usage=Usage(900, 0, 600))
            )
            if on_completion:
                on_completion(answers[-1])
        return answers


def thinned(world: ShopWorld, seed: int) -> tuple[pl.DataFrame, set[str]]:
    """The world's pairs with three of each of its rarest rules, and those rules."""
    known = world.pairs.join(world.answers.select("pair", "rule"), on="pair")
    counts = known.group_by("rule").len().sort("len", "rule")
    rare = set(counts.head(RARE)["rule"])
    few = [
        part.sample(min(LEFT, len(part)), seed=seed) for part in known.partition_by("rule") if part["rule"][0] in rare
    ]
    return pl.concat([known.filter(~pl.col("rule").is_in(list(rare))), *few]).drop("rule"), rare


def judged_store(folder: Path, world: ShopWorld, pairs: pl.DataFrame, teacher: RulebookClient) -> tuple[Store, Journal]:
    """The pairs imported, split by query, judged under the planted policies and mined."""
    pairs.write_csv(folder / "shop.csv")
    store = Store.create(folder / "shop.duckdb", world.task)
    mapping = ImportMapping(fields={"query": "query", "title": "title"}, gold="grade", group="query", id="pair")
    import_files(store, [folder / "shop.csv"], mapping, "import-1", 0)
    journal = Journal(folder / "journal")
    judge(store, teacher, world.oracle, store.samples(), journal=journal)
    mine(store, MiningSettings(texts=False), "mine-1", world.oracle.id)
    return store, journal


def right(row: dict[str, str]) -> str:
    """`right` when the hidden policies decide as intended, else what is wrong."""
    try:
        found = decide(row["query"], row["title"])
    except UnclearError:
        return "unreadable"
    if found.grade != row["grade"]:
        return "other grade"
    return "right" if found.id == row["rule"] else "right grade by another rule"


def leaks(store: Store) -> dict[str, int]:
    """Kept rows in a closed query, with a closed row's words, or with 80 % of them; by plain Python."""
    words = lambda row: frozenset(re.findall(r"\w+", f"{row['query']} {row['title']}".lower()))  # noqa: E731
    closed = store.frame("select query, title from samples where split in ('dev', 'holdout', 'test')").to_dicts()
    kept = store.frame("select query, title from samples where origin = 'synthetic'").to_dicts()
    texts = [words(row) for row in closed]
    near = [max((len(words(row) & text) / len(words(row) | text) for text in texts), default=0.0) for row in kept]
    queries = {row["query"] for row in closed}
    return {
        "closed query": sum(row["query"] in queries for row in kept),
        "exact": sum(n == 1 for n in near),
        "80 % of the words": sum(n >= 0.8 for n in near),
    }


def run(folder: Path, seed: int, noise: float, *, by_model: bool) -> None:
    """One world, one way of drafting: print coverage, what fell and why, and what is right of what was kept."""
    world = make_shop(PAIRS, seed)
    pairs, rare = thinned(world, seed)
    teacher = RulebookClient(noise=noise, seed=seed)
    store, journal = judged_store(folder, world, pairs, teacher)
    before = store.frame("select s.query, s.title from samples s where split in ('train', 'pool')").to_dicts()
    asked = session(store, teacher, journal, run_id="synth-1")
    writer = session(store, SimulatedWriter(seed), journal, run_id="synth-1") if by_model else None
    report: SynthReport = synthesize(asked, world.oracle, SETTINGS, writer=writer)
    journal.close()
    kept = store.frame("select s.query, s.title, y.rule, y.grade, y.method from samples s "
                       "join synthesis y using (sample_id) where y.status = 'kept'").to_dicts()  # fmt: skip
    rules_before = Counter(decide(row["query"], row["title"]).id for row in before)
    rules_after = rules_before + Counter(row["rule"] for row in kept if right(row) == "right")
    verdicts = Counter(right(row) for row in kept)
    same_grade = verdicts["right"] + verdicts["right grade by another rule"]
    print(f"\nworld {seed}, teacher with {noise:.0%} noise, {'simulated writer' if by_model else 'offline drafts'}: "
          f"{report.asked:,} drafts, {report.kept} kept, {report.borderline} borderline")  # fmt: skip
    print(f"  grade truly right: {same_grade} of {len(kept)} ({same_grade / max(len(kept), 1):.1%}); {dict(verdicts)}")
    print(f"  kept by method: {dict(Counter(row['method'] for row in kept))}")
    total = max(report.dropped.total(), 1)
    print("  dropped: " + ", ".join(f"{reason} {n / total:.1%}" for reason, n in report.dropped.most_common()))
    print("  thinned rules, training rows before → after: "
          + ", ".join(f"{rule} {rules_before[rule]} → {rules_after[rule]}" for rule in sorted(rare)))  # fmt: skip
    full = sum(n == target.wanted for target, n in report.cells)
    print(f"  cells filled to the brim: {full} of {len(report.cells)}; leaks: {leaks(store)}", flush=True)


def main() -> None:
    """Both ways of drafting, without and with noise, on each world."""
    for seed in map(int, sys.argv[1:] or (1, 2)):
        for by_model in (False, True):
            for noise in (0.0, 0.1):
                with tempfile.TemporaryDirectory() as name:
                    run(Path(name), seed, noise, by_model=by_model)


if __name__ == "__main__":
    main()
