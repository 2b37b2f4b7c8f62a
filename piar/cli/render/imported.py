"""How an import looks: what was taken for what, what came in, what was left out and what to mend."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from shlex import quote
from typing import TYPE_CHECKING

from rich.console import RenderableType

from piar.cli.render.common import facts
from store.figures import many

if TYPE_CHECKING:
    from piar.offline import GuidelineImport
    from piar.project.importing import Imported
    from store.importers import ImportReport

_SHOWN = 5  # of each list
_FEW_GROUPS = 20  # with fewer, intervals are wider than the gains that are looked for


def imported(found: "Imported", folder: Path, guideline: "GuidelineImport | None" = None) -> RenderableType:
    """What an import took for what, what it added, and what it left out."""
    report = found.report
    pairs: list[tuple[str, RenderableType]] = [
        ("rows", f"{report.read:,} read · {report.added:,} new samples · {report.known:,} known"),
        *_labels(report),
    ]
    pairs += [("read as", note) for note in found.notes]
    if report.splits:
        pairs.append(("splits", " · ".join(f"{name} {n:,}" for name, n in sorted(report.splits.items()))))
    if found.retired:
        pairs.append(("retired", retired_words(found.retired)))
    pairs += _columns(found)
    reasons = Counter(rejection.reason for rejection in report.rejected)
    for reason, n in reasons.most_common(_SHOWN):
        lines = [str(r.line) for r in report.rejected if r.reason == reason][:_SHOWN]
        pairs.append(("left out", f"{n:,} × {reason} (line {', '.join(lines)}{', …' if n > _SHOWN else ''})"))
    pairs += [("note", note) for note in _notes(found)]
    if found.proposed:
        pairs.append(("task", f"{folder / 'task.toml'} was proposed: give its grades names and meanings"))
    pairs += _guideline(guideline) if guideline else []
    verb = "evolve" if report.labels or report.known else "review here"
    pairs.append(("next", f"piar {verb} -C {quote(str(folder))}"))
    return facts(pairs)


def _labels(report: "ImportReport") -> list[tuple[str, RenderableType]]:
    new, told = report.labels - report.changed, []
    moved = sorted(report.changes.items(), key=lambda item: -item[1])
    cells = " · ".join(f"{before or 'none'} → {after or 'none'} {n:,}" for (before, after), n in moved[:_SHOWN])
    told = [
        f"{new:,} new",
        *([f"{report.changed:,} changed{f' ({cells})' if cells else ''}"] if report.changed else []),
    ]
    pairs: list[tuple[str, RenderableType]] = [("labels", " · ".join(told))]
    if report.repeats:
        pairs.append(("repeats", f"{many(report.repeats, 'row repeats', 'rows repeat')} a sample: more votes on it"))
    if report.conflicts:
        lines = "; ".join(" and ".join(map(str, rows)) for rows in report.conflicts[:_SHOWN])
        more = ", …" if len(report.conflicts) > _SHOWN else ""
        words = f"{many(len(report.conflicts), 'sample has', 'samples have')} several gold grades (lines {lines}{more})"
        pairs.append(("conflicts", f"{words}: the commonest counts; mend the file and import it again"))
    return pairs


def _columns(found: "Imported") -> list[tuple[str, RenderableType]]:
    """The roles of the columns; those that were guessed with their reason."""
    mapping, why = found.mapping, found.reasons
    pairs: list[tuple[str, RenderableType]] = [
        ("fields", f"{', '.join(found.fields)}: what a judge reads" if found.fields else "none")
    ]
    said = {
        "group": mapping.group,
        "gold": mapping.gold,
        "raters": ", ".join(mapping.raters),
        "counts": ", ".join(mapping.counts),
        "annotator": mapping.annotator,
        "date": mapping.date,
        "split": why.get("split"),
        "id": why.get("id"),
    }
    pairs += [(role, why.get(role) or name) for role, name in said.items() if name]
    if found.proposed:
        sign = " < " if found.ordered else ", "
        without = "" if found.ordered else " (no order known: --grades LOWEST,…,HIGHEST gives one)"
        pairs.append(("grades", sign.join(found.proposed) + without))
    if said_of_grades := why.get("grades"):
        pairs.append(("", said_of_grades))
    pairs += [("not used", reason) for reason in found.unused.values()]
    if found.left_out:
        listed = "; ".join(f"{name} ({reason})" for name, reason in found.left_out.items())
        pairs.append(("not read", listed))
    return pairs


def _whole_train(given: "Mapping[str, int]") -> str:
    """Options of `init` under which a file's train gives nothing."""
    from store.splits import SplitSettings

    kept = SplitSettings().train + sum(share for split, share in SplitSettings().shares.items() if split in given)
    return " ".join([*(f"--set split.{split}=0" for split in sorted(given)), f"--set split.train={kept:g}"])


