"""How an instruction, a difference, a run and a sample look."""

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.console import Group, RenderableType
from rich.text import Text

from piar.cli.render.common import facts, gain_short, percent, receipt_lines, table
from piar.cli.render.evolve import event_line
from piar.cli.verb import clean
from piar.evolve.guards import STATES as GUARD_STATES
from piar.evolve.resume import Event
from store.types import SPLITS

if TYPE_CHECKING:
    from piar.evolve.last_search import Tried
    from piar.instructions.diff import RuleChange
    from piar.measure.word_support import Support
    from piar.project import documents
    from piar.query.show import Difference, Flip, Version
    from store.task import Task
    from store.types import Instruction

SHOWN_VERDICTS = 8
_STYLE = {"added": "green", "dropped": "red", "changed": "yellow", "moved": "dim"}
_STEPS = {"opened": "provable", "canary": "same teacher"}  # names of steps that say nothing to a newcomer
_SIGN = {"added": "+", "dropped": "-", "changed": "~", "moved": "↕"}


def instruction_view(shown: "Instruction", known: "Sequence[Version]", current: str, task: "Task") -> RenderableType:
    """The rulebook as a person reads it, and the versions below."""
    from piar.instructions.markdown import write

    marks = {current: "in force"}
    rows = [[v.id, marks.get(v.id, v.outcome), v.author, v.rules, f"{v.made:%Y-%m-%d %H:%M}", _note(v)] for v in known]
    kept = [row for row in rows if row[1] or not _tried(str(row[2]))]
    more = Text(f"and {len(rows) - len(kept):,} that were tried on the way; --json lists all", style="dim")
    return Group(
        Text(clean(write(shown, task))),
        table(["version", "", "author", "rules", "made", "note"], kept),
        *([more] if len(kept) < len(rows) else []),
    )


def _note(version: "Version") -> str:
    """Why it was made, and what of that was called minor."""
    return " ".join(filter(None, [version.note, version.minor and f"[minor: {version.minor}]"]))


def _tried(author: str) -> bool:
    """Whether a search made it; searches of earlier versions merged, too."""
    return author == "merge" or author.startswith("reviser:")


def difference_document(found: "Difference") -> "documents.Versus":
    """The difference as JSON: ids for instructions, everything else as it is."""
    return {
        "before": found.before.id,
        "after": found.after.id,
        "judge": found.judge,
        "rules": found.rules,
        "flips": found.flips,
        "measured": {
            split: {
                "before": {"accuracy": old.scores.accuracy, "kappa": old.scores.quadratic_kappa},
                "after": {"accuracy": new.scores.accuracy, "kappa": new.scores.quadratic_kappa},
                "gain": found.gained[split].gain,
                "gain_majority": found.gained[split].majority,
            }
            for split, (old, new) in found.measured.items()
        },
        "samples": found.flipped,
        "support": found.support,
        "procedure": found.procedure,
        "taught": sorted(found.taught),
    }


def difference_view(found: "Difference", task: "Task") -> RenderableType:
    """Rules, figures, flips and some flipped samples."""
    parts: list[RenderableType] = [Text(f"{found.before.id} → {found.after.id}", style="bold")]
    parts += [Text(found.procedure)] if found.procedure else []
    parts += [_rule(change, found.support.get(change.id, ())) for change in found.rules] or [Text("no rule changed")]
    if found.judge is None:
        return Group(*parts, "", Text("Nobody has judged under both yet: piar score --against ID", style="dim"))
    rows = [
        [
            f"{split}, taught it" if split in found.taught else split,
            percent(old.scores.accuracy),
            percent(new.scores.accuracy),
            gain_short(found.gained[split].gain),
        ]
        for split, (old, new) in found.measured.items()
    ]
    if rows:
        parts += ["", table(["accuracy, %", "before", "after", "gain"], rows)]
    parts += ["", _flips(found.flips) if found.flips else Text("no sample changed grade")]
    if found.flipped:
        shown = [[row[name] for name in (*task.fields, "truth", "before", "after")] for row in found.flipped]
        parts += ["", table([*task.fields, "truth", "before", "after"], shown)]
    return Group(*parts)


def _flips(flips: "Sequence[Flip]") -> RenderableType:
    """How many samples of each split went from one grade to another."""
    splits = [split for split in SPLITS if any(flip.split == split for flip in flips)]
    counts = {(f.before or "failed", f.after or "failed", f.split): f.n for f in flips}
    moves = sorted({key[:2] for key in counts})
    rows = [
        [f"{before} → {after}", *(counts.get((before, after, split), 0) for split in splits)] for before, after in moves
    ]
    return table(["changed grade", *splits], rows)


