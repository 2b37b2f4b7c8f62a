"""What each verb prints under `--json`, as types: verbs build by them, `piar schema` tells them."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal, NotRequired

from pydantic import Field
from typing_extensions import TypedDict

from mining import Confidence, Explanation
from piar.evolve.last_search import State
from piar.evolve.run import EvolveReport
from piar.instructions.diff import RuleChange
from piar.judging.forecast import Forecast, Receipt
from piar.judging.parquet_files import PoolReport
from piar.judging.trust import Trust
from piar.llm.openai.batch_files import RejectedLine, RequestShard
from piar.look.report import LookReport
from piar.measure.audit import Control, Probed
from piar.measure.audit_plan import Plan
from piar.measure.calibrate import Calibrated
from piar.measure.cascade import FittedCascade
from piar.measure.regression_gate import Checked
from piar.measure.word_support import Support
from piar.offline import GuidelineImport
from piar.project.endpoints import Check
from piar.project.rewording import Rewording
from piar.query.show import Flip, Version
from piar.query.status import Status
from piar.rankings.comparison import Difference
from piar.review.history import Fetched
from piar.review.push_pull import PullReport, PushReport
from piar.review.status import BatchStatus
from store.calibration import Calibration, Fit
from store.decision_rule import DecisionRule, RuleFit
from store.export_loss import ExportLoss
from store.importers import ImportMapping, Rejection
from store.manifest import Schedule, Shard, Stage
from store.metrics import Scores
from store.probability_scores import ProbabilityScores
from store.propose import Doubt
from store.stats import Gain, Interval
from synth.drafts import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class DryRun(Forecast):
    """What would be asked (`--dry-run`)."""

    dry_run: Literal[True]


Change = TypedDict("Change", {"from": str | None, "to": str | None, "n": int})


class Importing(TypedDict):
    """What `piar import` did."""

    read: int
    added: int
    known: int
    repeats: int
    labels: int
    changed: int
    changes: list[Change]
    conflicts: list[tuple[int, ...]]
    rejected: list[Rejection]
    splits: dict[str, int]
    given: dict[str, int]
    retired: int
    columns: ImportMapping
    guessed: dict[str, str]
    notes: tuple[str, ...]
    fields: tuple[str, ...]
    ordered: bool
    left_out: dict[str, str]
    doubts: tuple[Doubt, ...]
    renewed: str


Init = TypedDict(
    "Init",
    {
        "project": str,
        "files": list[str],
        "import": NotRequired[Importing],
        "guideline": NotRequired[GuidelineImport],
    },
)


class Labelling(TypedDict):
    """What judging did: requests asked, known, labelled, unsure and failed (by class of failure)."""

    asked: int
    cached: int
    labelled: int
    unsure: int
    failed: dict[str, int]
    reason: str
    cost_usd: float
    seconds: float
    trust: NotRequired[Trust]
    rejected: NotRequired[list[RejectedLine]]


class Exported(TypedDict):
    """Requests that were written to files (`--export-requests`)."""

    requests: int
    shards: tuple[RequestShard, ...]


class UnderWay(TypedDict):
    """Shard files at the provider and how far each is (`--batch`)."""

    batches: dict[str, str]


class Milliseconds(TypedDict):
    """Of a student, one sample at a time: median and 99th percentile."""

    p50: float
    p99: float


class Scoring(Scores):
    """A judge measured against truth."""

    judge: str
    instruction: str
    split: str
    majority: Scores | None
    unjudged: int
    probabilities: ProbabilityScores | None
    calibrated: Calibrated | None
    baselines: dict[str, Scores]
    receipt: Receipt
    latency_ms: dict[str, Milliseconds] = Field(default_factory=dict)
    gain: Gain | None = None
    gain_majority: Gain | None = None


class LiveAccuracy(TypedDict):
    """A judge's accuracy on logs without gold (`--live`)."""

    judge: str
    where: str
    n: int
    gold: int
    groups: int
    accuracy: Interval
    gold_alone: Interval
    teacher_says: float
    weight: float
    drawn: int
    stands_for: float


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditForecast(DryRun):
    """What an audit could find and would ask (`--dry-run`)."""

    plan: Plan


class Audited(TypedDict):
    """What `piar audit` found."""

    judge: str
    instruction: str
    noise: Interval
    plan: Plan
    probes: list[Probed]
    left_out: dict[str, str]
    control: Control | None
    unanswered: int
    said: dict[str, int]
    unpaid: int
    receipt: Receipt


