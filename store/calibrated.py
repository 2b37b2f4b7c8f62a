"""Which calibration a judge has, and its verdicts read through it: raw probabilities stay in the store.

A student's is in its folder, beside its weights; any other judge's is what `piar calibrate` found last under its
instruction. A kept calibration replaces probabilities, and the grade of an answer that took the likeliest one. That
grade is the likeliest again, or the one that the student's decision rule gives: other judges have no rule.
"""

import json
from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import duckdb
import numpy as np
import pyarrow as pa
from duckdb.func import PythonUDFType
from pydantic import ValidationError

from store.calibration import CARD, Calibration
from store.decision_rule import DecisionRule
from store.errors import PiarError
from store.fragments import literal, valid_probs
from store.ids import short_hash
from store.judges import Judge
from store.probability_scores import usable
from store.stats import Floats
from store.types import Verdict

if TYPE_CHECKING:
    from store.db import Store

_KEPT = """
select e.detail->>'instruction', e.detail->>'calibration', e.created_at from run_events e join runs r using (run_id)
where r.verb = 'calibrate' and e.status = 'done' and e.detail->>'judge' = ? order by e.created_at desc"""

R = TypeVar("R", Calibration, DecisionRule)
VERB = "calibrate"  # of the runs that keep one in the store
_LATEST = f"""
select e.detail from run_events e join runs r using (run_id)
where r.verb = '{VERB}' and e.status = 'done' and e.detail->>'judge' = ? and e.detail->>'instruction' = ?
order by e.created_at desc limit 1"""


def student_folder(store: "Store", path: str) -> Path:
    """Where the student of a judge's name lies: as named from here, else as named from the project's folder."""
    return Path(path) if Path(path).exists() else store.path.parent / path


def kept(store: "Store", judge: Judge) -> Calibration | None:
    """The judge's calibration, if it has one.

    Raises:
        PiarError: one that cannot be read, or that was fitted for other grades.
    """
    kind, _, path = judge.name.partition(":")
    found = _of_folder(student_folder(store, path)) if kind == "student" else _of_store(store, judge)
    if found is None:
        return None
    calibration = _read(Calibration, found, "calibration", judge)
    calibration.require(len(store.task.symbols))
    return calibration


def kept_rule(store: "Store", judge: Judge) -> DecisionRule | None:
    """The decision rule of a student, if it has one; other judges have none.

    Raises:
        PiarError: one that cannot be read.
    """
    kind, _, path = judge.name.partition(":")
    found = _of_folder(student_folder(store, path), "rule") if kind == "student" else None
    return None if found is None else _read(DecisionRule, found, "decision rule", judge)


def calibrated_elsewhere(store: "Store", judge: Judge) -> str | None:
    """The instruction that this judge was calibrated under last, where it was never under its own; else None."""
    runs = store.frame(_KEPT, [judge.name]).rows()
    if not runs or runs[0][1] is None or any(instruction == judge.instruction for instruction, *_ in runs):
        return None
    return str(runs[0][0])


def truth_of(store: "Store", splits: Sequence[str]) -> str:
    """A hash of what is held true in these splits."""
    rows = store.frame(
        "select sample_id::varchar, grade from truth join samples using (sample_id) "
        "where list_contains($1, split) order by sample_id",
        [list(splits)],
    ).rows()
    return short_hash([f"{sample} {grade}" for sample, grade in rows], 16)


def fitted_on_other_truth(store: "Store", judge: Judge) -> bool:
    """Whether the judge's calibration was fitted on rows whose truth has changed since, or to which others came."""
    rows = store.frame(_LATEST, [judge.name, judge.instruction])
    detail = json.loads(rows.item()) if rows.height else {}
    if not detail.get("calibration") or "truth" not in detail:  # runs of an older version do not say
        return False
    return bool(detail["truth"] != truth_of(store, detail["splits"]))


def calibrated_since(store: "Store", judge: Judge, when: str) -> bool:
    """Whether this judge was calibrated anew, or its calibration taken back, after a time.

    Args:
        when: ISO 8601, with the zone.
    """
    then = datetime.fromisoformat(when).astimezone(UTC).replace(tzinfo=None)
    runs = store.frame(_KEPT, [judge.name]).rows()
    return any(instruction == judge.instruction and at > then for instruction, _, at in runs)


def _read(kind: type[R], found: Any, words: str, judge: Judge) -> R:
    try:
        return kind.model_validate(found)
    except ValidationError:
        raise PiarError(f"The {words} of {judge.name} cannot be read.", "Fit it again: `piar calibrate`.") from None


