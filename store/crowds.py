"""What tables of crowds' platforms say of an answer beside it: that nobody gave it, or that it was sent back.

Mechanical Turk and Toloka write the state of each piece of work, SageMaker Ground Truth whether people labelled a row.
"""

from dataclasses import replace

import polars as pl

from store.figures import many
from store.tables import Rejection, Table

_STATES = ("assignmentstatus", "assignment:status")
_ABOUT = "-metadata"  # Ground Truth: `label` and `label-metadata`
_BY_MACHINE = r'"human-annotated"\s*:\s*"no"'


def without_refused_work(table: Table) -> Table:
    """The rows whose work the requester took; the others are counted with their reason."""
    state = next((name for name in table.frame.columns if name.lower() in _STATES), None)
    if state is None or table.votes is not None:  # votes count rows
        return table
    refused = table.frame[state].str.to_lowercase() == "rejected"
    if not refused.any():
        return table
    left = tuple(Rejection(line, "work that was rejected") for line in table.lines.filter(refused))
    return replace(
        table, frame=table.frame.filter(~refused), lines=table.lines.filter(~refused), rejected=table.rejected + left
    )


def without_machine_labels(table: Table) -> Table:
    """Labels that a model gave are no gold: those rows have none."""
    frame, notes = table.frame, list(table.notes)
    for about in [name for name in frame.columns if name.endswith(_ABOUT)]:
        name = about.removesuffix(_ABOUT)
        by_machine = frame[about].str.contains(_BY_MACHINE)
        if name in frame.columns and by_machine.any():
            frame = frame.with_columns(pl.when(by_machine).then(pl.lit("")).otherwise(pl.col(name)).alias(name))
            notes.append(f"without {many(int(by_machine.sum()), 'label')} of {name} that a machine gave")
    return replace(table, frame=frame, notes=tuple(notes))
