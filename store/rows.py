"""Values of `store.types` as Arrow tables shaped like the tables of `schema.sql`: how rows enter in bulk."""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import pyarrow as pa

from store.ids import light_id
from store.types import NOTHING_FURTHER, Completion, Label, Verdict

_TEXTS = pa.list_(pa.string())
_TIME = pa.timestamp("us")

COMPLETIONS = pa.schema(
    [
        ("key", pa.string()),
        ("role", pa.string()),
        ("run_id", pa.string()),
        ("model", pa.string()),
        ("text", pa.string()),
        ("failure", pa.string()),
        ("error", pa.string()),
        ("attempts", pa.int32()),
        ("tokens_in", pa.int64()),
        ("tokens_cached", pa.int64()),
        ("tokens_out", pa.int64()),
        ("cost_usd", pa.float64()),
        ("seconds", pa.float64()),
        ("created_at", _TIME),
    ]
)
VERDICTS = pa.schema(
    [
        ("key", pa.string()),
        ("sample_id", pa.string()),
        ("judge", pa.string()),
        ("instruction", pa.string()),
        ("vote", pa.int32()),
        ("grade", pa.string()),
        ("probs", pa.list_(pa.float32())),
        ("evidence", _TEXTS),
        ("steps", _TEXTS),
        ("rules", _TEXTS),
        ("trace_verdict", pa.string()),
        ("failure", pa.string()),
        ("run_id", pa.string()),
        ("created_at", _TIME),
    ]
)
LABELS = pa.schema(
    [
        ("label_id", pa.string()),
        ("sample_id", pa.string()),
        ("source", pa.string()),
        ("annotator", pa.string()),
        ("grade", pa.string()),
        ("ordinal", pa.int32()),
        ("comment", pa.string()),
        ("flags", _TEXTS),
        ("rule", pa.string()),
        ("seconds", pa.float64()),
        ("blind", pa.bool_()),
        ("batch", pa.string()),
        ("origin", pa.string()),
        ("run_id", pa.string()),
        ("created_at", _TIME),
        ("further", pa.string()),
    ]
)


def completion_row(completion: Completion, role: str, run_id: str) -> tuple[Any, ...]:
    """One row of `completions` without its date, in the order of `COMPLETIONS`."""
    failure, usage = completion.failure, completion.usage
    return (
        completion.key,
        role,
        run_id,
        completion.model,
        completion.text,
        failure.kind if failure else None,
        failure.message if failure else None,
        completion.attempts,
        usage.prompt,
        usage.cached,
        usage.completion,
        completion.cost_usd,
        completion.seconds,
    )


def verdict_row(verdict: Verdict, steps: Sequence[str], run_id: str, at: datetime) -> tuple[Any, ...]:
    """One row of `verdicts`, in the order of `VERDICTS`; `steps` are the names of the task's steps."""
    trace = verdict.trace
    return (
        verdict.key,
        verdict.sample_id,
        verdict.judge,
        verdict.instruction,
        verdict.vote,
        verdict.grade,
        verdict.probs,
        trace.evidence if trace else None,
        [trace.steps.get(name, "") for name in steps] if trace else None,
        trace.rules if trace else None,
        trace.verdict if trace else None,
        verdict.failure,
        run_id,
        at,
    )


def label_row(label: Label, run_id: str, at: datetime) -> tuple[Any, ...]:
    """One row of `labels`, in the order of `LABELS`; dated `at` where the label has no date of its own."""
    return (
        label_id(label),
        label.sample_id,
        label.source,
        label.annotator,
        label.grade,
        label.ordinal,
        label.comment,
        label.flags,
        label.rule,
        label.seconds,
        label.blind,
        label.batch,
        label.origin,
        run_id,
        label.at or at,
        label.further,
    )


def label_id(label: Label) -> str:
    """Content hash of what a label says and who says it; not of when, how fast or from which file."""
    who = (label.sample_id, label.source, label.annotator, str(label.ordinal), label.batch)
    more = () if label.further == NOTHING_FURTHER else (label.further,)
    return light_id("label", *who, label.grade or "", label.comment, ",".join(label.flags), label.rule or "", *more)


def table(rows: Iterable[Sequence[Any]], schema: pa.Schema) -> pa.Table:
    """Rows as one Arrow table.

    Raises:
        pyarrow.ArrowException, TypeError, ValueError: a value does not fit its column.
    """
    columns = list(zip(*rows, strict=True)) or [()] * len(schema)
    arrays = [pa.array(values, field.type) for values, field in zip(columns, schema, strict=True)]
    return pa.Table.from_arrays(arrays, schema=schema)