def _of_folder(folder: Path, key: str = "calibration") -> Any:
    try:
        card = json.loads((folder / CARD).read_text(encoding="utf-8"))
    except (OSError, ValueError):  # its verdicts outlive the student
        return None
    return card.get(key) if isinstance(card, dict) else None


def _of_store(store: "Store", judge: Judge) -> Any:
    rows = store.frame(_LATEST, [judge.name, judge.instruction])
    return json.loads(rows.item()).get("calibration") if rows.height else None


def calibrated_relation(con: duckdb.DuckDBPyConnection, store: "Store", source: str, judges: Sequence[Judge]) -> str:
    """Where to read verdicts as they count, calibrated and decided: `source` itself where no judge has either.

    Args:
        con: the connection that will read; it learns the functions of each calibration and rule.
        source: a table or view with the columns of `verdicts`.
        judges: whose calibrations and rules count; the verdicts of others are left as they are.

    Returns:
        A name, or a query in brackets.
    """
    for judge in dict.fromkeys(judges):
        calibration, rule = (kept(store, judge), kept_rule(store, judge)) if judge.name else (None, None)
        if calibration or rule:
            source = f"({_through(con, source, judge, calibration, rule, store.task.symbols)})"
    return source


def calibrated_verdicts(verdicts: Sequence[Verdict], calibration: Calibration, symbols: Sequence[str]) -> list[Verdict]:
    """The same for verdicts that are in no store, in the order given."""
    raw = np.full((len(verdicts), len(symbols)), np.nan)
    for place, verdict in enumerate(verdicts):
        if verdict.probs is not None and verdict.grade is not None:
            raw[place] = verdict.probs
    found = calibration.apply(raw)
    known = usable(found)
    return [_moved(verdict, raw[i], found[i], symbols) if known[i] else verdict for i, verdict in enumerate(verdicts)]


def _moved(verdict: Verdict, raw: Floats, found: Floats, symbols: Sequence[str]) -> Verdict:
    likeliest = verdict.grade == symbols[int(raw.argmax())]
    grade = symbols[int(found.argmax())] if likeliest else verdict.grade
    return replace(verdict, grade=grade, probs=tuple(found.tolist()))


def _through(
    con: duckdb.DuckDBPyConnection,
    source: str,
    judge: Judge,
    calibration: Calibration | None,
    rule: DecisionRule | None,
    symbols: Sequence[str],
) -> str:
    likeliest = "list_position({0}, list_max({0}))"
    corrected = f"{_function(con, 'calibrated', calibration)}(probs)" if calibration else "probs"
    place = f"{_function(con, 'decided', rule)}(calibrated)[1]::int + 1" if rule else likeliest.format("calibrated")
    grades = f"[{', '.join(map(literal, symbols))}]"
    mine = (
        f"judge = {literal(judge.name)} and instruction = {literal(judge.instruction)} and grade is not null "
        f"and {valid_probs('probs', len(symbols))}"
    )
    taken = f"grade = {grades}[{likeliest.format('probs')}]"
    return f"""
select * exclude (calibrated)
    replace (if(calibrated is not null and {taken}, {grades}[{place}], grade) as grade,
             coalesce(calibrated, probs) as probs)
from (select *, case when {mine} then {corrected} end as calibrated from {source})"""


def _function(con: duckdb.DuckDBPyConnection, verb: str, found: Calibration | DecisionRule) -> str:
    """The name under which this connection knows a calibration, or a rule: from a list of numbers to a list."""
    name = f"{verb}_{short_hash(found.model_dump(mode='json'), 12)}"
    if not con.execute("select 1 from duckdb_functions() where function_name = ?", [name]).fetchall():

        def apply(probs: pa.ChunkedArray) -> pa.Array:
            lists = probs.combine_chunks() if isinstance(probs, pa.ChunkedArray) else probs
            raw = np.asarray(lists.flatten(), dtype=np.float64).reshape(len(lists), -1)
            made = np.asarray(found.apply(raw), dtype=np.float32).reshape(len(lists), -1)
            ends = np.arange(len(lists) + 1, dtype=np.int32) * made.shape[1]
            return pa.ListArray.from_arrays(pa.array(ends), pa.array(made.reshape(-1)))

        floats = duckdb.list_type("FLOAT")
        con.create_function(name, apply, [floats], floats, type=PythonUDFType.ARROW)
    return name
