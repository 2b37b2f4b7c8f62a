"""`piar report`: one self-contained HTML page about what is known, each figure with its query.

Reads the store and nothing else: it asks no model, holds no lock for long, and writes one file by
rename. The page loads nothing from a network and escapes every text that came from data.
"""

import os
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from piar import report_data as data
from piar import report_walk as walk
from piar.report_policy import contradictions
from store.db import Store, now
from store.figures import NO_INTERVAL, span


@dataclass(frozen=True, slots=True)
class ReportFile:
    """Where the page was written, and the first two sentences on it."""

    path: Path
    headline: str
    detail: str


def report(store: Store, out: Path, *, teacher: str = "", notes: tuple[str, ...] = (), moved: Any = None) -> ReportFile:
    """Write the page.

    Args:
        store: the project's store.
        out: the file to write; replaced whole.
        teacher: the configured teacher's name; the offline one is called simulated on the page.
        notes: more to show under the headline.
        moved: `piar.traffic.drift` of the latest logs, None where it is not known.

    Raises:
        PiarError: the store cannot be read, or the folder of `out` cannot be written.
    """
    with store.read():
        values = collect(store, (*simulated(store, teacher), *notes), moved)
    page = (
        _environment()
        .from_string(files("piar").joinpath("templates", "report.html.j2").read_text("utf-8"))
        .render(values)
    )
    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    partial.write_text(page, encoding="utf-8")
    partial.replace(out)
    return ReportFile(out, values["headline"], values["subline"])


def simulated(store: Store, teacher: str) -> list[str]:
    """What about the figures is simulated, in words."""
    told = []
    sources = store.frame("select distinct source from samples where contains(source, '(simulated)') order by 1")
    if sources.height:
        told.append(
            f"The data is simulated: {', '.join(sources['source'])}. Its figures say nothing about real queries."
        )
    if teacher == "rulebook":
        told.append(
            "The teacher is simulated: a literal-minded rule follower, not a language model. It is a rule learner, so "
            "judge it beside the plain baselines below."
        )
    return told


def _environment() -> ImmutableSandboxedEnvironment:
    return ImmutableSandboxedEnvironment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )


def collect(store: Store, notes: tuple[str, ...] = (), moved: Any = None) -> dict[str, Any]:
    """Everything the page shows, as plain values."""
    pair, folder = data.pair(store), store.path.parent
    gains = data.gains(store, pair)
    values: dict[str, Any] = {
        "task": {"name": store.task.name},
        "made_at": f"{now():%d %B %Y, %H:%M} UTC",
        "teacher": (pair.judge or "not asked yet").removeprefix("teacher:"),
        "store_name": store.path.name,
        "simulated": list(notes),
        "gains": gains,
        "rules": data.rules(store, pair),
        "confusions": data.confusions(store, pair),
        "slices": data.slices(store, pair),
        "lineage": data.lineage(store, pair),
        "people": walk.people(store),
        "contradictions": contradictions(store, pair),
        "difficulty": walk.difficulty(store, walk.manifest(folder)),
        "training": walk.training(folder),
        "students": walk.students(store),
        "logs": walk.logs(store, moved),
        "data": data.splits(store),
        "cost": data.cost(store),
        "runs": data.runs(store),
    }
    values["headline"], values["subline"] = headline(gains)
    values["cards"] = cards(values)
    titles = {
        "gains": "What changed",
        "rules": "Instruction",
        "confusions": "Confusion",
        "slices": "Slices",
        "lineage": "Lineage",
        "people": "People",
        "contradictions": "Unwritten policy?",
        "difficulty": "Difficulty",
        "training": "Training",
        "students": "Students",
        "logs": "Logs",
        "data": "Data",
        "cost": "Cost",
        "runs": "Configuration",
    }
    anchors = {"rules": "instruction", "confusions": "confusion", "runs": "configuration"}
    values["sections"] = [{"id": anchors.get(k, k), "title": t} for k, t in titles.items() if values[k]]
    return values


def headline(gains: dict[str, Any] | None) -> tuple[str, str]:
    """The first sentence a reader sees, and the one below it. A gain is claimed only by its interval."""
    rows = [] if gains is None else gains["rows"]
    best = next((r for r in rows if r["split"] == "test"), next((r for r in rows if r["split"] == "holdout"), None))
    if best is None:
        return (
            "Nothing has been measured yet",
            "Run `piar evolve`, then `piar score --split test`, then make this page again.",
        )
    where = f"{best['groups']} {'untouched test' if best['split'] == 'test' else 'holdout'} groups"
    ends = span(best["low"], best["high"], "{:+.1f}", 100)
    sure = f"95 % interval {ends} points, by group" if ends else f"no interval: {NO_INTERVAL}"
    if best["tone"] == "good":
        return (
            f"The new instruction is right {100 * best['mean']:.1f} points more often than the one you started with",
            f"{sure}; on {where}, against {best['truth']}.",
        )
    if best["tone"] == "bad":
        return (
            f"The new instruction is right {-100 * best['mean']:.1f} points less often: keep the one you have",
            f"{sure}; on {where}, against {best['truth']}.",
        )
    return (
        "No difference can be claimed between the new instruction and the one you started with",
        f"{100 * best['mean']:+.1f} points on {where}; {sure}.",
    )


def cards(values: dict[str, Any]) -> list[dict[str, str]]:
    """The row of large figures under the headline."""
    total, spend = values["data"], values["cost"]
    result = []
    rows = (values["gains"] or {"rows": []})["rows"]
    for row in [r for r in rows if r["split"] == "test"][:2]:
        result.append(
            {
                "value": f"{100 * row['after']:.1f} %",
                "tone": "",
                "label": f"right on test against {row['truth']}; {100 * row['before']:.1f} % before",
            }
        )
    best = max((r for r in (values["students"] or {"rows": []})["rows"] if r["latency"]),
               key=lambda r: r["scores"].accuracy.value, default=None)  # fmt: skip
    if best is not None:
        first = best["latency"]["first_token"]["p50"]
        result.append({"value": f"{first:.1f} ms", "tone": "", "label": f"to the grade of {best['name']}"})
    result += [
        {"value": f"{total['n']:,}", "tone": "", "label": f"samples in {total['groups']:,} groups"},
        {"value": str(len(values["rules"]["rows"])), "tone": "", "label": "rules in the instruction"},
        {"value": f"{spend['calls']:,}", "tone": "", "label": f"answers, US$ {spend['usd']:.2f} in all"},
    ]
    return result
