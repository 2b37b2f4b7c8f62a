"""The arms of the comparison: each spends at most `budget` teacher calls at the endpoint and ends with a text."""

import json
import subprocess
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from random import Random
from typing import Any

import polars as pl

from benchmarks.null_worlds import NoJournal
from benchmarks.optimizers.drafter import Drafter
from benchmarks.optimizers.texts import read_text, write_text
from benchmarks.optimizers.worlds import TASK, Row, World
from piar.connect import connect
from piar.evolve.resume import Event
from piar.evolve.revision import read_answer
from piar.evolve.run import EvolveSettings, Models, evolve
from piar.evolve.settings import ReviserSettings, RevisionSettings
from piar.instructions.operations import apply
from piar.instructions.revision_schema import GradeShown, RevisionRequest, RuleShown
from piar.judging.session import Respondent
from piar.llm.base import Client, Message, Request
from piar.llm.settings import ModelSettings
from piar.offline.endpoint import Simulator, running
from piar.offline.teacher import RulebookClient
from store.db import Store
from store.errors import PiarError
from store.ids import content_id, sample_id, short_hash
from store.types import Instruction
from tests.environments import peer_python

REVISER = "rulebook-reviser"


@dataclass(frozen=True)
class Ended:
    """What an arm returns.

    Attributes:
        text: the instruction.
        steps: (teacher calls so far, the text that the arm would return then), where it can be known.
        confirmed: whether its own test passed; None for arms without one.
    """

    text: str
    steps: Sequence[tuple[int, str]] = ()
    confirmed: bool | None = None


@dataclass(frozen=True)
class Arm:
    """An optimizer with its settings.

    Attributes:
        run: world, address, budget, seed -> what it ends with.
        drafter: keywords of the endpoint's drafter.
        drop: share of its rules that a whole rewrite loses in this arm, where it is not 0 in the headline.
        times: how many times the budget it may spend: an arm whose calls are cheaper than ours, at equal tokens.
    """

    run: Callable[[World, Simulator, int, int], Ended]
    drafter: Mapping[str, Any] = field(default_factory=dict)
    drop: float = 0.0
    times: int = 1


SHARES = (0.5, 0.75, 0.9)  # of the oracle's gain, whose first reaching is told


def measure(arm: Arm, world: World, budget: int, seed: int, drop: float | None = None) -> dict[str, Any]:
    """Run one arm in one world against an endpoint of its own; figures from the world's fresh rows and true grades.

    Args:
        drop: share of its rules that a whole rewrite loses; None: as the arm has it.
    """
    lost = arm.drop if drop is None else drop
    drafter = Drafter(seed, drop=lost, clueless=world.kind == "harmful", **arm.drafter)
    with running(drafter) as endpoint:
        ended = arm.run(world, endpoint, arm.times * budget, seed)
        ledger = endpoint.ledger()
    start, best = accuracy(write_text(world.seed), world.fresh), accuracy(write_text(world.oracle), world.fresh)
    reached = accuracy(ended.text, world.fresh)
    teacher = ledger["models"].get("teacher", {})
    return {
        "seed_accuracy": start, "accuracy": reached, "oracle": best,
        "changed": read_text(ended.text).rules != read_text(write_text(world.seed)).rules,
        "confirmed": ended.confirmed,
        "times": arm.times,
        "calls": teacher.get("calls", 0),
        "reviser_calls": ledger["models"].get(REVISER, {}).get("calls", 0),
        "tokens": ledger["prompt_tokens"] + ledger["completion_tokens"],
        "teacher_tokens": teacher.get("prompt_tokens", 0) + teacher.get("completion_tokens", 0),
        "reached": _reached(ended.steps, start, best, world.fresh),
    }  # fmt: skip


def accuracy(text: str, rows: Sequence[Row]) -> float:
    """Share of true grades that the teacher gives under a text, outside any ledger."""
    return sum(said == r.true for said, r in zip(says(text, rows), rows, strict=True)) / len(rows)


