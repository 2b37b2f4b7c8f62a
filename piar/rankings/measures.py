"""What a ranking is worth, query by query: measures of `ir_measures` over pytrec_eval, and ERR@k.

Others: the measures and their names are those of ir_measures (MacAvaney et al. 2022), computed by trec_eval's code;
nDCG has trec_eval's linear gain, which is the grade's value; RR, AP and P count a document as relevant from a grade on.
ERR is gdeval's (Chapelle et al. 2009): R = (2^g - 1) / 2^m, m = 4 or the highest value on the scale if that is higher.
Chosen by us: a query that a run does not answer counts 0; documents that nobody judged count as not relevant, as in
trec_eval (`judged_only=True` leaves them out).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from store.errors import UsageError
from store.stats import Floats
from store.task import Task

DEFAULT = "nDCG@10,RR,AP,P@10,ERR@10"
_ERR = re.compile(r"ERR@([1-9]\d*)")
_CUT_RR = re.compile(r"(RR(?:\([^()]*\))?)@([1-9]\d*)")
_GDEVAL = 4  # highest grade of gdeval's scale
_WHOLE = 1000  # grades are multiplied by at most this to become whole numbers
_THRESHOLDED = ("RR", "AP", "P", "Rprec", "Success", "SetP", "SetF", "SetR", "SetAP", "Bpref")


@dataclass(frozen=True, slots=True)
class Measure:
    """A measure by the name that the user gave it.

    Attributes:
        standard: of ir_measures; None for ERR.
        k: how many places ERR and RR@k look at; 0: all.
    """

    name: str
    standard: Any = None
    k: int = 0


def gains(task: Task) -> dict[str, int]:
    """Grade symbol -> whole number in proportion to its value, as trec_eval takes them (nDCG does not see the factor).

    Raises:
        UsageError: grades without an order, or whose values are no multiples of a thousandth.
    """
    if not task.ordered:
        raise UsageError(
            "The grades have no order (`ordered = false` in task.toml), so no ranking is better than another.",
            "Number their values in task.toml, lowest first, and drop that line.",
        )
    for factor in range(1, _WHOLE + 1):
        scaled = [value * factor for value in task.values.values()]
        if all(abs(value - round(value)) < 1e-9 * factor for value in scaled):
            return {symbol: round(value) for symbol, value in zip(task.values, scaled, strict=True)}
    raise UsageError("The grades' values are no round numbers.", "Write values such as 0, 1, 2 or 0.5 in task.toml.")


def parsed(names: str, task: Task, relevant: str | None = None) -> tuple[Measure, ...]:
    """The measures; one that needs a threshold and names none gets that of `relevant`.

    Args:
        names: with commas between them, as ir_measures writes them: `nDCG@10,P(rel=2)@5`.
        relevant: the lowest grade that counts as relevant; the second lowest when None.

    Raises:
        UsageError: a name that is no measure here, or no grade.
    """
    symbol = relevant or task.symbols[1]
    if symbol not in task.symbols:
        raise UsageError(f"{symbol!r} is no grade.", f"Choose one of {', '.join(task.symbols)}.")
    threshold = gains(task)[symbol]
    found = re.findall(r"[^,()\s]+(?:\([^()]*\))?[^,()\s]*", names)
    if not found:
        raise UsageError("No measure is named.", f"Write --measure {DEFAULT}.")
    return tuple(_measure(name, threshold) for name in dict.fromkeys(found))


def _measure(name: str, threshold: int) -> Measure:
    import ir_measures

    if found := _ERR.fullmatch(name):
        return Measure(name, None, int(found[1]))
    cut = _CUT_RR.fullmatch(name)
    try:
        standard = ir_measures.parse_measure(cut[1] if cut else name)
        if standard.NAME in _THRESHOLDED and "rel" not in standard.params:
            standard = standard(rel=threshold)
        known = ir_measures.pytrec_eval.supports(standard)
    except (NameError, ValueError, SyntaxError, KeyError, AssertionError):
        known = False
    if not known:
        raise UsageError(f"{name!r} is no measure here.", f"Choose some as in {DEFAULT} or P(rel=2)@5.")
    return Measure(name, standard, int(cut[2]) if cut else 0)


def depth(measure: Measure) -> int:
    """How many places a measure looks at; 10 is shown where it has no end."""
    return int(found[1]) if (found := re.search(r"@(\d+)$", measure.name)) else 10


def per_query(
    measures: Sequence[Measure], run: pl.DataFrame, judged: pl.DataFrame, queries: Sequence[str], top: float
) -> dict[str, Floats]:
    """Name -> value of each query, in the order of `queries`; 0 where the run has no answer.

    Args:
        run: `query`, `document`, `place`.
        judged: `query`, `document`, `gain` (whole), `value` (of the grade).
        top: the highest value on the scale.
    """
    position = {query: i for i, query in enumerate(queries)}
    standard = _standard({str(m.standard): m.standard for m in measures if m.standard}, run, judged, position)
    out: dict[str, Floats] = {}
    for measure in measures:
        if measure.standard is None:
            grades = graded(run, judged, position, measure.k)
            out[measure.name] = expected_reciprocal_rank(grades, max(_GDEVAL, top))
        else:
            values = standard[str(measure.standard)]
            out[measure.name] = np.where(values * measure.k < 1 - 1e-9, 0.0, values) if measure.k else values
    return out


def _standard(
    asked: Mapping[str, Any], run: pl.DataFrame, judged: pl.DataFrame, position: Mapping[str, int]
) -> dict[str, Floats]:
    """Measure of ir_measures, by its own name -> value of each query."""
    import ir_measures

    out: dict[str, Floats] = {name: np.zeros(len(position)) for name in asked}
    if not asked:
        return out
    scored = run.with_columns(score=-pl.col("place").cast(pl.Float64))  # no ties are left to trec_eval
    evaluator = ir_measures.pytrec_eval.evaluator(list(asked.values()), _nested(judged, "gain"))
    for metric in evaluator.iter_calc(_nested(scored, "score")):
        if metric.query_id in position:
            out[str(metric.measure)][position[metric.query_id]] = metric.value
    return out


def _nested(frame: pl.DataFrame, value: str) -> dict[str, dict[str, Any]]:
    grouped = frame.group_by("query", maintain_order=True).agg("document", value)
    return {query: dict(zip(documents, values, strict=True)) for query, documents, values in grouped.iter_rows()}


def graded(run: pl.DataFrame, judged: pl.DataFrame, position: Mapping[str, int], k: int) -> Floats:
    """(queries, k) values of the grades in the first k places; 0 where nobody judged."""
    top = run.filter(pl.col("place") <= k).join(judged, on=["query", "document"])
    top = top.filter(pl.col("query").is_in(list(position)))
    out = np.zeros((len(position), k))
    rows = top["query"].replace_strict(position, return_dtype=pl.Int64).to_numpy()
    out[rows, top["place"].to_numpy() - 1] = top["value"].to_numpy()
    return out


def expected_reciprocal_rank(grades: Floats, top: float) -> Floats:
    """ERR of each row of grades (Q, k), by gdeval's formula; `top` is the scale's highest grade."""
    stops = (2.0 ** np.maximum(grades, 0) - 1) / 2.0**top
    goes_on = np.cumprod(1 - stops, axis=1) / (1 - stops)
    return np.asarray((stops * goes_on / np.arange(1, grades.shape[1] + 1)).sum(axis=1), dtype=np.float64)
