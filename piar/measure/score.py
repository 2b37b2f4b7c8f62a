"""A judge's verdicts on a split measured against truth: gold first, and the raters' majority beside it."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import TYPE_CHECKING

from piar.judging.outcome import OnProgress, counted
from piar.judging.students import let_student_judge
from store.calibrated import student_folder
from store.errors import PiarError, UsageError
from store.judges import Judge

if TYPE_CHECKING:
    import polars as pl

    from piar.measure.baselines import Embed
    from piar.measure.calibrate import Calibrated
    from store.db import Store
    from store.metrics import Scores
    from store.probability_scores import ProbabilityScores
    from store.stats import Gain
    from store.types import Split
    from trainers.session import Latency

TIMED = 50  # rows on which latency is measured
JUDGES = ("teacher", "baseline", "student")


@dataclass(frozen=True, slots=True)
class Measured:
    """How good a judge is.

    Attributes:
        scores: against truth (gold, else the majority).
        majority: against the raters' majority, on the rows that have one.
        unjudged: rows without a verdict; they count as failed.
        probabilities: how good its probabilities are, against truth; None where it gave none.
    """

    judge: Judge
    split: str
    scores: "Scores"
    majority: "Scores | None"
    unjudged: int
    probabilities: "ProbabilityScores | None" = None


@dataclass(frozen=True, slots=True)
class Gained:
    """What one judge gains over another on the same rows, against truth and against the majority."""

    against: Judge
    gain: "Gain"
    majority: "Gain | None"


@dataclass(frozen=True, slots=True)
class Scored:
    """What `piar score` found.

    Attributes:
        baselines: measured on the same rows as the judge.
        latency_ms: a student's.
        calibrated: the judge after its calibration; None where it has none.
    """

    measured: Measured
    gained: Gained | None
    baselines: tuple[Measured, ...] = ()
    latency_ms: "Mapping[str, Latency]" = field(default_factory=dict)
    calibrated: "Calibrated | None" = None


Teach = Callable[[str | None], Judge]


def score(
    store: "Store",
    judge: str,
    split: "Split",
    teach: Teach,
    *,
    instruction: str | None = None,
    against: str | None = None,
    simulated: bool = False,
    embed: "Embed | None" = None,
    run_id: str = "",
    seed: int = 0,
    on_progress: OnProgress | None = None,
) -> Scored:
    """Measure a judge; see `piar.project.facade.Project.score`.

    Args:
        teach: makes sure that the teacher has judged the split under an instruction (None: the one in force).
        against: the id of an instruction, or a judge.
        simulated: the teacher is the offline one.
        embed: the encoder of `[baselines]`, which puts all baselines beside any judge.
        on_progress: told how far a student is.

    Raises:
        UsageError: an unknown split or judge.
        PiarError: nothing is labelled there.
    """
    from store.types import SPLITS

    if split not in SPLITS:
        raise UsageError(f"There is no split {split!r}.", f"Choose one of {', '.join(SPLITS)}.")

    rows_once = cache(lambda: _taught(store))

    def asked(name: str) -> Judge:
        return ready(store, name, split, run_id, lambda: teach(instruction), embed, on_progress, rows_once)

    measured = measure(store, asked(judge), split, seed=seed)
    gained = None
    if against is not None:
        other = asked(against) if _is_judge(against) else teach(against)
        gained = compare(store, measured.judge, other, split, seed=seed)
    simple: tuple[Measured, ...] = ()
    # A rule learner is always shown beside other simple learners.
    if ((simulated and judge == "teacher") or embed is not None) and learnable(store):
        from piar.measure.baselines import names

        others = (f"baseline:{name}" for name in names(store.task, embed))
        simple = tuple(measure(store, asked(other), split, seed=seed) for other in others if other != judge)
    from piar.measure.calibrate import after

    calibrated = after(store, measured.judge, split, seed=seed)
    return Scored(measured, gained, simple, latency_of(store, judge, split, on_progress), calibrated)


def _is_judge(text: str) -> bool:
    return text.partition(":")[0] in JUDGES


def ready(
    store: "Store",
    judge: str,
    split: "Split",
    run_id: str,
    teach: Callable[[], Judge],
    embed: "Embed | None",
    on_progress: OnProgress | None,
    taught: "Callable[[], pl.DataFrame] | None" = None,
) -> Judge:
    """The judge with all its verdicts on the labelled rows of a split in the store.

    Args:
        teach: makes sure of the teacher's.
        taught: the rows that a baseline learns from; read from the store when None.

    Raises:
        UsageError: an unknown judge.
    """
    kind, _, name = judge.partition(":")
    if judge == "teacher":
        return teach()
    if kind == "baseline":
        return _baseline(store, name, split, run_id, embed, taught or (lambda: _taught(store)))
    if kind == "student":
        return let_student_judge(store, name, _labelled(store, split), run_id, on_progress)
    raise UsageError(f"There is no judge {judge!r}.", "Choose teacher, baseline:NAME or student:PATH.")


def latency_of(store: "Store", judge: str, split: "Split", on_progress: OnProgress | None) -> "Mapping[str, Latency]":
    """How long a student takes over one sample, on a few rows of the split."""
    kind, _, path = judge.partition(":")
    if kind != "student":
        return {}
    from trainers.session import latencies
    from trainers.students import load_student

    timed = _labelled(store, split).select(store.task.fields).head(TIMED).to_dicts()
    student = load_student(student_folder(store, path))
    return latencies(student, timed, on_progress=counted(len(timed), on_progress, doing="timing"))


def _baseline(
    store: "Store",
    name: str,
    split: "Split",
    run_id: str,
    embed: "Embed | None",
    taught: "Callable[[], pl.DataFrame]",
) -> Judge:
    """Fit a baseline on train and let it judge the labelled rows of a split."""
    import numpy as np

    from piar.measure.baselines import fit
    from store.ids import content_id
    from store.types import Verdict

    judge, symbols = Judge(f"baseline:{name}"), store.task.symbols
    rater = name.removeprefix("rater:") if name.startswith("rater:") else None
    asked = _labelled(store, split, rater)
    train = _labelled(store, "train", rater) if rater else taught()
    probs = fit(name, train, store.task, groups=train["group_key"], embed=embed).predict(asked)
    verdicts = [
        Verdict(
            key=content_id(judge.name, sample_id),
            sample_id=sample_id,
            judge=judge.name,
            instruction="",
            vote=0,
            grade=None if np.isnan(row).any() else symbols[int(row.argmax())],
            probs=None if np.isnan(row).any() else tuple(row),
            failure="no vote" if np.isnan(row).any() else None,
        )
        for sample_id, row in zip(asked["sample_id"], probs, strict=True)
    ]
    store.record_verdicts(verdicts, run_id)
    return judge


def _taught(store: "Store") -> "pl.DataFrame":
    """The labelled rows of train but for those that repeat a closed one, which no student learns.

    Where they are most of train, as in texts made from a pattern, all stay, with a warning.
    """
    import warnings

    import polars as pl

    from store.leaks import leaking

    labelled = _labelled(store, "train")
    apart = labelled.filter(~pl.col("sample_id").is_in(leaking(store)))
    if 2 * len(apart) >= len(labelled):
        return apart
    warnings.warn(
        f"{len(labelled) - len(apart):,} of {len(labelled):,} labelled rows of train repeat a row of a closed split "
        "(all words but one): baselines learn from them all the same, which flatters them. No student does.",
        stacklevel=2,
    )
    return labelled


def learnable(store: "Store") -> bool:
    """Whether train has labels that a baseline can learn from."""
    return not _labelled(store, "train").is_empty()


def _labelled(store: "Store", split: str, rater: str | None = None) -> "pl.DataFrame":
    """Labelled rows of a split with their fields and truth as `gold`; with a rater, their vote as a column too."""
    from store.db import quote

    vote = f", any_value(l.grade) as {quote(rater)}" if rater else ""
    join = "left join (select * from label where annotator = ? and ordinal = 0) l using (sample_id)" if rater else ""
    fields = ", ".join(f"any_value(s.{quote(field)}) as {quote(field)}" for field in store.task.fields)
    return store.frame(
        f"select s.sample_id, any_value(s.group_key) as group_key, any_value(t.grade) as gold, {fields}{vote} "
        f"from samples s join truth t using (sample_id) {join} "
        "where s.split = ? group by s.sample_id order by s.sample_id",
        [*([rater] if rater else []), split],
    )


def measure(store: "Store", judge: Judge, split: "Split", *, seed: int = 0) -> Measured:
    """Measure one judge on the labelled rows of a split; its first vote counts.

    Raises:
        PiarError: the split has no labelled rows, or the judge has no verdict there.
        UsageError: a slice of task.toml is not a condition over the fields.
    """
    from store.metrics import evaluate, positions
    from store.probability_scores import probability_scores

    frame = rows(store, judge, split)
    groups, gold, probs = positions(frame, store.task)
    slices = list(store.task.slices)
    voted = frame.filter(frame["majority"].is_not_null())
    against_majority = voted.drop("gold").rename({"majority": "gold"}) if voted.height else None
    return Measured(
        judge,
        split,
        evaluate(frame, store.task, slices=slices, seed=seed),
        None if against_majority is None else evaluate(against_majority, store.task, seed=seed),
        int(frame["unjudged"].sum()),
        probability_scores(groups, gold, probs, ordered=store.task.ordered, seed=seed),
    )


def compare(store: "Store", judge: Judge, against: Judge, split: "Split", *, seed: int = 0) -> Gained:
    """What `judge` gains over `against` on the same rows, with its interval by group."""
    from store.stats import paired_gain

    after, before = rows(store, judge, split), rows(store, against, split)
    gain = paired_gain(_right(before, "gold"), _right(after, "gold"), after["group"].to_numpy(), seed=seed)
    voted = after["majority"].is_not_null()
    a, b = after.filter(voted), before.filter(voted)
    majority = (
        paired_gain(_right(b, "majority"), _right(a, "majority"), a["group"].to_numpy(), seed=seed) if len(a) else None
    )
    return Gained(against, gain, majority)


def rows(store: "Store", judge: Judge, split: "Split") -> "pl.DataFrame":
    """Labelled rows of a split with a judge's first vote: sample_id, group, gold, majority, predicted, probs,
    unjudged, and one boolean column for each slice.

    Raises:
        PiarError: nothing is labelled there, or the judge said nothing there.
        UsageError: a slice of task.toml is not a condition over the fields.
    """
    import duckdb

    from store.db import quote

    slices = "".join(
        f", coalesce(({sql}\n)::boolean, false) as {quote(name)}" for name, sql in store.task.slices.items()
    )
    query = f"""
        with sample as (select *{slices} from samples where split = ?)
        select s.sample_id, s.group_key as "group", t.grade as gold, m.grade as majority, v.grade as predicted, v.probs,
               v.key is null as unjudged{"".join(f", s.{quote(name)}" for name in store.task.slices)}
        from sample s join truth t using (sample_id) left join majority m using (sample_id)
        left join (select * from verdict where judge = ? and instruction = ? and vote = 0) v using (sample_id)
        order by s.sample_id"""
    try:
        frame = store.frame(query, [split, judge.name, judge.instruction])
    except duckdb.Error as error:
        problem = str(error).splitlines()[0]
        raise UsageError(f"A slice of task.toml fails: {problem}", "Mend the condition under [slices].") from None
    if frame.is_empty():
        raise PiarError(
            f"No row of split {split} has a label, so nothing can be measured.",
            "Import some: `piar import FILE --gold COLUMN`.",
        )
    if frame["unjudged"].all():
        raise PiarError(
            f"{judge.name} has no verdict on split {split}.", f"Run `piar score --split {split}` without --max-calls."
        )
    return frame


def _right(frame: "pl.DataFrame", truth: str) -> list[int]:
    return [int(said == held) for said, held in frame.select("predicted", truth).iter_rows()]
