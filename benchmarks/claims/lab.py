"""What the claims share: a world or a real set, a base student, and runs of the product's own trainers, each kept."""

import json
import shutil
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.claims.real_rows import RealWorld, set_rows
from benchmarks.claims.scales import Scale
from benchmarks.trainers.measure import by_field, trace_hits
from benchmarks.trainers.shop import Rows, shop_rows, write_shards
from mining.settings import Thresholds
from piar.project.facade import Project
from piar.shop.world import ShopWorld
from store.manifest import Schedule, read_manifest
from store.metrics import evaluate_arrays
from store.probability_scores import nll_of
from trainers import distill, grpo, sft
from trainers.config import DistillSettings, GrpoSettings, SftSettings, StudentSettings
from trainers.logs import METRICS
from trainers.loop import Trained
from trainers.scoring import Student
from trainers.watch import TAIL

OTHER_WORLD = 1000  # added to the seed of the world that a project is evolved on

Floats = NDArray[np.float64]
TRAINERS: dict[str, Any] = {
    "sft": (sft.train, SftSettings),
    "grpo": (grpo.train, GrpoSettings),
    "distill": (distill.train, DistillSettings),
}


@dataclass(frozen=True)
class Model:
    """A trained checkpoint, the tokens its training computed, and the processor time that took."""

    path: Path
    tokens: int = 0
    cpu_seconds: float = 0.0

    def curve(self, *names: str) -> list[dict[str, float]]:
        """Steps at which all of these metrics were logged."""
        lines = (self.path.parent / METRICS).read_text(encoding="utf-8").splitlines()
        every = [json.loads(line) for line in lines]
        return [{"step": one["step"], **{n: one[n] for n in names}} for one in every if set(names) <= set(one)]


@dataclass(frozen=True)
class Found:
    """What an arm came to: the score of each row that decides, its group, and figures that are only told."""

    scores: Sequence[float]
    groups: Sequence[str]
    figures: dict[str, float] = field(default_factory=dict)
    curve: list[dict[str, float]] = field(default_factory=list)