def _rule(change: "RuleChange", words: "Sequence[Support]") -> Text:
    """A rule's change, and the rows behind each word that it quotes now."""
    text = Text(f"{_SIGN[change.kind]} ", style=_STYLE[change.kind])
    if change.kind == "changed":
        text.append(f"{clean(change.before)}\n  {clean(change.after)}")
    else:
        text.append(clean(change.after or change.before))
    if words:
        text.append(f"\n    {clean(' · '.join(word.sentence() for word in words))}", style="dim")
    return text


def candidate_document(tried: "Tried", found: "Difference") -> "documents.Candidate":
    """What became of a candidate, its test, and how it differs from what it was tested against."""
    return {
        "candidate": tried.candidate,
        "against": tried.against,
        "state": tried.state,
        "reason": tried.reason,
        "by": tried.by,
        "at": tried.at,
        "test": tried.tested,
        "difference": difference_document(found),
    }


def candidate_view(tried: "Tried", found: "Difference", task: "Task") -> RenderableType:
    """The decision, each guard, then the difference."""
    state = "waits for you" if tried.state == "waits" else f"{tried.state} by {clean(tried.by)}"
    lines: list[tuple[str, RenderableType]] = [
        ("candidate", f"{tried.candidate}, {state}, {tried.at}"),
        ("test", tried.reason),
    ]
    guards = [
        [g["name"], g["n"], f"{100 * g['change']:+.1f}", GUARD_STATES[g["state"]], g.get("note", "")]
        for g in tried.tested.get("guards", ())
    ]
    shown = [table(["grade or slice", "rows", "change, points", "guard", ""], guards), ""] if guards else []
    return Group(facts(lines), "", *shown, difference_view(found, task))


def run_view(found: Mapping[str, Any]) -> RenderableType:
    """A run's head, its steps and its receipt."""
    head = [
        ("run", str(found["run_id"])),
        ("began", f"{found['started']:%Y-%m-%d %H:%M:%S} UTC, piar {found['version']}, seed {found['seed']}"),
        ("config", json.dumps(found["config"], ensure_ascii=False)),
    ]
    steps = [
        [f"{step['created_at']:%H:%M:%S}", _STEPS.get(step["status"], step["status"]), _step(step)]
        for step in found["steps"]
    ]
    return Group(facts(head), "", table(["at", "step", "detail"], steps), "", facts(receipt_lines(found["receipt"])))


def _step(step: Mapping[str, Any]) -> str:
    """A step in words where it has some; --json holds all of every step."""
    told = event_line(Event(step["status"], step["detail"])) if step["detail"] else None
    return told.plain.strip() if told else json.dumps(step["detail"], ensure_ascii=False)[:160]


def sample_view(found: Mapping[str, Any], task: "Task") -> RenderableType:
    """A sample's fields, its labels and what judges said and why."""
    sample = found["sample"]
    truth = found["truth"][0] if found["truth"] else {"grade": "unknown", "basis": "no label"}
    head: list[tuple[str, RenderableType]] = [(name, clean(sample[name])) for name in task.fields]
    head += [
        ("id", f"{sample['sample_id']}  {sample['external_id'] or ''}".strip()),
        ("split", f"{sample['split']}, from {clean(sample['source'])}"),
        ("truth", f"{truth['grade']} ({truth['basis']})"),
    ]
    labels = [
        [
            row["source"],
            row["annotator"],
            f"{row['grade']}, superseded" if row["superseded"] else row["grade"],
            row["comment"],
        ]
        for row in found["labels"]
    ]
    verdicts = [
        [
            row["judge"],
            row["instruction"],
            row["grade"] or row["failure"],
            ", ".join(row["rules"] or ()),
            " · ".join(row["evidence"] or ()),
        ]
        for row in found["verdicts"][-SHOWN_VERDICTS:]
    ]
    parts: list[RenderableType] = [facts(head)]
    if labels:
        parts += ["", table(["label", "by", "grade", "comment"], labels)]
    if verdicts:
        parts += ["", table(["judge", "instruction", "grade", "rules", "evidence"], verdicts)]
    if len(found["verdicts"]) > SHOWN_VERDICTS:
        parts.append(
            Text(f"and {len(found['verdicts']) - SHOWN_VERDICTS:,} earlier ones; --json lists all", style="dim")
        )
    return Group(*parts)