class Calibrating(TypedDict):
    """What was fitted to a judge's probabilities, and what is kept."""

    judge: str
    instruction: str
    splits: tuple[str, ...]
    fit: Fit | None
    kept: Calibration | None
    receipt: Receipt
    rules: RuleFit | None
    rule: DecisionRule | None
    says_only: str | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Gate(Checked):
    """The gate's answer, and what asking cost."""

    receipt: Receipt


class Mined(TypedDict):
    """Counts of what mining wrote; seconds by part."""

    signals: dict[str, int]
    buckets: dict[str, int]
    queue: dict[str, int]
    unjudged: int
    untold: int
    difficulty_by: dict[str, int]
    confidence: Confidence | None
    seconds: dict[str, float]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decided(Difference):
    """A difference, and whether its interval excludes zero."""

    decided: bool = Field()  # without it, the property of the same name would be the default


class Query(TypedDict):
    """A query that weighs much in the difference, with the measure's value in each ranking."""

    query: str
    a: float
    b: float


class Sides(TypedDict):
    """One figure of each ranking."""

    a: float
    b: float


class Compared(TypedDict):
    """Rankings A and B by one judge's grades."""

    a: str
    b: str
    judge: str
    measures: list[Decided]
    segments: dict[str, Decided]
    unjudged: Sides
    unanswered: Sides
    depth: int
    deciding: list[Query]
    notes: tuple[str, ...]


class Agreement(TypedDict):
    """Kendall's tau between the orders of two judges."""

    judges: tuple[str, str]
    tau: Interval | None


class Ordered(TypedDict):
    """The order of systems by several judges."""

    measure: str
    queries: int
    means: dict[str, dict[str, float]]
    agreement: list[Agreement]
    notes: tuple[str, ...]


class Planned(TypedDict):
    """The review batch that decides a comparison (`--plan`)."""

    batch: str
    fresh: bool
    documents: int
    open: int
    known: int


class Synthesis(TypedDict):
    """What synthesis made; `dropped` by reason."""

    asked: int
    kept: int
    dropped: dict[str, int]
    borderline: int


class SynthForecast(TypedDict):
    """What synthesis would ask (`--dry-run`).

    Attributes:
        calls: at most, those in which a model writes the drafts among them.
        drafts: at most.
    """

    dry_run: Literal[True]
    judge: str
    fields: tuple[str, ...]
    calls: int
    drafts: int
    cells: list[Target]


class Listed(TypedDict):
    """A file that was written."""

    rows: int
    path: str
    nameless: NotRequired[int]
    queries: NotRequired[str | None]


class Stages(TypedDict):
    """What all documents of `piar curriculum` say: stages, rows, and rows by bucket."""

    stages: list[Stage]
    rows: int
    buckets: dict[str, int]


class CurriculumPlan(Stages):
    """Counts of an export, before it is written: rows left out, by grade, by rule, by where the grades come from."""

    evals: dict[str, int]
    left_out: dict[str, int]
    grades: dict[str, int]
    rules: dict[str, int]
    bases: dict[str, int]
    unmined: int
    anchors: int
    teacher: str
    schedule: Schedule


class Shards(Stages):
    """Training shards that were written."""

    shards: list[Shard]
    manifest: str


class Training(TypedDict):
    """What a training run left behind; rows left out by reason."""

    checkpoint: str
    steps: int
    kept: int | None
    metrics: dict[str, float]
    left_out: dict[str, int]
    precision: str
    calibration: Fit | None


class ExportedStudent(TypedDict):
    """A student as a folder for other tools.

    `largest_difference` is of the student's raw probabilities (`classifier`) or of scores from 0 to 1, over so many
    samples; `fitted` are the rows that a head of one label was fitted on, 0 where it is exact; `cuts` the scores from
    which the next grade is meant.
    """

    path: str
    way: str
    largest_difference: float
    compared: int
    fitted: int
    cuts: tuple[float, ...]
    loss: ExportLoss | None


class Serving(TypedDict):
    """What a server did in its life.

    Attributes:
        shadow: outcome -> samples that the other student judged, too.
        decided: of a cascade, who decided -> samples.
    """

    url: str
    requests: int
    samples: int
    shadow: dict[str, int]
    decided: dict[str, int]


class Lineage(TypedDict):
    """A version of the instruction."""

    id: str
    parent: str | None
    author: str
    note: str
    preamble: str
    meanings: dict[str, str]
    rules: list[dict[str, Any]]
    examples: list[dict[str, Any]]


class Versions(TypedDict):
    """One version of the instruction, and the list of all."""

    instruction: Lineage
    versions: list[Version]


class Figures(TypedDict):
    """How one version does on a split."""

    accuracy: Interval
    kappa: Interval