class Lab:
    """One simulated world, or one split of a real set (one seed), at one scale; what it makes is kept in `folder`."""

    def __init__(self, folder: Path, scale: Scale, seed: int) -> None:
        self.folder, self.scale, self.seed = folder, scale, seed
        folder.mkdir(parents=True, exist_ok=True)

    # --- rows ------------------------------------------------------------------------------------

    @cached_property
    def _rows(self) -> tuple[ShopWorld | RealWorld, Rows, Rows]:
        s = self.scale
        if s.on == "shop":
            return shop_rows(s.pairs, self.seed, held_out=s.held_out)
        return set_rows(s.on, s.pairs, self.seed, held_out=s.held_out)

    @property
    def world(self) -> ShopWorld | RealWorld:
        """The simulated shop, or what is known of a real set."""
        return self._rows[0]

    @property
    def held(self) -> Rows:
        """Rows of queries that nobody learns from, with their true grades."""
        return self._rows[2]

    @cached_property
    def _halves(self) -> tuple[Rows, Rows]:
        queries = sorted({row["group"] for row in self._rows[1]})
        Random(f"halves-{self.seed}").shuffle(queries)
        first = set(queries[: len(queries) // 2])
        parts: tuple[Rows, Rows] = ([], [])
        for row in self._rows[1]:
            parts[row["group"] not in first].append(row)
        return parts

    @property
    def taught(self) -> Rows:
        """Rows of half of the queries: what the base student is taught."""
        return self._halves[0]

    @cached_property
    def pool(self) -> Rows:
        """Rows of the other half, in buckets by the base student's p of their gold grade: out of sample."""
        p = self.pool_probs[np.arange(len(self._halves[1])), self.gold(self._halves[1])]
        return [{**row, "difficulty": float(x), "bucket": bucket(x)} for row, x in zip(self._halves[1], p, strict=True)]

    @cached_property
    def pool_probs(self) -> Floats:
        """[rows, K] what the base student says of the pool."""
        kept = self.folder / "pool.npy"
        if not kept.exists():
            np.save(kept, self.probs(self.base(), self._halves[1]))
        found: Floats = np.load(kept)
        return found

    def gold(self, rows: Rows) -> NDArray[np.int64]:
        """Positions of the rows' grades in the task's order."""
        return np.array([self.world.task.index(row["grade"]) for row in rows])

    @cached_property
    def rare(self) -> NDArray[np.bool_]:
        """Which held-out rows are decided by a rare rule: the rarest of training that make up a quarter."""
        count = Counter(row["rules"][0] for row in self._rows[1] if row["rules"])
        order = sorted(range(len(self.held)), key=lambda i: (count[self.held[i]["rules"][0]], i))
        mask = np.zeros(len(order), dtype=bool)
        mask[order[: max(1, round(TAIL * len(order)))]] = True
        return mask

    def shards(self, name: str, rows: Rows, schedule: Schedule | None = None) -> Path:
        """A shard folder of rows, written once."""
        folder = self.folder / "shards" / name
        if not (folder / "manifest.json").exists():
            watched = self.held[: self.scale.watched]
            write_shards(folder, self.world, rows, watched, seed=self.seed, schedule=schedule)
        return folder

    # --- students --------------------------------------------------------------------------------

    def student(self, start: "Model | None" = None, *, small: bool = False) -> StudentSettings:
        """The network of a run: from a checkpoint, or from nothing."""
        s = self.scale
        hidden, layers = (s.small_hidden, s.small_layers) if small else (s.hidden, s.layers)
        return StudentSettings(model=str(start.path) if start else "tiny", hidden=hidden, layers=layers, lora=s.lora)

    def train(
        self, trainer: str, name: str, shards: Path, start: "Model | None", *, small: bool = False, **settings: Any
    ) -> Model:
        """Train with the product's trainer, or take what an earlier call of this name made; a stopped run goes on."""
        work, kind = TRAINERS[trainer]
        chosen = kind(seed=self.seed, save_every=max(50, settings["steps"] // 8), **settings)
        student = self.student(start, small=small)
        return self.made(name, lambda out: work(shards, out, student=student, settings=chosen, resume=True))

    def made(self, name: str, work: Callable[[Path], Trained]) -> Model:
        """A run by its name; `work(out)` trains into a folder and returns `Trained`."""
        out = self.folder / "runs" / name
        done = out / "done.json"
        if not done.exists():
            if (out / "final").exists() or not any(out.glob("checkpoint-*")):
                shutil.rmtree(out, ignore_errors=True)
            trained, seconds = timed(out, work)
            if trained.stopped:
                raise SystemExit(f"{name} was stopped at step {trained.steps}; the same command goes on.")
            logged = [json.loads(line) for line in (out / METRICS).read_text(encoding="utf-8").splitlines()]
            tokens = max(line.get("num_tokens", 0) for line in logged)
            done.write_text(json.dumps({"tokens": int(tokens), "cpu_seconds": seconds}))
        return Model(out / "final", **json.loads(done.read_text()))

    def words(self, *, small: bool = False) -> Model:
        """Where all SFT arms start: the scale's folder, or a student from nothing after the lesson in shared words.

        The lesson sees no label.
        """
        if self.scale.student != "tiny":
            return Model(Path(self.scale.student))
        name = "words-small" if small else "words"
        return self.train("sft", name, self.shards("taught", self.taught), None, small=small, steps=self.scale.words,
                          batch_size=self.scale.batch, learning_rate=self.scale.rate, words_first=1.0)  # fmt: skip

    def base(self) -> Model:
        """The SFT checkpoint that reinforcement starts from: grade, then grade and trace, where there are reasons."""
        return self.sft("base", self.taught) if self.scale.on == "shop" else self.grade_alone()

    def grade_alone(self) -> Model:
        """SFT as for the base student, on as many rows, but on the grade alone."""
        return self.sft("grade-rows", self.taught, completion="grade")

    def sft(self, name: str, rows: Rows, *, steps: int = 0, **settings: Any) -> Model:
        """SFT after the lesson in words, on rows of the taught kind."""
        shards = self.shards("taught" if rows is self.taught else name, rows)
        return self.train("sft", name, shards, self.words(), steps=steps or self.scale.sft,
                          batch_size=self.scale.batch, learning_rate=self.scale.rate, **settings)  # fmt: skip

    def taught_on(self, name: str, shards: Path, **settings: Any) -> Model:
        """SFT that goes on from the base student."""
        chosen = {"batch_size": self.scale.batch, "learning_rate": self.scale.more_rate, **settings}
        return self.train("sft", name, shards, self.base(), **chosen)

    def grpo(self, start: "Model | None" = None, shards: Path | None = None, /, **changes: Any) -> Model:
        """Stepwise-GRPO from the base student on the pool, or others; arms that change nothing share one run."""
        s, start, shards = self.scale, start or self.base(), shards or self.pool_shards()
        plain = {key: value for key, value in changes.items() if getattr(GrpoSettings(), key) != value}
        name = "-".join(["grpo", *(f"{key}={value}" for key, value in sorted(plain.items()))])
        settings = {"steps": s.rl, "batch_size": s.prompts, "rollouts": s.rollouts, "learning_rate": s.rl_rate,
                    "max_tokens": 96, "watch_every": max(1, s.rl // 10), "log_every": 1, **plain}  # fmt: skip
        return self.train("grpo", name, shards, start, **settings)

    def pool_shards(self) -> Path:
        """The pool as the curriculum draws it: the manifest's own stages."""
        return self.shards("pool", self.pool, Schedule())

    def plain_pool(self) -> Path:
        """The pool without buckets, drawn as it is."""
        return self.shards("pool-plain", self._halves[1])

    def project(self) -> Project:
        """A project on another simulated world of the same kind and rules, evolved and accepted; made once."""
        folder = self.folder / "project"
        done = folder / "evolved"
        if not (folder / "piar.toml").exists():
            Project.init(folder, example="shop", pairs=self.scale.evolve_pairs, seed=self.seed + OTHER_WORLD)
        found = Project.open(folder)
        if not done.exists():
            found.evolve(rounds=self.scale.rounds, seed=self.seed, accept="auto")
            done.touch()
        return found

    # --- measures --------------------------------------------------------------------------------

    def probs(self, model: Model, rows: Rows) -> Floats:
        """[rows, K] the grades' probabilities at the first token, raw: runs calibrate on the rows that report here."""
        return np.array([one.raw for one in Student.load(model.path).score(by_field(self.world.task, rows))])

    def held_probs(self, model: Model) -> Floats:
        """The same of the held-out rows, kept with the model."""
        kept = model.path.parent / "held.npy"
        if not kept.exists():
            np.save(kept, self.probs(model, self.held))
        found: Floats = np.load(kept)
        return found

    def graded(self, model: Model) -> Found:
        """Is the first token the true grade, on held-out queries?"""
        return self.judged(self.held_probs(model), model)

    def judged(self, probs: Floats, model: Model) -> Found:
        """The same from probabilities [held-out rows, K]."""
        gold, groups = self.gold(self.held), [row["group"] for row in self.held]
        right = (probs.argmax(1) == gold).astype(float)
        found = evaluate_arrays(groups, gold, probs.argmax(1), probs, self.world.task, replicates=2)
        figures = {"accuracy": found.accuracy.value, "macro_f1": found.macro_f1.value,
                   "pair_accuracy": found.pair_accuracy.value, "ece": found.ece.value,
                   "nats": float(nll_of(probs, gold).mean())}  # fmt: skip
        known = {name: value for name, value in figures.items() if value is not None}
        return Found(right.tolist(), groups, {**known, **cost(model)})

    def explained(self, model: Model) -> Found:
        """Is the grade true, the right rule cited, and the evidence verbatim? On the first held-out rows."""
        rows, manifest = self.held[: self.scale.traced], read_manifest(self.shards("taught", self.taught), verify=False)
        grade, _, rule, evidence = trace_hits(Student.load(model.path), rows, manifest).T
        names = {"accuracy": grade, "rule cited": rule, "evidence": evidence}
        told = {name: float(hit.mean()) for name, hit in names.items()}
        whole = (grade & rule & evidence).astype(float)
        return Found(whole.tolist(), [row["group"] for row in rows], {**told, **cost(model)})


def timed(out: Path, work: Callable[[Path], Trained]) -> tuple[Trained, float]:
    """What `work` trained into `out`, and its processor time, that of runs which were stopped before included."""
    spent = out / "cpu_seconds.json"
    before, began = json.loads(spent.read_text()) if spent.exists() else 0.0, time.process_time()
    trained = work(out)
    seconds = round(before + time.process_time() - began, 1)
    spent.write_text(json.dumps(seconds))
    return trained, seconds


def without_reasons(rows: Rows, grades: Sequence[str]) -> Rows:
    """Rows whose completion is a grade alone."""
    nothing = {"evidence": None, "steps": None, "rules": None, "trace_verified": False, "anchor": False}
    return [{**row, **nothing, "grade": g, "completion": [{"role": "assistant", "content": g}]}
            for row, g in zip(rows, grades, strict=True)]  # fmt: skip


def bucket(p: float) -> str:
    """Bucket of a difficulty, at the product's thresholds."""
    limits: Mapping[str, float] = Thresholds().model_dump()
    return next((name for name, limit in limits.items() if p > limit), "suspect")


def cost(model: Model) -> dict[str, float]:
    """What the arm's own training took."""
    return {"tokens": float(model.tokens), "cpu_seconds": model.cpu_seconds}


def only(found: Found, mask: NDArray[np.bool_]) -> Found:
    """The rows of a mask."""
    keep = np.flatnonzero(mask)
    return replace(found, scores=[found.scores[i] for i in keep], groups=[found.groups[i] for i in keep])
