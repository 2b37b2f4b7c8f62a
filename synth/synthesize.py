"""`synthesize`: thin cells → drafts → screens → samples of the training split, each step counted."""

import re
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from itertools import zip_longest

from piar.judging.ask_once import ask_once
from piar.judging.labeller import Labeller
from piar.judging.origin import Origin
from piar.judging.outcome import LabelReport, counted, stop_if_hopeless
from piar.judging.requests import Assignment
from piar.judging.session import Session
from piar.llm.base import Completion, Request, is_simulated
from store.calibrated import calibrated_verdicts, kept
from store.db import Store, now, quote
from store.errors import PiarError
from store.judges import Judge
from store.turns import alone
from store.types import Instruction, Sample, Verdict
from synth.drafts import Draft, Proposer, Status, Target, Want
from synth.generate import ByModel
from synth.offline import Offline
from synth.screen import AFTER_ASKING, BEFORE_ASKING, Evidence, find_matches, first_failure, status
from synth.settings import SynthSettings
from synth.targets import find_parents, find_targets, make_cited

_CELLS = 8  # cells that a model is asked to draft for together
_AT_ONCE = 32  # drafts judged before looking whether the cell is full


@dataclass(slots=True)
class SynthReport:
    """What synthesis did.

    Attributes:
        asked: drafts that were made.
        kept: samples added to the training split.
        dropped: reason -> drafts.
        borderline: drafts on which the teacher was split, stored for people.
        cells: (target, samples kept for it).
        judged: what the teacher was asked about the drafts.
    """

    asked: int = 0
    kept: int = 0
    dropped: Counter[str] = field(default_factory=Counter)
    borderline: int = 0
    cells: list[tuple[Target, int]] = field(default_factory=list)
    judged: LabelReport = field(default_factory=LabelReport)


@dataclass(frozen=True, slots=True)
class _Outcome:
    draft: Draft
    status: Status
    reason: str


def synthesize(
    teacher: Session,
    instruction: Instruction,
    settings: SynthSettings,
    *,
    writer: Session | None = None,
    targets: str | None = None,
) -> SynthReport:
    """Fill thin cells of the training split; dev, holdout and test are never touched.

    Args:
        teacher: judges the drafts without being told the target. Its `on_progress` is told how many were screened;
            how many will be, nobody knows.
        writer: who writes drafts; None makes them offline from the store's own words.
        targets: your own query for cells, see `find_targets`.

    Raises:
        UsageError: a wrong query for targets.
        PiarError: the teacher cannot be asked at all, or nothing that came back could be read.
    """
    store = teacher.store
    with alone(teacher.journal.folder / "synth.lock", "piar synth"):
        judge = Labeller(replace(teacher, on_progress=None))
        with store.read() as con:
            offline = is_simulated(teacher.client)
            by_grade = make_cited(con, judge.judge_name, instruction.id, simulated=offline)
            cells = find_targets(con, instruction, settings, targets, by_grade=by_grade)
            parents = find_parents(con, store)
        report, writes, tell = SynthReport(), None, counted(None, teacher.on_progress)
        proposer: Proposer = Offline(store.task, instruction, parents, settings.seed)
        if writer is not None:
            proposer = writes = ByModel(
                writer.client.model,
                store.task,
                instruction,
                parents,
                ask=partial(_written, writer),
                prompts=writer.prompts,
                seed=settings.seed,
            )
        with judge:
            while wave := _wave(cells, settings.n - report.kept):
                cells = cells[len(wave) :]
                for target, drafts in zip(wave, _drafts(proposer, wave, settings), strict=True):
                    outcomes = _screen(store, judge, instruction, drafts, settings, report.judged, tell)
                    _record(store, outcomes, teacher.run_id)
                    _count(report, target, outcomes)
    report.judged.require(judge.judge_name)
    if writes and writes.unread and not report.asked:
        raise PiarError(
            f"{writes.model} was asked for drafts, and none of {writes.unread} answers could be read; "
            f"the last one: {writes.reason}",
            "Take another model under [teacher], or change the templates `synth/*.j2` in prompts/.",
        )
    return report


def _written(writer: Session, requests: Sequence[Request]) -> list[Completion]:
    """The writer's answers; what it was asked before is not asked again.

    Raises:
        PiarError: it cannot be asked at all.
    """
    origin = Origin(writer.store, f"synth:{writer.client.model}", writer.model, "answers")
    answers = ask_once(writer, requests, role="synth", origin=origin)
    stop_if_hopeless(answers)
    return answers


def _wave(cells: Sequence[Target], left: int) -> list[Target]:
    """The first cells, so many as are drafted for together; all of them want `left` samples at most."""
    wave: list[Target] = []
    for cell in cells[:_CELLS]:
        wanted = min(cell.wanted, left - sum(target.wanted for target in wave))
        if wanted > 0:
            wave.append(replace(cell, wanted=wanted))
    return wave


def _drafts(proposer: Proposer, wave: Sequence[Target], settings: SynthSettings) -> list[list[Draft]]:
    """Drafts for each cell, all methods in turn, so that the first kept ones mix them."""
    wants = [Want(target, method, settings.drafts(target.wanted)) for target in wave for method in settings.methods]
    found, methods = proposer.propose(wants), len(settings.methods)
    by_cell = [found[place : place + methods] for place in range(0, len(found), methods)]
    return [[d for turn in zip_longest(*by_method) for d in turn if d is not None] for by_method in by_cell]