class Effect(TypedDict):
    """Two versions on a split that a judge read whole under both."""

    before: Figures
    after: Figures
    gain: Gain
    gain_majority: Gain | None


class Versus(TypedDict):
    """How two versions of the instruction differ."""

    before: str
    after: str
    judge: str | None
    rules: tuple[RuleChange, ...]
    flips: tuple[Flip, ...]
    measured: dict[str, Effect]
    samples: tuple[dict[str, Any], ...]
    support: Mapping[str, tuple[Support, ...]]
    procedure: str
    taught: list[str]


class Candidate(TypedDict):
    """A candidate that met the instruction in force, and how it differs from what it was tested against."""

    candidate: str
    against: str
    state: State
    reason: str
    by: str
    at: str
    test: Mapping[str, Any]
    difference: Versus


class Event(TypedDict):
    """A step of a run."""

    status: str
    detail: Any
    created_at: datetime


class Ran(TypedDict):
    """One command's life."""

    run_id: str
    verb: str
    config: Any
    version: str
    seed: int
    started: datetime
    steps: list[Event]
    receipt: Receipt


class Known(TypedDict):
    """Everything known of one sample, as rows of the store."""

    sample: dict[str, Any]
    truth: list[dict[str, Any]]
    labels: list[dict[str, Any]]
    verdicts: list[dict[str, Any]]
    signals: list[dict[str, Any]]
    difficulty: list[dict[str, Any]]


class Decision(TypedDict):
    """What was decided about a proposal, by whom and when."""

    instruction: str
    by: str
    at: datetime
    outcome: str
    procedure: str


class Page(TypedDict):
    """A report that was written, with its head."""

    path: str
    headline: str
    detail: str


class Rows(TypedDict):
    """What a statement found."""

    columns: list[str]
    rows: list[tuple[Any, ...]]


class Doctor(TypedDict):
    """What was checked."""

    checks: list[Check]


class Agenda(TypedDict):
    """What a meeting should talk about, as Markdown."""

    batch: str
    agenda: str


class Files(TypedDict):
    """Files that were written."""

    files: list[str]


class BatchFiles(Files):
    """A review batch as files."""

    batch: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Answered(PullReport):
    """What people's answers brought: rows of the pool by their new split, holdout groups that left for train."""

    splits: dict[str, int]
    retired: int


class Sat(TypedDict):
    """What a person did at the terminal."""

    batch: str
    by: str
    answered: int
    skipped: int
    undone: int
    median_seconds: float | None
    left: int
    splits: dict[str, int]
    retired: int


@dataclass(kw_only=True)
class GradedPool(PoolReport):
    """A student's pool; `second`: what the teacher of a cascade was asked."""

    second: PoolReport | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class CascadeFitted:
    """Where a cascade is kept, what it comes to on the rows that it was fitted on, and what asking cost."""

    path: str
    fitted: FittedCascade
    receipt: Receipt


class Nothing(TypedDict):
    """No keys."""


# A verb, its words joined by dashes -> what it prints.
DOCUMENTS: dict[str, Any] = {
    "look": LookReport,
    "init": Init,
    "import": Importing,
    "evolve": EvolveReport | DryRun,
    "show-instruction": Versions,
    "show-proposal": Versus,
    "show-candidate": Candidate,
    "show-diff": Versus,
    "show-run": Ran,
    "show-sample": Known,
    "accept": Decision,
    "reject": Decision,
    "minor": Rewording,
    "check": Gate,
    "label": Labelling | DryRun | PoolReport | UnderWay | Exported,
    "score": Scoring | LiveAccuracy | DryRun | GradedPool,
    "calibrate": Calibrating,
    "audit": Audited | AuditForecast,
    "cascade": CascadeFitted | DryRun,
    "review-here": Sat,
    "review-push": PushReport,
    "review-pull": Answered,
    "review-status": BatchStatus,
    "review-agenda": Agenda,
    "review-hours": Listed,
    "review-fetch": Fetched,
    "review-export": BatchFiles,
    "review-import": Answered,
    "mine": Mined | Explanation,
    "synth": Synthesis | SynthForecast,
    "curriculum-plan": CurriculumPlan,
    "curriculum-export": Shards,
    "train-sft": Training,
    "train-grpo": Training,
    "train-distill": Training,
    "train-encoder": Training,
    "train-export": ExportedStudent,
    "serve": Serving,
    "status": Status,
    "report": Page,
    "export": Listed,
    "sql": Rows,
    "doctor": Doctor,
    "compare": Compared | Ordered | Planned,
    "simulate": Nothing,
    "schema": Files | dict[str, Any],
}
