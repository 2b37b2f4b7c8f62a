"""How steady a teacher is: a flip audit before a gain is claimed, and a canary for an endpoint that silently changed.

Both ask again what was asked before, under keys of their own, so that no known answer can stand in and no
verdict is added. Chosen by us: the sizes, and the binomial test of the canary.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from piar.evolve.inputs import Inputs
from piar.evolve.resume import RunLog
from piar.evolve.search import Scoreboard
from piar.judging.ask_once import ask_once
from piar.judging.labeller import Labeller
from piar.judging.requests import Assignment
from store.db import Store
from store.ids import content_id
from store.trace import parse_trace
from store.types import Instruction, Sample

ALARM = 0.01  # chance of an alarm in a run in which nothing changed
LEAST_FLIPS = 0.05  # share of answers that even a steady endpoint may change


@dataclass(frozen=True, slots=True)
class Repeated:
    """What asking again brought; rows without an answer (a failure, a spent budget) do not count."""

    asked: int
    flipped: int

    @property
    def rate(self) -> float:
        """Share of answers that are another grade than before."""
        return self.flipped / self.asked if self.asked else 0.0


def ask_again(
    labeller: Labeller,
    instruction: Instruction,
    samples: Sequence[Sample],
    before: Sequence[str | None],
    role: str,
) -> Repeated:
    """Ask these samples once more and count the answers that changed.

    Args:
        before: the grade of each sample's first answer, None where it failed.
        role: `audit` or `canary`: what the answers are kept as.
    """
    session = labeller.session
    requests = labeller.agenda.requests([Assignment(instruction, samples)])
    asked = [replace(r, key=content_id(role, session.run_id, r.key)) for r in requests]
    answers = ask_once(session, asked, role=role)
    pairs = [
        (first, trace.grade)
        for first, answer in zip(before, answers, strict=True)
        if first and (trace := parse_trace(answer.text or "", session.store.task).trace)
    ]
    return Repeated(len(pairs), sum(first != second for first, second in pairs))


@dataclass(frozen=True, slots=True)
class Canary:
    """The fixed rows of this teacher: the answers of the first run, under the instruction that stood then.

    Attributes:
        keys: sample id -> what was asked, as a request's key; a row whose prompt is another now tells nothing.
        since: when they were first asked, ISO 8601; "" in the first run.
    """

    instruction: str
    grades: Mapping[str, str]
    keys: Mapping[str, str] = field(default_factory=dict)  # earlier versions kept none
    since: str = ""

    def to_json(self, model: str) -> dict[str, Any]:
        """What a run's record keeps."""
        return {"model": model, "instruction": self.instruction, "grades": dict(self.grades), "keys": dict(self.keys)}


def known_canary(store: Store, model: str, run_id: str) -> Canary | None:
    """The canary that was begun last for this model: a new one is begun when its prompts are others."""
    with store.read() as con:
        rows = con.execute(
            "select detail, created_at from run_events where status = 'canary' and run_id <> ? "
            "order by created_at desc",
            [run_id],
        ).fetchall()
    for detail, at in rows:
        data = json.loads(detail)
        if data["model"] == model and data.get("grades"):
            since = at.isoformat(timespec="minutes")
            return Canary(data["instruction"], data["grades"], data.get("keys", {}), since)
    return None


def changed_endpoint(found: Repeated, canary: Canary, usual: float) -> str | None:
    """A warning when more canary answers changed than a steady endpoint's would, else None.

    Args:
        usual: share of answers that this teacher is known to flip anyway.
    """
    from scipy.stats import binom

    rate = max(LEAST_FLIPS, usual)
    if not found.asked or float(binom.sf(found.flipped - 1, found.asked, rate)) > ALARM:
        return None
    return (
        f"The teacher answers {found.flipped} of {found.asked} canary rows differently than at {canary.since}: the "
        "endpoint has probably changed, and answers from before and after it cannot be compared. Name a dated version "
        "of the model in [teacher], so that everything is asked anew."
    )


def last_flip_rate(store: Store, model: str, run_id: str) -> float:
    """The flip rate that the latest audit of this model found, 0 without one."""
    with store.read() as con:
        rows = con.execute(
            "select detail from run_events where status = 'audit' and run_id <> ? order by created_at desc", [run_id]
        ).fetchall()
    found = (json.loads(detail) for (detail,) in rows)
    return next((float(d["flipped"]) / d["asked"] for d in found if d["model"] == model and d["asked"]), 0.0)


def _asked_alike(inputs: Inputs, board: Scoreboard, canary: Canary, most: int) -> list[Sample]:
    """The canary's rows that would be asked in the same words as then: neighbours and templates change."""
    samples = inputs.store.samples(ids=list(canary.grades)[:most])
    now = _keys(board, inputs.store.instruction(canary.instruction), samples)
    return [sample for sample in samples if canary.keys.get(sample.id, now[sample.id]) == now[sample.id]]


def _keys(board: Scoreboard, instruction: Instruction, samples: Sequence[Sample]) -> dict[str, str]:
    requests = board.labeller.agenda.requests([Assignment(instruction, samples)])
    return {sample.id: request.key for sample, request in zip(samples, requests, strict=True)}


def watch(inputs: Inputs, board: Scoreboard, log: RunLog) -> str | None:
    """Ask the canary rows of this teacher again, or begin a canary; a warning when the endpoint has changed."""
    model, size = board.teacher, inputs.settings.audit.canary
    if not size:
        return None
    canary = known_canary(inputs.store, model, log.run_id)
    samples = _asked_alike(inputs, board, canary, min(size, len(inputs.dev))) if canary else []
    if canary is None or not samples:
        rows = sorted(inputs.dev, key=lambda s: s.id)[:size]
        grades = board.grades(inputs.incumbent, rows)
        first = {s.id: board.symbols[g] for s, g in zip(rows, grades, strict=True) if g >= 0}
        begun = Canary(inputs.incumbent.id, first, _keys(board, inputs.incumbent, [r for r in rows if r.id in first]))
        log.step("canary", **begun.to_json(model), asked=0, flipped=0)
        return None
    found = ask_again(
        board.labeller,
        inputs.store.instruction(canary.instruction),
        samples,
        [canary.grades[s.id] for s in samples],
        "canary",
    )
    usual = last_flip_rate(inputs.store, model, log.run_id)
    alarm = changed_endpoint(found, canary, usual)
    log.step("canary", model=model, asked=found.asked, flipped=found.flipped, warning=alarm)
    return alarm