def _screen(
    store: Store,
    judge: Labeller,
    instruction: Instruction,
    drafts: Sequence[Draft],
    settings: SynthSettings,
    judged: LabelReport,
    tell: Callable[[int], None],
) -> list[_Outcome]:
    """Screen one cell's drafts; the teacher is asked only about those that pass what costs nothing."""
    task = store.task
    whole = [d for d in drafts if not first_failure(BEFORE_ASKING[:1], d, Evidence(), task, settings)]
    samples = {id(d): d.sample(task) for d in whole}
    with store.read() as con:
        matches, groups = find_matches(con, store, list(samples.values()))
    outcomes: list[_Outcome] = []
    waiting: list[tuple[Draft, Evidence]] = []
    seen: set[tuple[str, ...]] = set()
    for draft in drafts:
        evidence = Evidence()
        if sample := samples.get(id(draft)):
            said = _words(sample)
            evidence = Evidence(tuple(matches.get(sample.id, ())), groups.get(sample.group), repeats=said in seen)
            seen.add(said)
        if reason := first_failure(BEFORE_ASKING, draft, evidence, task, settings):
            outcomes.append(_Outcome(draft, "dropped", reason))
        else:
            waiting.append((draft, evidence))
    tell(len(outcomes))
    return outcomes + _ask(judge, instruction, waiting, samples, settings, judged, tell)


def _words(sample: Sample) -> tuple[str, ...]:
    """What a draft says, whatever its capitals, blanks and marks: models repeat themselves with small changes."""
    return tuple(" ".join(re.findall(r"\w+", text.casefold())) for text in sample.fields.values())


def _ask(
    judge: Labeller,
    instruction: Instruction,
    waiting: Sequence[tuple[Draft, Evidence]],
    samples: dict[int, Sample],
    settings: SynthSettings,
    judged: LabelReport,
    tell: Callable[[int], None],
) -> list[_Outcome]:
    """Let the teacher judge drafts until the cell has what it wants."""
    outcomes: list[_Outcome] = []
    siblings: Counter[str] = Counter()
    kept = 0
    for start in range(0, len(waiting), _AT_ONCE):
        part = waiting[start : start + _AT_ONCE]
        if kept >= part[0][0].target.wanted:
            break
        votes = _votes(judge, instruction, [samples[id(draft)] for draft, _ in part], settings.votes, judged)
        tell(len(part))
        for draft, before in part:
            parent = draft.parent.id if draft.parent else ""
            verdicts = tuple(votes.get(samples[id(draft)].id, ()))
            evidence = replace(before, verdicts=verdicts, siblings=siblings[parent])
            reason = first_failure(AFTER_ASKING, draft, evidence, judge.store.task, settings)
            if not reason and kept >= draft.target.wanted:
                reason = "cell is full"
            outcomes.append(_Outcome(draft, status(draft, evidence, reason, settings), reason))
            if not reason:
                kept += 1
                siblings[parent] += 1
    return outcomes


def _votes(
    judge: Labeller, instruction: Instruction, samples: Sequence[Sample], votes: int, judged: LabelReport
) -> dict[str, list[Verdict]]:
    """Sample id -> the teacher's verdicts, as its calibration has them where it has one."""
    found: dict[str, list[Verdict]] = {}
    judged += judge.judge(
        [Assignment(instruction, samples, votes)], lambda v: found.setdefault(v.sample_id, []).append(v)
    )
    calibration = kept(judge.store, Judge(judge.judge_name, instruction.id))
    if calibration is None:
        return found
    return {key: calibrated_verdicts(said, calibration, judge.store.task.symbols) for key, said in found.items()}


def _record(store: Store, outcomes: Sequence[_Outcome], run_id: str) -> None:
    """Keep every draft in `synthesis`, and the kept ones as training samples with their parent."""
    task, moment = store.task, now()
    tried, kept = [], []
    for outcome in outcomes:
        draft, sample = outcome.draft, outcome.draft.sample(task)
        parent, target = draft.parent.id if draft.parent else None, draft.target
        tried.append(
            [
                sample.id,
                parent,
                draft.method,
                target.rule,
                target.grade,
                target.bucket,
                outcome.status,
                outcome.reason,
                list(sample.fields.values()),
                run_id,
                moment,
            ]
        )
        if outcome.status == "kept":
            kept.append(
                [sample.id, sample.group, f"synth:{draft.method}", parent, run_id, moment, *sample.fields.values()]
            )
    fields = ", ".join(map(quote, task.fields))
    with store.write() as con:
        if tried:
            con.executemany("insert into synthesis values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", tried)
        if kept:
            con.executemany(
                "insert into samples (sample_id, group_key, source, parent_id, run_id, created_at, split, origin, "
                f"{fields}) values (?, ?, ?, ?, ?, ?, 'train', 'synthetic', {', '.join('?' * len(task.fields))})",
                kept,
            )


def _count(report: SynthReport, target: Target, outcomes: Sequence[_Outcome]) -> None:
    kept = sum(o.status == "kept" for o in outcomes)
    report.asked += len(outcomes)
    report.kept += kept
    report.borderline += sum(o.status == "borderline" for o in outcomes)
    report.dropped.update(o.reason for o in outcomes if o.status == "dropped")
    report.cells.append((target, kept))