def says(text: str, rows: Sequence[Row]) -> list[str]:
    """The teacher's grades under a text."""
    prompt = Message("system", write_text(read_text(text)))
    asked = [
        Request("", (prompt, Message("user", json.dumps({"query": r.query, "title": r.title}))), TASK.symbols)
        for r in rows
    ]
    return [(c.text or "").split("\n", 1)[0] for c in RulebookClient().generate(asked)]


def _reached(
    steps: Sequence[tuple[int, str]], start: float, best: float, rows: Sequence[Row]
) -> dict[str, int | None] | None:
    """Calls after which the arm's choice first had these shares of the oracle's gain, None for never; None in all for
    an arm whose steps are not known, or where there is nothing to gain."""
    if not steps or best <= start:
        return None
    had = [(calls, (accuracy(text, rows) - start) / (best - start)) for calls, text in steps]
    return {str(share): next((calls for calls, gained in had if gained >= share), None) for share in SHARES}


# -- controls -----------------------------------------------------------------------------------


def keep_seed(world: World, endpoint: Simulator, budget: int, seed: int) -> Ended:
    """The seed instruction, untouched."""
    return Ended(write_text(world.seed))


def tell_oracle(world: World, endpoint: Simulator, budget: int, seed: int) -> Ended:
    """The planted policies."""
    return Ended(write_text(world.oracle))


def one_draft(world: World, endpoint: Simulator, budget: int, seed: int) -> Ended:
    """One draft from all of train and validation, asked of nobody: what the drafter is worth without any search."""
    reviser = clients(endpoint)[1]
    drafted = draft(reviser, world.seed, world.of("train", "dev", "holdout"), Random(f"draft-{seed}"))
    return Ended(write_text(drafted), [(0, write_text(drafted))])


