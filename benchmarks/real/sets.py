"""Four public sets with people's grades, dealt by group: at most 1,000 rows to learn from and 600 to report on."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import polars as pl

from piar import Project
from store.prepare import ImportMapping
from store.vectors import FOLDER
from tests.data import shared

TRAIN, DEV, TEST = 1_000, 200, 600  # rows at most
WORDS = 96  # of a row, about 128 tokens; the longest field is cut
NO_HOLDOUT = ("split.train=0.7", "split.holdout=0")  # what is dealt as train is all learnt from


@dataclass(frozen=True, slots=True)
class RealSet:
    """One set: where it lies, which columns a judge reads, and by which its rows belong together.

    Attributes:
        names: of the grades, as those who made the set call them, where the symbols are numbers.
        keeps: which end of a text that is cut. What a study found stands at the end of its abstract.
    """

    path: str
    fields: tuple[str, ...]
    gold: str
    group: str
    grades: tuple[str, ...]
    names: tuple[str, ...] = ()
    keeps: Literal["start", "end"] = "start"


SETS = {
    "chorus": RealSet(
        "chorus/chorus.csv",
        ("query", "name"),
        "grade",
        "query",
        ("0", "1", "2", "3"),
        ("poor", "fair", "good", "perfect"),
    ),
    "dbpedia": RealSet(
        "dbpedia_entity/pairs.parquet",
        ("query", "text"),
        "grade",
        "query",
        ("0", "1", "2"),
        ("irrelevant", "relevant", "highly relevant"),
    ),
    "pubmedqa": RealSet(
        "pubmedqa/pubmedqa.parquet",
        ("question", "abstract"),
        "decision",
        "question",
        ("no", "maybe", "yes"),
        keeps="end",
    ),
    "semeval": RealSet(
        "semeval2013/answers.parquet",
        ("question", "reference", "answer"),
        "grade",
        "question",
        ("contradictory", "incorrect", "correct"),
    ),
}


def rows_of(name: str) -> tuple[pl.DataFrame, float]:
    """The set's fields as text with `gold`, each row once, texts cut; and the share of rows that were cut."""
    one, path = SETS[name], shared(SETS[name].path)
    frame = pl.read_csv(path, infer_schema=False) if path.suffix == ".csv" else pl.read_parquet(path)
    texts = [pl.col(field).cast(pl.String).fill_null("") for field in one.fields]
    frame = frame.select(*texts, gold=pl.col(one.gold).cast(pl.String)).drop_nulls().unique(one.fields, keep="first")
    frame = frame.sort(one.fields)
    whole = [dict(zip(one.fields, row, strict=True)) for row in frame.select(one.fields).iter_rows()]
    short = [_cut(row, one.keeps) for row in whole]
    cut = float(np.mean([a != b for a, b in zip(whole, short, strict=True)]))
    return pl.DataFrame(short).with_columns(frame["gold"]), cut


def _cut(row: dict[str, str], keeps: str) -> dict[str, str]:
    words = {name: text.split() for name, text in row.items()}
    while sum(map(len, words.values())) > WORDS:
        longest = max(words, key=lambda name: len(words[name]))
        left = max(len(words[longest]) - 8, 1)
        words[longest] = words[longest][-left:] if keeps == "end" else words[longest][:left]
    return {name: " ".join(words[name]) if len(words[name]) < len(text.split()) else text for name, text in row.items()}


def dealt(name: str, split: int, rows: int = TRAIN) -> pl.DataFrame:
    """A set's rows with `split`: 30 % of the groups report, 10 % are dev; smaller trainings are part of larger ones."""
    frame, _ = rows_of(name)
    group, rng = SETS[name].group, np.random.default_rng(split)
    groups = rng.permutation(np.array(frame[group].unique().sort().to_list(), dtype=object))
    ends = (int(0.3 * len(groups)), int(0.4 * len(groups)))
    place = {g: "test" if i < ends[0] else "dev" if i < ends[1] else "train" for i, g in enumerate(groups)}
    told = frame.with_columns(split=pl.Series([place[g] for g in frame[group]]), turn=rng.permutation(len(frame)))
    parts = [
        told.filter(pl.col("split") == part).sort("turn").head(most)
        for part, most in (("train", min(rows, TRAIN)), ("dev", DEV), ("test", TEST))
    ]
    return pl.concat(parts).drop("turn")


def project(
    name: str,
    frame: pl.DataFrame,
    folder: Path,
    *,
    encoder: str = "",
    sets: tuple[str, ...] = (),
    named: bool = False,
) -> Project:
    """A project of those rows, made as a user makes one; opened where it is there already.

    Args:
        named: the grades that have names are given them in `task.toml`.
    """
    one = SETS[name]
    overrides = (*sets, *([f"baselines.encoder={encoder}"] if encoder else []))
    if not (folder / "piar.toml").exists():
        folder.parent.mkdir(parents=True, exist_ok=True)
        path = folder.with_suffix(".csv")
        frame.write_csv(path)
        mapping = ImportMapping(
            fields={field: field for field in one.fields},
            gold="gold",
            group=one.group,
            split="split",
            grades=one.grades,
        )
        Project.init(folder)
        Project.open(folder, NO_HOLDOUT).import_([path], mapping)
        if named:
            _name(folder / "task.toml", one)
        kept = folder.parent / FOLDER  # shared by the projects of a run
        kept.mkdir(exist_ok=True)
        (folder / FOLDER).symlink_to(kept.resolve())
    return Project.open(folder, overrides)


def _name(path: Path, one: RealSet) -> None:
    """Do what the head of a proposed `task.toml` asks for."""
    text = path.read_text(encoding="utf-8")
    for symbol, name in zip(one.grades, one.names, strict=False):
        text = text.replace(f'symbol = "{symbol}", ', f'symbol = "{symbol}", name = "{name}", ')
    path.write_text(text, encoding="utf-8")
