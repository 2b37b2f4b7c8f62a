"""How a judging call stands and how it ended: progress, the report, and what to do when it failed."""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields

from store.errors import PiarError
from store.figures import many
from store.types import Completion, Usage, Verdict

__all__ = ["LabelReport", "OnProgress", "Progress", "stop_if_hopeless"]

SHOWN = 200  # characters of an answer that could not be read
MORE = "Run the same command with a larger --max-usd or --max-calls; what is answered is kept."
# When a whole chunk fails like this, the rest would too.
_HOPELESS = frozenset({"auth", "billing", "connection", "request", "server"})
_UNREADABLE = (
    'Read some with `piar sql "select text, error from completions where failure is not null limit 5"`, then change '
    "[teacher]: another model, more max_tokens, or structured = false."
)
_MENDS = {
    "malformed": _UNREADABLE,
    "truncated": _UNREADABLE,
    "refused": _UNREADABLE,
    "billing": "Top up the account, or name another endpoint under [teacher]; nothing that arrived is lost.",
    "auth": "Check the key: the environment variable named by `api_key_env` under [teacher].",
    "connection": "Check `base_url` under [teacher] and the network; `piar doctor` tests the endpoint.",
    "request": "Check the model's name and its limits under [teacher]; `piar doctor` tests the endpoint.",
    "server": "The endpoint is failing; run the same command again later, nothing that arrived is lost.",
}


@dataclass(frozen=True, slots=True)
class Progress:
    """How far a judging call has come.

    Attributes:
        done: verdicts that are known.
        total: verdicts expected; None when the samples are a stream. It grows while unsure samples need more votes.
        asked: how many of them had to be asked.
        usage: tokens of what was asked.
        failed: class of failure -> count, of what was asked.
        doing: what is being done, in a word, where it is not what the caller expects.
    """

    done: int
    total: int | None
    cost_usd: float = 0.0
    failed: Mapping[str, int] = field(default_factory=dict)
    asked: int = 0
    usage: Usage = field(default_factory=Usage)
    doing: str = ""


OnProgress = Callable[[Progress], None]


def counted(total: int | None, on_progress: OnProgress | None, done: int = 0, doing: str = "") -> Callable[[int], None]:
    """What takes how many more are done, for `on_progress`, which takes how many are; the work begins now."""

    def show(more: int) -> None:
        nonlocal done
        done += more
        if on_progress is not None:
            on_progress(Progress(done, total, doing=doing))

    show(0)
    return show


@dataclass(slots=True)
class LabelReport:
    """What a judging call did; `labelled` + all of `failed` = `asked` + `cached` + those out of budget.

    Attributes:
        asked: requests sent to the model.
        cached: verdicts that were known already.
        labelled: requests that have a grade now.
        failed: class of failure -> count; `budget` counts requests that were not sent.
        unsure: samples that had all their votes and are still less sure than was asked for.
        reason: why the last request that failed did, and how its answer began; empty when none failed.
    """

    asked: int = 0
    cached: int = 0
    labelled: int = 0
    failed: Counter[str] = field(default_factory=Counter)
    unsure: int = 0
    cost_usd: float = 0.0
    seconds: float = 0.0
    tokens_in: int = 0
    tokens_cached: int = 0
    tokens_out: int = 0
    reason: str = ""

    @property
    def hopeless(self) -> bool:
        """Whether something was asked and nothing of it, nor of what was known, has a grade."""
        return self.asked > 0 and not self.labelled

    def __iadd__(self, other: "LabelReport") -> "LabelReport":
        """Count what another call did, too."""
        for name in (f.name for f in fields(self) if f.name != "reason"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.reason = other.reason or self.reason
        return self

    def require(self, judge: str) -> None:
        """End a command that needs grades and got none.

        Args:
            judge: who was asked, for people.

        Raises:
            PiarError: it is `hopeless`; says what came back.
        """
        if self.hopeless:
            kinds = self.failed.copy()
            kinds.pop("budget", None)
            kind = kinds.most_common(1)[0][0] if kinds else ""
            told = ", ".join(f"{n:,} {name}" for name, n in kinds.most_common())
            raise PiarError(
                f"{judge} was asked {self.asked:,} times and gave no grade ({told}); the last failure: {self.reason}",
                _mend(kind),
            )

    def require_all(self, judge: str) -> None:
        """End a command whose figures need a grade for every row, where the budget did not reach them all.

        Raises:
            PiarError: it is `hopeless`, or requests were not sent for want of budget.
        """
        self.require(judge)
        if self.failed["budget"]:
            raise PiarError(
                f"The budget is spent: {many(self.failed['budget'], 'row was', 'rows were')} not asked.", MORE
            )

    def add(self, completion: Completion) -> None:
        """Count an answer that was asked for."""
        self.asked += 1
        self.cost_usd += completion.cost_usd
        self.tokens_in += completion.usage.prompt
        self.tokens_cached += completion.usage.cached
        self.tokens_out += completion.usage.completion
        if completion.failure is not None:
            said = f"; it said {completion.text[:SHOWN]!r}" if completion.text else ""
            self.reason = f"{completion.failure.message}{said}"

    def count(self, verdict: Verdict) -> None:
        """Count a verdict, known or new."""
        if verdict.grade is None:
            self.failed[verdict.failure or "malformed"] += 1
        else:
            self.labelled += 1


def stop_if_hopeless(completions: Sequence[Completion]) -> None:
    """End a call in which nothing more is to be had.

    Raises:
        PiarError: the client gave up before it had sent everything, or all failed in a way that the rest would.
    """
    failures = [c.failure for c in completions if c.failure]
    unsent = [c.failure for c in completions if c.failure and not c.attempts and c.failure.kind != "budget"]
    kinds = {failure.kind for failure in failures}
    if unsent:
        raise PiarError(f"{unsent[0].message[:1].upper()}{unsent[0].message[1:]}", _mend(unsent[0].kind))
    if len(failures) == len(completions) and len(kinds) == 1 and (kind := kinds.pop()) in _HOPELESS:
        raise PiarError(f"All {len(completions)} requests failed ({kind}): {failures[0].message}", _mend(kind))


def _mend(kind: str) -> str:
    return _MENDS.get(kind, "Run the same command again later; nothing that arrived is lost.")