def best_of_drafts(world: World, endpoint: Simulator, budget: int, seed: int) -> Ended:
    """As many drafts as can be judged on all validation rows, each from other examples; the best one."""
    teacher, reviser = clients(endpoint)
    rows, rng = world.of("dev", "holdout"), Random(f"drafts-{seed}")
    best, steps = -1.0, list[tuple[int, str]]()
    for number in range(budget // len(rows)):
        shown = rng.sample(world.of("train"), len(world.of("train")) // 2)
        text = draft(reviser, world.seed, shown, rng) if number else world.seed
        if (score := _score(teacher, text, rows)) > best:
            best = score
            steps.append(((number + 1) * len(rows), write_text(text)))
    return Ended(steps[-1][1], steps)


def draft(reviser: Client, current: Instruction, rows: Sequence[Row], rng: Random) -> Instruction:
    """What the reviser drafts from labelled rows in one answer; the current text where it says nothing."""
    from benchmarks.optimizers.formats import item

    request = RevisionRequest(
        grades=tuple(GradeShown(symbol=g) for g in TASK.symbols),
        rules=tuple(RuleShown(id=r.id, text=r.text, grade=r.grade) for r in current.rules),
        evidence=tuple(item({"query": r.query, "title": r.title}, r.gold) for r in rows),
        seed=rng.randrange(2**31),
    )
    asked = Request(short_hash(request.seed), (Message("user", request.model_dump_json()),), temperature=1.0)
    found = read_answer(reviser.generate([asked])[0])[0]
    return apply(current, found[0].operations, TASK) if found else current


def grades_of(teacher: Client, instruction: Instruction, rows: Sequence[Row]) -> list[str]:
    """What the served teacher says; each row is a call."""
    prompt = Message("system", write_text(instruction))
    asked = [
        Request(f"{i}", (prompt, Message("user", json.dumps({"query": r.query, "title": r.title}))))
        for i, r in enumerate(rows)
    ]
    return [(c.text or "").split("\n", 1)[0] for c in teacher.generate(asked)]


def _score(teacher: Client, instruction: Instruction, rows: Sequence[Row]) -> float:
    said = grades_of(teacher, instruction, rows)
    return sum(grade == r.gold for grade, r in zip(said, rows, strict=True)) / len(rows)


# -- ours -----------------------------------------------------------------------------------------


def ours(
    world: World, endpoint: Simulator, budget: int, seed: int, prompts: Path | None = None, **changed: Any
) -> Ended:
    """`piar evolve` with its defaults, capped at the budget.

    Args:
        prompts: a project's folder of template overrides.
        changed: settings other than the defaults.
    """
    settings = EvolveSettings(seed=seed, max_calls=budget, **changed)
    found = _evolve(world, endpoint, settings, prompts)
    return Ended(write_text(found.standing), found.steps, found.standing.id != world.seed.id)


def without_test(world: World, endpoint: Simulator, budget: int, seed: int) -> Ended:
    """No promotion test: its holdout joins dev (and train keeps its rows), and what dev prefers is returned."""
    joined = tuple(replace(r, split="dev" if r.split == "holdout" else r.split) for r in world.rows)
    last = [r.query for r in joined if r.split == "dev"][-1]
    first = next(r.query for r in joined if r.split == "dev")
    kept = tuple(replace(r, split="holdout" if r.query in (first, last) else r.split) for r in joined)
    found = _evolve(replace(world, rows=kept), endpoint, EvolveSettings(seed=seed, max_calls=budget, kept_back=0.0))
    return Ended(write_text(found.preferred), found.steps)


@dataclass
class _Evolved:
    standing: Instruction
    preferred: Instruction
    steps: list[tuple[int, str]]


def _evolve(world: World, endpoint: Simulator, settings: EvolveSettings, prompts: Path | None = None) -> _Evolved:
    teacher, reviser = clients(endpoint)
    best, steps, preferred = 0.0, list[tuple[int, str]](), world.seed.id

    def watch(event: Event) -> None:
        nonlocal best, preferred
        if event.kind == "searched":
            preferred = event.detail["best"]
        if event.kind == "redrafted" and event.detail["stands"]:
            steps.append((endpoint.ledger()["models"]["teacher"]["calls"], event.detail["candidate"]))
        if event.kind in ("champion", "survived") and event.detail["dev"] > best:
            best = event.detail["dev"]
            name = event.detail["instruction" if event.kind == "champion" else "candidate"]
            steps.append((endpoint.ledger()["models"]["teacher"]["calls"], name))

    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder) / "piar.duckdb", TASK)
        fill_store(store, world.rows)
        try:
            models = Models(
                Respondent(teacher, ModelSettings(structured=False), prompts=prompts),
                Respondent(reviser, ReviserSettings(), prompts=prompts),
            )
            with store.write():  # one connection for the whole run
                journal: Any = NoJournal(Path(folder))
                standing = evolve(store, models, world.seed, settings, journal=journal, on_event=watch)[1]
        except PiarError as error:
            raise RuntimeError(error.message) from error
        known = {world.seed.id: world.seed}
        texts = [(calls, write_text(known.get(name) or store.instruction(name))) for calls, name in steps]
        chosen = known.get(preferred) or store.instruction(preferred)
    return _Evolved(standing, chosen, texts)


def clients(endpoint: Simulator) -> tuple[Client, Client]:
    """Teacher and reviser of an endpoint."""
    made = [
        connect(ModelSettings(model=f"openai:{name}", base_url=f"{endpoint.url}/v1", structured=False))
        for name in ("teacher", REVISER)
    ]
    return made[0], _Counting(made[1])


class _Counting:
    """The served inducer: our loop shows it all evidence, since it weighs instead of reading."""

    simulated = True

    def __init__(self, served: Client) -> None:
        self.model, self.generate = served.model, served.generate


def fill_store(store: Store, rows: Sequence[Row]) -> None:
    """Bring rows with their gold grades into an empty store."""
    names = [sample_id(r.query, (r.query, r.title)) for r in rows]
    frame = pl.DataFrame(
        [(n, content_id(n), r.query, r.split, r.title, r.gold) for n, r in zip(names, rows, strict=True)],
        schema=["sample_id", "label_id", "query", "split", "title", "gold"], orient="row",
    )  # fmt: skip
    with store.write() as con:
        con.register("world_rows", frame)
        con.execute(
            "insert into samples (sample_id, group_key, split, query, title, created_at, source, run_id) "
            "select sample_id, query, split, query, title, current_timestamp, 'world', 'world' from world_rows"
        )
        con.execute(
            "insert into labels (label_id, sample_id, grade, created_at, source, annotator, run_id) "
            "select label_id, sample_id, gold, current_timestamp, 'gold', 'gold', 'world' from world_rows"
        )


