"""`piar look FILE`: something true about a file of labels that its owner did not know. Writes nothing.

Everything is measured on all rows, except baselines and what follows from them: on files
of more than `sample` rows, or of long texts, they see groups drawn at random, and the report says so.
"""

from collections.abc import Callable, Sequence
from pathlib import Path

import polars as pl

from piar.look import findings
from piar.look.columns import Material, load
from piar.look.report import BaselineFigure, GradeShare, LookReport
from piar.look.view import render
from piar.measure.baselines import Embed
from store.figures import many
from store.prepare import ImportMapping
from store.readers import Reading
from store.stats import Floats

__all__ = ["LookReport", "look", "render"]

SAMPLE = 4_000


def look(
    path: Path | str,
    *,
    gold: str | None = None,
    raters: str | Sequence[str] | None = None,
    group: str | None = None,
    fields: Sequence[str] | None = None,
    reading: Reading | None = None,
    mapping: ImportMapping | None = None,
    sample: int = SAMPLE,
    seed: int = 0,
    embed: Embed | None = None,
    on_step: Callable[[str], None] = lambda words: None,
) -> LookReport:
    """Look at a file of labels: CSV, TSV, JSON lines or Parquet.

    Args:
        gold: column of the final grade.
        raters: columns of single raters: names, or patterns such as `rater_*`.
        group: column whose equal values belong together (search: the query).
        fields: columns that a judge reads.
        reading: the file's encoding, sheet or control, where they cannot be told.
        mapping: what else is known of the columns, as `piar.Project.init` takes it.
        sample: rows that baselines see at most.
        seed: of sampling and resampling; the same file and seed give the same report.
        embed: the encoder of `[baselines]`, which has baselines of its own.
        on_step: is told in words what begins, for those who wait.

    Raises:
        PiarError: the file cannot be read, is empty, or a named column is not there.
    """
    on_step(f"reading {Path(path).name}")
    material = load(Path(path), gold, raters, group, fields, reading, mapping)
    shares = findings.grade_shares(material)
    seen: pl.DataFrame | None = None
    figures: list[BaselineFigure] = []
    learnt: list[Floats] = []
    if material.task is not None and any(share.n for share in shares):
        seen = findings.sample_of(material, sample, seed)
        figures, learnt = findings.simple_judges(material, seen, seed, on_step, embed)
    known = material.frame["truth"].count()
    return LookReport(
        file=Path(path).name,
        rows=len(material.frame),
        rejected=len(material.rejected),
        groups=material.frame["group"].n_unique(),
        group_name=material.columns.group or "row",
        columns=material.columns,
        grades=shares,
        agreement=findings.agreement(material, seed),
        suspects=findings.suspects(material),
        repeats=findings.repeats(material),
        shape=findings.shape(material),
        detectable=findings.detectable(material, seen, learnt),
        baselines=figures,
        sampled=len(seen) if seen is not None and len(seen) < known else None,
        notes=_notes(material, shares, known),
        mend=material.mend,
    )


def _notes(material: Material, shares: list[GradeShare], known: int) -> list[str]:
    """What is missing or odd, and what to do about it; one sentence each."""
    notes = [f"Read as {note}." for note in material.notes]
    if not material.columns.fields:
        notes.append("No text column was recognised: name them with --fields.")
    if material.fault:
        notes.append(material.fault)
    elif material.task is None and not (material.columns.gold or material.columns.raters):
        notes.append(
            "No grades were recognised: name their column with --gold, or --raters 'rater_*'; or say what they will be "
            "and grade rows yourself: piar init DIR --from FILE --grades LOWEST,…,HIGHEST, then piar review here."
        )
    elif known < len(material.frame):
        notes.append(f"{many(len(material.frame) - known, 'row has', 'rows have')} no grade.")
    passed = {role: why for role, why in material.columns.unused.items() if role != "gold" or not material.fault}
    notes += [f"Column {why}." for why in passed.values()]
    if sum(share.n > 0 for share in shares) == 1:
        notes.append("Every row has the same grade: nothing can be learnt or measured.")
    if material.rejected:
        reasons = pl.Series([r.reason for r in material.rejected]).value_counts(sort=True)
        reason, n = reasons.row(0)
        notes.append(f"{many(len(material.rejected), 'row cannot', 'rows cannot')} be used; {n:,} of them: {reason}.")
    return notes