def _notes(found: "Imported") -> list[str]:
    report, notes = found.report, []
    for doubt in found.doubts:
        others = " or ".join(f"--{doubt.role} {quote(name)}" for name in doubt.choices[1:4])
        people = (
            f", and --raters {quote(','.join(reversed(doubt.choices)))} takes all for people's"
            if doubt.role == "gold"
            else ""
        )
        notes.append(f"{doubt.taken} was taken for {doubt.role} by its shape alone; {others} says otherwise{people}")
    if report.given:
        words = " and ".join(f"{n:,} to {split}" for split, n in sorted(report.given.items()))
        notes.append(
            f"the file leaves splits empty, so groups of its train were dealt to them: {words}; its others stay. "
            f"[split] in piar.toml says how many: {_whole_train(report.given)} would keep train whole"
        )
    if found.renewed:
        notes.append(
            f"task.toml had changed and nothing was judged yet: the store was made anew, the old one is "
            f"{found.renewed}{_again(found.again)}"
        )
    if any(rejection.reason.startswith("unknown grade") for rejection in report.rejected):
        notes.append("until the first verdict a grade may be added to task.toml; then import the file again")
    if report.ungraded:
        words = ", ".join(f"{n:,} × {word!r}" for word, n in list(report.ungraded.items())[:_SHOWN])
        notes.append(f"{words} where a grade stands: read as none; where it is one, give all grades: --grades …")
    if report.same_ids:
        shown = ", ".join(report.same_ids[:_SHOWN])
        notes.append(
            f"{len(report.same_ids):,} ids stand for more than one content ({shown}): each content is a sample"
        )
    if alike := dict.fromkeys(report.near_duplicates):
        shown = " / ".join(next(iter(alike)))
        apart = many(len(alike), "pair of groups that differs", "pairs of groups that differ")
        notes.append(
            f"{apart} in spelling alone: they are in different splits ({shown}), so one teaches what the other asks; "
            "where the file says the splits, give both the same"
        )
    if 0 < found.groups < _FEW_GROUPS and report.added:
        groups = f"{found.groups} group{'s' if found.groups > 1 else ''}"
        notes.append(f"{groups} with labels: enough to try, too few to measure a gain")
    return notes


def _again(files: tuple[str, ...]) -> str:
    return f"; import again what else it held: {', '.join(files)}" if files else ""


def retired_words(groups: int) -> str:
    """That worn holdout groups have left."""
    why = "they decided several promotions, or taught the instruction in force"
    return f"{groups:,} holdout groups left for train: {why}, and as many fresh ones are there"


def _guideline(found: "GuidelineImport") -> list[tuple[str, RenderableType]]:
    lines: list[tuple[str, RenderableType]] = [("guideline", f"{many(len(found.recognised), 'rule')} recognised")]
    lines += [
        ("", f"{a} and {b} contradict each other: the same condition, two grades") for a, b in found.contradictions
    ]
    if found.unfollowed:
        lines.append(
            ("", f"{', '.join(found.unfollowed)}: not for the offline teacher; a language model may follow them")
        )
    return lines