# -- peers ----------------------------------------------------------------------------------------


def peer(name: str, optimizer: str, times: int = 1, **settings: Any) -> Arm:
    """An optimizer in its own environment; our holdout is part of its validation set."""

    def run(world: World, endpoint: Simulator, budget: int, seed: int) -> Ended:
        job = {
            "url": endpoint.url, "optimizer": optimizer, "text": write_text(world.seed), "budget": budget, "seed": seed,
            "train": [asdict(r) for r in world.of("train")], "val": [asdict(r) for r in world.of("dev", "holdout")],
            "settings": settings,
        }  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder) / "job.json"
            file.write_text(json.dumps(job))
            command = [peer_python(name), str(Path(__file__).with_name(f"peer_{name}.py")), str(file)]
            done = subprocess.run(command, capture_output=True, text=True, cwd=folder, timeout=1200)
        if done.returncode:
            raise RuntimeError(f"{optimizer} failed: {done.stderr[-2000:]}")
        answer = json.loads(done.stdout.splitlines()[-1])
        return Ended(answer["text"], [(calls, text) for calls, text in answer["steps"]])

    return Arm(run, times=times)


def _plain(world: World, endpoint: Simulator, budget: int, seed: int) -> Ended:
    """The teacher reads the bare rules, as the peers' does, and not how to write down its reason."""
    return ours(world, endpoint, budget, seed, prompts=Path(__file__).with_name("plain"))


def _tuned(world: World, endpoint: Simulator, budget: int, seed: int) -> Ended:
    return ours(world, endpoint, budget, seed, kept_back=0.2)


def _without_racing(world: World, endpoint: Simulator, budget: int, seed: int) -> Ended:
    """One candidate a round, judged on all of dev: nothing to race against."""
    return ours(world, endpoint, budget, seed, revision=RevisionSettings(candidates=1))


def _without_redraft(world: World, endpoint: Simulator, budget: int, seed: int) -> Ended:
    return ours(world, endpoint, budget, seed, redraft="none")


ARMS: dict[str, Arm] = {
    "seed": Arm(keep_seed),
    "oracle": Arm(tell_oracle),
    "one draft, untested": Arm(one_draft),
    "best of N drafts": Arm(best_of_drafts),
    "gepa": peer("gepa", "gepa"),
    "gepa, tuned": peer("gepa", "gepa", reflection_minibatch_size=40),
    "gepa, 3 × the calls": peer("gepa", "gepa", times=3),
    "gepa, tuned, 2 × the calls": peer("gepa", "gepa", times=2, reflection_minibatch_size=40),
    "best of N drafts, 2 × the calls": Arm(best_of_drafts, times=2),
    "dspy GEPA": peer("dspy", "dspy_gepa"),
    "dspy GEPA, tuned": peer("dspy", "dspy_gepa", reflection_minibatch_size=40),
    "dspy MIPROv2": peer("dspy", "mipro"),
    "dspy MIPROv2, tuned": peer("dspy", "mipro", view=90),
    "dspy SIMBA": peer("dspy", "simba", max_steps=1),
    "dspy SIMBA, tuned": peer("dspy", "simba", bsize=24, num_candidates=4, max_steps=1),
    "ours": Arm(ours),
    "ours, plain prompt": Arm(_plain),
    "ours, tuned": Arm(_tuned),
    "ours without test": Arm(without_test),
    "ours, whole rewrites": Arm(ours, {"whole": True}, drop=0.1),
    "ours, errors only": Arm(ours, {"errors_only": True}),
    "ours without racing": Arm(_without_racing),
    "ours without redraft": Arm(_without_redraft),
}
