"""Our promotion test for anybody's optimizer: gepa, DSPy, or a prompt written by hand.

An optimizer searches as it likes; what it ends with is promoted only if it is better than what it began with, by group,
on rows that it never saw. The test is that of `piar evolve` (`piar.evolve.promotion`): a sign-flip test over groups
confirmed by the interval by group, at a level that gets stricter the more often the same groups have decided. Neither
package is needed until its adapter is called.
"""

import json
import os
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from piar.evolve.ledger import MOST_USES, fingerprints
from piar.evolve.promotion import over_folds, shown
from store.errors import PiarError, UsageError
from store.stats import Gain, paired_gain, spend
from store.turns import alone

Row = Any
Group = Callable[[Row], Hashable] | str


@dataclass(frozen=True, slots=True)
class Decision:
    """What the test says.

    Attributes:
        promoted: whether the gain is shown.
        gain: after minus before, in units of the scores, with its interval by group.
        level: what `gain.p_value` had to stay below.
        groups: how many decided.
        reason: in one sentence.
    """

    promoted: bool
    gain: Gain
    level: float
    groups: int
    reason: str


class GroupTest:
    """Is B better than A on rows that no search has seen? Rows of one group rise and fall together.

    Args:
        alpha: chance of a false promotion over all tests on the same groups.
        ledger: file that remembers which groups decided which tests, as hashes, so that testing again is stricter in
            another process too; None: this object alone remembers.
    """

    def __init__(self, alpha: float = 0.05, ledger: str | Path | None = None) -> None:
        if not 0 < alpha < 1:
            raise UsageError(f"alpha = {alpha} is no chance.", "Give one between 0 and 1, like 0.05.")
        self.alpha, self.ledger = alpha, Path(ledger) if ledger else None
        self._tests: list[dict[str, Any]] = []

    def __call__(
        self, before: Sequence[float], after: Sequence[float], groups: Sequence[Hashable], *, folds: int = 0
    ) -> Decision:
        """Test once. The test is in the ledger before its result is returned.

        Args:
            before: (N,) score of each row under what is to be beaten; more is better.
            after: (N,) the same under the candidate.
            groups: (N,) group of each row: query, author, document …
            folds: where not one candidate but a procedure is tested, by cross-fitting over whole groups (each row's
                `after` comes from what was made without its fold): how many; see `piar.evolve.promotion.over_folds`.

        Raises:
            UsageError: not the same rows, or none.
            PiarError: the groups have decided too often to prove anything; a ledger that cannot be read.
        """
        if not len(before) == len(after) == len(groups) or not len(groups):
            told = f"{len(before)}, {len(after)} and {len(groups)}"
            raise UsageError(f"Scores before, after and groups are of {told} rows.", "Give one of each for every row.")
        if not np.isfinite([*before, *after]).all():
            raise UsageError("Some scores are no numbers.", "Score an answer that failed 0, under both.")
        names = [str(g) for g in groups]
        if self.ledger is None:
            return self._decided(before, after, names, folds)
        with alone(self.ledger.with_name(self.ledger.name + ".lock"), "testing a candidate"):
            self._tests = _read(self.ledger)
            return self._decided(before, after, names, folds)

    def _decided(self, before: Sequence[float], after: Sequence[float], groups: Sequence[str], folds: int) -> Decision:
        mine = fingerprints(groups)
        shares = [len({*mine} & {*test["groups"]}) / len(mine) for test in self._tests]
        if sum(shares) >= MOST_USES:
            told = f"These groups have decided {sum(shares):.0f} tests and prove nothing more."
            raise PiarError(told, "Label fresh groups and test on those.")
        level = spend(
            [share * test["level"] for share, test in zip(shares, self._tests, strict=True)], total=self.alpha
        )
        gain = over_folds(paired_gain(before, after, groups), folds)
        made = Decision(shown(gain, level), gain, level, len(mine), _reason(gain, level, len(mine)))
        self._tests.append({"groups": mine, "level": level, "p_value": gain.p_value, "promoted": made.promoted})
        if self.ledger is not None:
            _append(self.ledger, self._tests[-1])
        return made


def _reason(gain: Gain, level: float, groups: int) -> str:
    told = f"{gain.mean:+.3f} a row over {groups} groups, p = {gain.p_value:.3g}, level {level:.3g}"
    if shown(gain, level):
        return f"better: {told}"
    if gain.mean <= 0:
        return f"no gain: {told}"
    if gain.low is None:
        return f"too few groups to show anything: {told}"
    return f"could be chance: {told}, interval from {gain.low:+.3f}"


def _read(ledger: Path) -> list[dict[str, Any]]:
    """Its tests; a last line that a kill cut off was never answered, and is not one."""
    if not ledger.exists():
        return []
    *lines, _ = ledger.read_text("utf-8").split("\n")
    try:
        return [{"groups": list(t["groups"]), "level": float(t["level"])} for t in map(json.loads, lines)]
    except (ValueError, TypeError, KeyError):
        raise PiarError(f"{ledger} is no ledger of tests.", "Name another file, or mend its broken line.") from None


