"""Each finding of `piar look`: figures from the material, or None where there is nothing to say."""

import re
from collections import defaultdict
from collections.abc import Callable
from itertools import combinations, pairwise

import numpy as np
import polars as pl

from piar.look.columns import Material, codes_of
from piar.look.report import (
    Agreement,
    BaselineFigure,
    Block,
    Detectable,
    GradeShare,
    Groups,
    RaterFigure,
    Repeats,
    Shift,
    Suspects,
)
from piar.measure import baselines
from store.agreement import krippendorff_alpha, level_of, share_all_agree
from store.figures import many
from store.stats import (
    Floats,
    Ints,
    PairedVariance,
    bootstrap_by_group,
    detectable_effect,
    groups_for,
    paired_variance,
    ratio,
)
from store.task import Task

HOLDOUT = 0.3
READ = 4_000  # characters of a field that baselines read
ENOUGH_TEXT = 1_500_000  # characters that baselines read in all: more text would take minutes
FEWEST_ROWS = 300
ROWS_KEPT = 10  # of the middle group in a sample
SMALL_GROUP = 5  # rows per group of the layout that is advised
ASSUMED = PairedVariance(row=0.3, icc=0.4)
_TWIN_LIMIT = 200_000  # groups; beyond it twins are not searched


def places(task: Task) -> dict[str, int]:
    """Symbol -> position."""
    return {symbol: i for i, symbol in enumerate(task.symbols)}


def grade_shares(material: Material) -> list[GradeShare]:
    """How the truth is distributed, every grade of the file, ascending."""
    if material.task is None:
        return []
    truth = codes_of(material.frame["truth"], places(material.task))
    counts = np.bincount(truth[truth >= 0], minlength=len(material.task.grades))
    return [
        GradeShare(grade=symbol, n=int(n), share=float(n / max(1, counts.sum())))
        for symbol, n in zip(material.task.symbols, counts, strict=True)
    ]


# -- raters ------------------------------------------------------------------------------------


def agreement(material: Material, seed: int) -> Agreement | None:
    """How far the raters agree, who is off, and where; None with fewer than two raters."""
    if material.task is None or material.counts is None or len(material.raters) < 2:
        return None
    groups = material.frame["code"].to_numpy()
    figures, scores = _raters(material)
    values = [grade.value for grade in material.task.grades]
    return Agreement(
        alpha=krippendorff_alpha(material.counts, groups=groups, seed=seed),
        alpha_ordinal=krippendorff_alpha(
            material.counts, level=level_of(material.task), values=values, groups=groups, seed=seed
        ),
        all_agree=share_all_agree(material.counts),
        raters=figures,
        odd_one=_odd_one(figures, scores, groups),
        disputed=_disputed(material),
    )


def _raters(material: Material) -> tuple[list[RaterFigure], dict[str, Floats]]:
    """Figures of each rater, and per row 1, 0 or NaN: agrees with the others where these are unanimous."""
    assert material.task is not None
    assert material.counts is not None
    place = places(material.task)
    gold = codes_of(material.frame["gold"], place)
    figures, scores = [], {}
    for rater in material.raters:
        mine = codes_of(material.frame[rater], place)
        others = material.counts.copy()
        voted = mine >= 0
        others[np.flatnonzero(voted), mine[voted]] -= 1
        total = others.sum(axis=1)
        together = voted & (total >= min(2, len(material.raters) - 1)) & (others.max(axis=1) == total)
        score = np.where(together, mine == others.argmax(axis=1), np.nan)
        both = voted & (gold >= 0)
        scores[rater] = score
        figures.append(
            RaterFigure(
                name=rater,
                votes=int(voted.sum()),
                against_gold=float(np.mean(mine[both] == gold[both])) if both.any() else None,
                against_others=float(np.nanmean(score)) if together.any() else None,
            )
        )
    return figures, scores


