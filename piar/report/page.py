"""`piar report`: one self-contained HTML page about what is known, each figure with its query.

Reads the store and nothing else: it asks no model, holds no lock for long, and writes one file by
rename. The page loads nothing from a network and escapes every text that came from data.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from jinja2 import StrictUndefined
from jinja2.sandbox import ImmutableSandboxedEnvironment

from piar.evolve.last_search import in_force, last_search, tried
from piar.report import after_the_instruction as walk
from piar.report import figures as data
from piar.report.audits import audits
from piar.report.candidate import candidate
from piar.report.guideline import doubted
from piar.report.headline import headline
from piar.report.pair import Pair, pair
from piar.report.probabilities import probabilities
from piar.report.unwritten_policy import contradictions
from store.db import Store, now
from store.figures import many
from store.simulated import simulated_sources
from store.types import Instruction

if TYPE_CHECKING:
    from piar.measure.baselines import Embed


@dataclass(frozen=True, slots=True)
class ReportFile:
    """Where the page was written, and the first two sentences on it."""

    path: Path
    headline: str
    detail: str


def report(
    store: Store,
    out: Path,
    *,
    current: Instruction | None = None,
    offline: bool = False,
    notes: tuple[str, ...] = (),
    moved: Any = None,
    embed: "Embed | None" = None,
) -> ReportFile:
    """Write the page.

    Args:
        store: the project's store.
        out: the file to write; replaced whole.
        current: the instruction in force; what the store holds for it when None.
        offline: the configured teacher is the offline one, which the page calls simulated.
        notes: more to show under the headline.
        moved: `piar.measure.live_logs.drift` of the latest logs, None where it is not known.
        embed: the encoder of `[baselines]`, whose baselines are shown too.

    Raises:
        PiarError: the store cannot be read, or the folder of `out` cannot be written.
    """
    with store.read():
        values = collect(store, current or in_force(store), (*simulated(store, offline), *notes), moved, embed)
    page = render("report.html.j2", values)
    partial = out.with_name(f".{out.name}.{os.getpid()}.part")
    partial.write_text(page, encoding="utf-8")
    partial.replace(out)
    return ReportFile(out, values["headline"], values["subline"])


def simulated(store: Store, offline: bool) -> list[str]:
    """What about the figures is simulated, in words."""
    told = []
    if sources := simulated_sources(store):
        told.append(f"The data is simulated: {', '.join(sources)}. Its figures say nothing about real queries.")
    if offline:
        told.append(
            "The teacher is simulated: a literal-minded rule follower, not a language model. It is a rule learner, so "
            "judge it beside the plain baselines below."
        )
    return told


def render(template: str, values: Mapping[str, Any]) -> str:
    """A page as HTML; every text from data is escaped.

    Args:
        template: name of a file of `piar/templates`.
    """
    environment = ImmutableSandboxedEnvironment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters["many"] = many
    return environment.from_string(files("piar").joinpath("templates", template).read_text("utf-8")).render(values)


def collect(
    store: Store,
    current: Instruction | None,
    notes: tuple[str, ...] = (),
    moved: Any = None,
    embed: "Embed | None" = None,
) -> dict[str, Any]:
    """Everything the page shows, as plain values."""
    last, folder = tried(store), store.path.parent
    compared = pair(store, current, last)
    gains = data.gains(store, compared)
    start = compared.before if compared.role == "in force" else None
    values: dict[str, Any] = {
        "task": {"name": store.task.name},
        "made_at": f"{now():%d %B %Y, %H:%M} UTC",
        "teacher": (compared.judge or "not asked yet").removeprefix("teacher:"),
        "store_name": store.path.name,
        "simulated": list(notes),
        "gains": gains,
        "baselines": data.beside_baselines(store, _teachers(compared, current), compared.judge, embed),
        "candidate": candidate(store, last, compared),
        "rules": data.rules(store, current, compared.judge, start),
        "confusions": data.confusions(store, compared),
        "slices": data.slices(store, compared),
        "lineage": data.lineage(store, current),
        "people": walk.people(store),
        "doubts": doubted(store, current),
        "contradictions": contradictions(store, compared),
        "difficulty": walk.difficulty(store, walk.manifest(folder)),
        "training": walk.training(folder),
        "students": walk.students(store),
        "probabilities": probabilities(store),
        "audits": audits(store),
        "logs": walk.logs(store, moved),
        "data": data.splits(store),
        "cost": data.cost(store),
        "runs": data.runs(store),
    }
    values["names"] = compared.names
    values["headline"], values["subline"] = headline(
        gains,
        compared,
        current,
        last,
        last_search(store),
        students=values["students"] is not None,
        beside=values["baselines"],
    )
    values["cards"] = cards(values)
    titles = {
        "gains": "Measured",
        "candidate": values["candidate"]["title"] if values["candidate"] else "",
        "rules": "Instruction",
        "confusions": "Confusion",
        "slices": "Slices",
        "lineage": "Lineage",
        "people": "People",
        "doubts": "Guideline in doubt",
        "contradictions": "Unwritten policy?",
        "difficulty": "Difficulty",
        "training": "Training",
        "students": "Students",
        "probabilities": "Probabilities",
        "audits": "Audits",
        "logs": "Logs",
        "data": "Data",
        "cost": "Cost",
        "runs": "Configuration",
    }
    anchors = {"rules": "instruction", "confusions": "confusion", "runs": "configuration"}
    values["sections"] = [{"id": anchors.get(k, k), "title": t} for k, t in titles.items() if values[k]]
    return values


def _teachers(compared: Pair, current: Instruction | None) -> list[tuple[str, Instruction]]:
    """What the page calls an instruction, and the instruction, each once: the one in force is always there."""
    shown = zip(compared.names, (compared.before, compared.after), strict=True)
    named = [(name, instruction) for name, instruction in shown if instruction and compared.before]
    if current and current.id not in {instruction.id for _, instruction in named}:
        named.append(("in force", current))
    return named


def cards(values: dict[str, Any]) -> list[dict[str, str]]:
    """The row of large figures under the headline."""
    total, spend = values["data"], values["cost"]
    result = []
    for row in [r for r in values["baselines"] if r["name"].startswith("teacher")]:
        name = row["name"].removeprefix("teacher, ")
        result.append({"value": f"{100 * row['accuracy'].value:.1f} %", "tone": "", "label": f"right on test, {name}"})
    best = max(
        (r for r in (values["students"] or {"rows": []})["rows"] if r["latency"]),
        key=lambda r: r["scores"].accuracy.value,
        default=None,
    )
    if best is not None:
        first = best["latency"]["first_token"]["p50"]
        result.append({"value": f"{first:.1f} ms", "tone": "", "label": f"to the grade of {best['name']}"})
    result += [
        {"value": f"{total['n']:,}", "tone": "", "label": f"samples in {many(total['groups'], 'group')}"},
        {"value": str(len(values["rules"]["rows"])), "tone": "", "label": "rules in the instruction in force"},
        {"value": f"{spend['calls']:,}", "tone": "", "label": f"answers, US$ {spend['usd']:.2f} in all"},
    ]
    return result