def _append(ledger: Path, test: Mapping[str, Any]) -> None:
    whole = ledger.read_bytes().rpartition(b"\n")[:2] if ledger.exists() else (b"", b"")
    with ledger.open("r+b" if ledger.exists() else "xb") as file:
        file.seek(len(b"".join(whole)))  # over what a kill cut off
        file.write(json.dumps(test).encode() + b"\n")
        file.truncate()
        file.flush()
        os.fsync(file.fileno())


# -- gepa -----------------------------------------------------------------------------------------


def gated_gepa(
    *, adapter: Any, trainset: Any, holdout: Sequence[Row], group: Group, valset: Any = None,
    test: GroupTest | None = None, **settings: Any,
) -> tuple[dict[str, str], Decision | None, Any]:  # fmt: skip
    """`gepa.optimize`, whose best candidate is promoted only if it is better on the holdout by group.

    gepa accepts a candidate on a minibatch and prefers the best of many on `valset`; neither says that it is better.
    Its own loop stays as it is: an acceptance that tested every proposal would spend the holdout on the search.

    Args:
        adapter: gepa's, which evaluates the holdout too.
        trainset, valset: what gepa searches with; `valset` as gepa has it.
        holdout: rows of other groups.
        group: a row's group: a function, or the name of its field.
        test: shared by runs that decide on the same groups; None: this is the first.
        settings: of `gepa.optimize`. `max_metric_calls` covers the holdout too, which is evaluated twice.

    Returns:
        what to use (the seed candidate where nothing is shown), the decision (None: gepa prefers the seed), and gepa's
        own result.

    Raises:
        UsageError: a group of the holdout is in what gepa searches with, or too few calls for it.
        PiarError: a worn holdout.
    """
    import gepa

    groups = _apart(holdout, group, [_rows(trainset), _rows(valset)])
    if (calls := settings.get("max_metric_calls")) is not None:
        settings["max_metric_calls"] = calls - 2 * len(holdout)
        if settings["max_metric_calls"] <= 0:
            told = f"max_metric_calls = {calls} does not pay for judging the {len(holdout)} rows of the holdout twice."
            raise UsageError(told, "Raise it, or hold out fewer groups.")
    result = gepa.optimize(adapter=adapter, trainset=trainset, valset=valset, **settings)
    seed, best = result.candidates[0], result.candidates[result.best_idx]
    if best == seed:
        return seed, None, result
    before, after = (adapter.evaluate(list(holdout), c, capture_traces=False).scores for c in (seed, best))
    decision = (test or GroupTest())(before, after, groups)
    return best if decision.promoted else seed, decision, result


# -- DSPy -----------------------------------------------------------------------------------------


class GatedOptimizer:
    """Any DSPy optimizer; `compile` returns what it compiled only if that is better on the holdout by group.

    Args:
        optimizer: a DSPy optimizer ("teleprompter").
        metric: as DSPy's: example and prediction to a number, or to something with a `score`; more is better.
        holdout: examples of other groups than it compiles with.
        group: an example's group: a function, or the name of its field.
        test: shared by compilations that decide on the same groups; None: this is the first.

    Attributes:
        decision: of the last `compile`; None before the first.
    """

    def __init__(
        self, optimizer: Any, metric: Callable[..., Any], holdout: Sequence[Row], group: Group,
        test: GroupTest | None = None,
    ) -> None:  # fmt: skip
        self.optimizer, self.metric, self.holdout, self.group = optimizer, metric, list(holdout), group
        self.test = test or GroupTest()
        self.decision: Decision | None = None

    def compile(self, student: Any, *, trainset: Sequence[Row], **settings: Any) -> Any:
        """The compiled program, or the student as it was.

        Args:
            settings: of the optimizer's own `compile`, `valset` among them.

        Raises:
            UsageError: a group of the holdout is in what is compiled with.
            PiarError: a worn holdout.
            Exception: what either program raised on a holdout example: nothing is promoted by a failure.
        """
        groups = _apart(self.holdout, self.group, [trainset, settings.get("valset") or ()])
        compiled = self.optimizer.compile(student.deepcopy(), trainset=trainset, **settings)
        before, after = ([self._score(program, row) for row in self.holdout] for program in (student, compiled))
        self.decision = self.test(before, after, groups)
        return compiled if self.decision.promoted else student

    def _score(self, program: Any, example: Any) -> float:
        found = self.metric(example, program(**example.inputs()))
        return float(getattr(found, "score", found))


# -- rows -----------------------------------------------------------------------------------------


def _apart(holdout: Sequence[Row], group: Group, searched: Iterable[Iterable[Row]]) -> list[str]:
    """The groups of the holdout's rows, none of which the search sees."""
    groups = [_group(row, group) for row in holdout]
    if both := {*groups} & {_group(row, group) for rows in searched for row in rows}:
        told = f"{len(both)} of {len({*groups})} groups of the holdout are in what is searched with."
        raise UsageError(told, "Split by group: all rows of a group on one side.")
    return groups


def _group(row: Row, group: Group) -> str:
    return str(group(row) if callable(group) else row[group])


def _rows(data: Any) -> Iterable[Row]:
    """gepa's data: a list, or a loader."""
    if data is None:
        return ()
    rows: Iterable[Row] = data.fetch(data.all_ids()) if hasattr(data, "fetch") else data
    return rows
