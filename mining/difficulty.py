"""Difficulty p = π(y*|x): the probability that a judge's first token is the right grade.

With a first-token judge it is read off (exact at temperature 1, no rollouts). A judge that gives only grades is
calibrated: a logistic model says from the signals how likely its grade is right, out of fold by group, and p is
that probability where it agrees with the truth and an equal share of the rest where it does not. With people
alone, p is the share of votes for the truth, with one vote added for each grade (Laplace). A single vote that is
the truth tells nothing: there p is what a cheap student says of the held grade (`mining.out_of_fold`), else such a
sample has no difficulty.
"""

from typing import Any

import duckdb
import numpy as np
import numpy.typing as npt

from mining.judged import Columns
from mining.settings import Thresholds
from mining.signals import p_answer, p_held
from store.fragments import literal

COMBINATION, PEOPLE = "combination", "people"
_ENOUGH = 50  # rows with truth from which a calibration is worth fitting
_FOLDS = 5
_TELLING = 20  # rows from which one p for each grade is no accident
# Signals that do not look at the truth, so that the model cannot read the answer from them.
FEATURES = ("vote_entropy", "people_entropy", "version_flips", "rule_rarity", "near_duplicate")


def difficulty_sql(columns: Columns, judge: str, *, student: bool, stood: str = "") -> str:
    """Query (sample_id, p, judge) for the samples that a first-token judge, people, or who stands in have spoken of."""
    p = p_answer(columns, "s" if student else "t")
    votes = columns("h")
    total = " + ".join(f"{v}::double" for v in votes)
    own = f"case truth {' '.join(f'when {k} then {v}' for k, v in enumerate(votes))} end"
    told = f"truth is not null and ({total} > 1 or ({total} = 1 and {own} = 0))"
    by_people = f"if({told}, ({own} + 1) / ({total} + {columns.grades}), null)"
    stands = p_held(columns)
    return f"""
        select sample_id, coalesce({p}, {stands}, c.p, {by_people})::double as p,
               case when {p} is not null then {literal(judge)} when {stands} is not null then {literal(stood)}
                    when c.p is not null then '{COMBINATION}' else '{PEOPLE}' end as judge
        from judged left join calibrated c using (sample_id)
        where coalesce({p}, {stands}, c.p, {by_people}) is not null"""


def bucket_sql(p: str, thresholds: Thresholds) -> str:
    """Bucket of a difficulty."""
    return (
        f"case when {p} > {thresholds.easy} then 'easy' when {p} > {thresholds.mid} then 'mid' "
        f"when {p} > {thresholds.hard} then 'hard' else 'suspect' end"
    )


def calibrate(con: duckdb.DuckDBPyConnection, columns: Columns, signals: list[str]) -> None:
    """Fill the temporary table `calibrated` (sample_id, p) for samples whose teacher gave grades alone."""
    con.execute("create or replace temp table calibrated (sample_id uuid, p double)")
    votes = columns("v")
    features = [f'x."{name}"::double as f{i}' for i, name in enumerate(n for n in FEATURES if n in signals)]
    found = con.execute(
        f"select j.sample_id::varchar as id, s.group_key as grp, truth, "
        f"list_position([{', '.join(votes)}], greatest({', '.join(votes)})) - 1 as said, "
        f"{' + '.join(votes)} as votes {''.join(', ' + f for f in features)} "
        "from judged j join samples s using (sample_id) join signals x using (sample_id) "
        f"where t0 is null and {' + '.join(f'{v}::int' for v in votes)} > 0 order by j.sample_id"
    ).fetchnumpy()
    if not len(found["id"]):
        return
    truth = np.nan_to_num(_floats(found["truth"]), nan=-1).astype(int)
    said = np.asarray(found["said"], dtype=int)
    table = np.column_stack([_floats(found["votes"])] + [_floats(found[f"f{i}"]) for i in range(len(features))])
    if not _tells_apart(table):
        return
    right = right_probability(table, said == truth, truth >= 0, np.asarray(found["grp"]))
    if right is None:
        return
    p = np.where((truth < 0) | (said == truth), right, (1 - right) / (columns.grades - 1))
    import polars as pl

    rows = pl.DataFrame({"sample_id": np.asarray(found["id"]).astype(str), "p": p})  # noqa: F841 (read by name)
    con.execute("insert into calibrated select sample_id::uuid, p from rows")


def _tells_apart(features: npt.NDArray[Any]) -> bool:
    """Whether anything differs between rows; one vote of one judge, and nothing else, makes all rows alike."""
    return len(np.unique(np.nan_to_num(features, nan=-1.0), axis=0)) > 1


def silence(con: duckdb.DuckDBPyConnection) -> None:
    """Take out the difficulty of a judge that says the same of every row: it then tells the grades apart, not the rows.

    Such is a teacher without rules, which gives each row the same probabilities.
    """
    con.execute(
        "delete from difficulty where judge in (select d.judge from difficulty d join judged using (sample_id) "
        f"group by d.judge having count(*) >= {_TELLING} and "
        "count(distinct (coalesce(truth, -1), round(p, 6))) = count(distinct coalesce(truth, -1)))"
    )


def _floats(column: Any) -> npt.NDArray[Any]:
    """A fetched column as floats, NaN where it is null."""
    floats = np.array(column, dtype=float)
    floats[np.ma.getmaskarray(column)] = np.nan  # type: ignore[no-untyped-call]
    return floats


def right_probability(
    features: npt.NDArray[Any], right: npt.NDArray[Any], known: npt.NDArray[Any], groups: npt.NDArray[Any]
) -> npt.NDArray[Any] | None:
    """(N,) probability that a judge's grade is right; out of fold by group where the truth is known.

    Args:
        features: (N, F), NaN for unknown.
        right: (N,) whether the grade equals the truth; counts where `known`.
        groups: (N,) rows of one group are predicted by a model that saw none of them.

    Returns:
        None where too few rows are known.
    """
    from sklearn.model_selection import GroupKFold

    if known.sum() < _ENOUGH or len(set(groups[known].tolist())) < _FOLDS:
        return None
    missing = np.isnan(features)
    inputs = np.hstack([np.where(missing, 0.0, features), missing.astype(float)])
    rows = np.flatnonzero(known)
    result = np.asarray(_predict(inputs[rows], right[rows], inputs), dtype=float)
    for fit, out in GroupKFold(_FOLDS).split(rows, groups=groups[rows]):
        result[rows[out]] = _predict(inputs[rows[fit]], right[rows[fit]], inputs[rows[out]])
    return result


def _predict(inputs: npt.NDArray[Any], right: npt.NDArray[Any], asked: npt.NDArray[Any]) -> npt.NDArray[Any]:
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler

    if right.all() or not right.any():
        return np.full(len(asked), (right.sum() + 1) / (len(right) + 2))
    model = make_pipeline(StandardScaler(), LogisticRegression())
    return np.asarray(model.fit(inputs, right).predict_proba(asked)[:, 1])