def _odd_one(figures: list[RaterFigure], scores: dict[str, Floats], groups: Ints) -> str | None:
    """The rater who leaves the others' unanimous vote most often, when clearly more often than the middle one."""
    rated = sorted((f for f in figures if f.against_others is not None), key=lambda f: f.against_others or 0.0)
    if len(rated) < 3 or (rated[len(rated) // 2].against_others or 0) - (rated[0].against_others or 0) < 0.05:
        return None
    # Not paired by row: with three raters, both have such a vote only where all three agree.
    columns = [scores[rated[0].name], scores[rated[len(rated) // 2].name]]
    sums = np.column_stack([part for score in columns for part in (np.nan_to_num(score), ~np.isnan(score))])
    low = bootstrap_by_group(sums, groups, lambda s: ratio(s[..., 2:]) - ratio(s[..., :2])).low
    return rated[0].name if low is not None and low > 0 else None


def _disputed(material: Material, most: int = 3) -> list[str]:
    """Groups of ten rows or more on which the raters split far more often than elsewhere."""
    assert material.counts is not None
    split = material.counts.max(axis=1) < material.counts.sum(axis=1)
    frame = material.frame.select("group").with_columns(split=pl.Series(split))
    overall = float(np.mean(split))
    found = (
        frame.group_by("group")
        .agg(n=pl.len(), share=pl.col("split").mean())
        .filter((pl.col("n") >= 10) & (pl.col("share") >= max(0.5, 1.5 * overall)))
        .sort("share", "n", "group", descending=[True, True, False])
    )
    return found["group"].head(most).to_list()


def suspects(material: Material) -> Suspects | None:
    """Where gold contradicts the raters' majority, and whether that looks like a rule nobody wrote down."""
    if material.task is None or material.counts is None or material.lead is None or material.columns.gold is None:
        return None
    gold = codes_of(material.frame["gold"], places(material.task))
    compared = (gold >= 0) & (material.lead >= 0)
    if not compared.any():
        return None
    contradicts = compared & (gold != material.lead)
    unanimous = contradicts & (material.counts.max(axis=1) == material.counts.sum(axis=1))
    names = np.array(material.task.symbols)
    rows = material.frame.select("group").with_columns(
        majority=pl.Series(names[np.maximum(material.lead, 0)]), gold=pl.Series(names[np.maximum(gold, 0)])
    )
    chosen = rows.filter(pl.Series(unanimous))
    blocks = chosen.group_by("group").len().sort("len", "group", descending=[True, False])
    shifts = chosen.group_by("majority", "gold").len().sort("len", "majority", "gold", descending=[True, False, False])
    top = blocks.head(5)
    held = rows.filter(pl.Series(compared) & pl.col("group").is_in(top["group"].to_list()))
    n = int(unanimous.sum())
    return Suspects(
        compared=int(compared.sum()),
        contradicts=int(contradicts.sum()),
        unanimous=n,
        blocks=[Block(group=g, n=c) for g, c in top.iter_rows()],
        shifts=[Shift(majority=m, gold=g, n=c) for m, g, c in shifts.head(5).iter_rows()],
        unwritten_rule=n >= 10
        and top["len"].sum() >= 0.6 * n
        and len(held) <= 0.3 * compared.sum()
        and shifts["len"][0] >= 0.6 * n,
    )


# -- rows and groups ---------------------------------------------------------------------------


def repeats(material: Material) -> Repeats:
    """Rows with the same group and fields as an earlier one."""
    key = pl.struct("group", *material.fields).hash(0)
    counted = (
        material.frame.select(key.alias("key"), "truth")
        .group_by("key")
        .agg(n=pl.len(), truths=pl.col("truth").drop_nulls().n_unique())
    )
    twice = counted.filter(pl.col("n") > 1)
    return Repeats(
        rows=int(twice["n"].sum()) - len(twice), pairs=len(twice), conflicting=int((twice["truths"] > 1).sum())
    )


def shape(material: Material) -> Groups | None:
    """Sizes, groups with a single grade, and groups that are hardly two; None when every row is its own group."""
    sizes = material.frame.group_by("group").agg(
        n=pl.len(), grades=pl.col("truth").n_unique(), known=pl.col("truth").count()
    )
    if len(sizes) == len(material.frame):
        return None
    names = sizes["group"].to_list() if len(sizes) <= _TWIN_LIMIT else []
    return Groups(
        median_rows=float(sizes["n"].median() or 0),  # type: ignore[arg-type]
        one_grade=len(sizes.filter((pl.col("known") >= 3) & (pl.col("grades") == 1))),
        twins=_twins(names),
    )


def _twins(names: list[str]) -> list[tuple[str, str]]:
    same: dict[tuple[str, ...], list[str]] = defaultdict(list)
    for name in names:
        words = re.findall(r"\w+", name.lower())
        if words:
            same[tuple(sorted(w[:-1] if len(w) > 3 and w.endswith("s") else w for w in words))].append(name)
    pairs = [tuple(sorted(group)[:2]) for group in same.values() if len(group) > 1]
    return sorted((a, b) for a, b in pairs)


# -- what can be learnt and shown ------------------------------------------------------------------


def sample_of(material: Material, rows: int, seed: int) -> pl.DataFrame:
    """Rows with a truth: all, or about `rows`: the same share of rows from each of as many random groups as it takes.

    Every row is as likely as any other, and groups keep about ten rows, so that shares and
    likeness within groups are those of the file. Long texts are cut, and fewer rows of them are taken.
    """
    cut = [pl.col(field).str.head(READ) for field in material.fields]
    known = material.frame.filter(pl.col("truth").is_not_null()).with_columns(cut)
    text = sum(int(known[field].str.len_chars().sum()) for field in material.fields)
    rows = min(rows, max(FEWEST_ROWS, ENOUGH_TEXT * len(known) // max(1, text)))
    if len(known) <= rows:
        return known
    middle = float(known.group_by("group").len()["len"].median() or 1)  # type: ignore[arg-type]
    thinned = known.sample(fraction=min(1.0, max(rows / len(known), ROWS_KEPT / middle)), seed=seed)
    sizes = thinned.group_by("group").len().sort("group").sample(fraction=1.0, shuffle=True, seed=seed)
    chosen = sizes.filter(pl.col("len").cum_sum() - pl.col("len") < rows)["group"]
    return thinned.filter(pl.col("group").is_in(chosen.to_list())).head(2 * rows)


def simple_judges(
    material: Material,
    sample: pl.DataFrame,
    seed: int,
    on_step: Callable[[str], None],
    embed: baselines.Embed | None = None,
) -> tuple[list[BaselineFigure], list[Floats]]:
    """Baselines with intervals by group; and of those that learnt, per row 1 or 0 for right.

    Args:
        on_step: is told what begins.
        embed: the encoder of `[baselines]`.
    """
    task = material.task
    assert task is not None
    truth = codes_of(sample["truth"], places(task))
    groups = sample["code"].to_numpy()
    common = (truth == np.bincount(truth).argmax()).astype(np.float64)
    figures = [BaselineFigure(name="majority", accuracy=bootstrap_by_group(common, groups, seed=seed))]
    learnable = sample.with_columns(gold=pl.col("truth"))
    right: list[Floats] = []
    for name in baselines.names(task, embed):
        if name == "majority" or (name == "tfidf_overlap" and len(task.fields) < 2):
            continue
        on_step(f"teaching {name}, a simple baseline, on {many(len(sample), 'row')}")
        probs = baselines.cross_validate(name, learnable, task, groups, seed=seed, embed=embed)
        if probs is None:
            continue
        right.append((probs.argmax(axis=1) == truth).astype(np.float64))
        accuracy = bootstrap_by_group(right[-1], groups, seed=seed)
        figures.append(BaselineFigure(name=name, accuracy=accuracy, by_row=_by_row(name, learnable, task, truth, seed)))
    return figures, right


def _by_row(name: str, frame: pl.DataFrame, task: Task, truth: Ints, seed: int) -> float | None:
    """What the same model would seem to reach if rows of one group fell on both sides of the split."""
    if name != "tfidf" or frame["group"].n_unique() == len(frame):
        return None
    probs = baselines.cross_validate(name, frame, task, np.arange(len(frame)), folds=3, seed=seed)
    return None if probs is None else float(np.mean(probs.argmax(axis=1) == truth))


def detectable(material: Material, sample: pl.DataFrame | None, learnt: list[Floats]) -> Detectable | None:
    """What a holdout of 30 % of the groups can show, and what the same rows could, laid out better.

    The range runs over pairs of like judges: raters among themselves, and baselines.
    """
    sizes = np.sort(material.frame.group_by("group").len()["len"].to_numpy())
    groups = int(len(sizes) * HOLDOUT)
    if groups < 2:
        return None
    held = np.quantile(sizes, (np.arange(groups) + 0.5) / groups, method="nearest")
    pairs = _rater_pairs(material) if material.task and material.columns.gold else []
    if sample is not None:
        pairs += [(*pair, sample["code"]) for pair in combinations(learnt, 2)]
    variances = [v for pair in pairs if (v := _variance(*pair)) is not None]
    rows = int(held.sum())
    small = min(SMALL_GROUP, max(1, int(np.median(sizes))))
    more = max(2, rows // small)
    now = [detectable_effect(v, held) or 0.0 for v in variances or [ASSUMED]]
    then = [detectable_effect(v, np.full(more, small)) or 0.0 for v in variances or [ASSUMED]]
    widest = (variances or [ASSUMED])[int(np.argmax(now))]
    return Detectable(
        groups=groups,
        rows=rows,
        low=min(now),
        high=max(now),
        layout_groups=more,
        layout_rows=small,
        layout_low=min(then),
        layout_high=max(then),
        half_groups=groups_for(widest, max(now) / 2, small),
        basis="measured" if variances else "assumed",
    )


def _rater_pairs(material: Material) -> list[tuple[Floats, Floats, pl.Series]]:
    """Right or wrong by gold, of each pair of neighbouring raters, where both voted."""
    assert material.task is not None
    place = places(material.task)
    gold = codes_of(material.frame["gold"], place)
    votes = [codes_of(material.frame[rater], place) for rater in material.raters]
    found = []
    for first, second in pairwise(votes):
        both = (first >= 0) & (second >= 0) & (gold >= 0)
        right = [(vote[both] == gold[both]).astype(np.float64) for vote in (first, second)]
        found.append((right[0], right[1], material.frame["code"].filter(pl.Series(both))))
    return found


def _variance(first: Floats, second: Floats, groups: pl.Series) -> PairedVariance | None:
    """Of a pair that differs on one row in twenty or more; others say nothing about judges yet to come."""
    n_groups = groups.n_unique()
    if n_groups < 2 or len(first) <= n_groups or np.mean(first != second) < 0.05:
        return None
    return paired_variance(first, second, groups.to_numpy())


def one_rater(figures: list[RaterFigure]) -> tuple[float, float] | None:
    """The worst and the best rater against gold, or against the others where there is no gold."""
    shares = [f.against_gold if f.against_gold is not None else f.against_others for f in figures]
    known = [share for share in shares if share is not None]
    return (min(known), max(known)) if known else None
