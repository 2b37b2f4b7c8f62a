"""A cascade: judges in turn, each of which decides the rows that it is sure of; what is left is for people.

The rule by which rows are decided, and the document that keeps it (`piar cascade` writes it). Pure: whoever has the
judges, a pool or a server, asks them and goes by `handed_on` and `closed`. It fails closed: a row is decided by a judge
that is sure enough, or by nobody. Threshold and fallback as of "selective classification" (Geifman and El-Yaniv 2017);
cascades of models by confidence: Viola and Jones 2001, and for language models FrugalGPT (arXiv 2305.05176).
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

from pydantic import ValidationError

from store.errors import PiarError, UsageError
from store.files import read_text, write_text
from store.stats import Interval, Result
from store.types import Verdict

CASCADE = "cascade.json"
PEOPLE = "people"
FIT = "Fit one: `piar cascade --tiers student:PATH,teacher`."
ROUNDING = 1e-6  # the store keeps probabilities as 32-bit numbers


class Tier(Result):
    """One judge of a cascade.

    Attributes:
        judge, instruction: as in the store.
        fingerprint: of all that shapes its answers; "" for one that cannot be asked outside a project.
        silent: it gives no probabilities, so that all of its grades are equally sure.
        threshold: it decides rows whose grade has at least this probability; None: it decides nothing.
        share: of all rows, those that it decides.
        precision: share of these that are right; `low` is what was certified, for all thresholds that were tried.
        cost_usd: mean of one answer; None where no price is known, 0 in this process.
        seconds: median time of one answer.
    """

    judge: str
    instruction: str = ""
    fingerprint: str = ""
    silent: bool = False
    threshold: float | None
    share: Interval
    precision: Interval
    cost_usd: float | None = None
    seconds: float | None = None

    @property
    def name(self) -> str:
        """`student`, `teacher` or `baseline`."""
        return self.judge.partition(":")[0]

    def hands_on(self, verdict: Verdict, symbols: Sequence[str]) -> str:
        """Why this judge does not decide a row of which it said this; "" where it does."""
        if verdict.grade is None:
            return f"{self.name}: {verdict.failure or 'no grade'}"
        if self.threshold is None:
            return f"{self.name}: no confidence is right often enough"
        if verdict.probs is None and not self.silent:
            return f"{self.name}: no probabilities"
        confidence = 1.0 if verdict.probs is None else verdict.probs[symbols.index(verdict.grade)]
        return "" if confidence >= self.threshold - ROUNDING else f"{self.name}: unsure"


class Cascade(Result):
    """Who decides, and what was certified.

    Attributes:
        target: precision that each judge's rows have at least, by the lower bound.
        split, rows, groups: what it was fitted on.
        people: share of rows that no judge decides.
        made: when, in UTC.
    """

    format: Literal[1] = 1
    target: float
    split: str
    rows: int
    groups: int
    tiers: tuple[Tier, ...]
    people: Interval
    made: str

    @property
    def second(self) -> Tier | None:
        """The judge that is asked where the first is not sure; None where it would decide nothing."""
        tier = self.tiers[1] if len(self.tiers) > 1 else None
        return tier if tier and tier.threshold is not None else None

    @property
    def certified(self) -> bool:
        """Whether any judge decides anything."""
        return any(tier.threshold is not None for tier in self.tiers)

    @property
    def runs(self) -> bool:
        """Whether pools and servers can run it: a student decides first, and a teacher after it or nobody."""
        return [tier.name for tier in self.tiers] in (["student"], ["student", "teacher"])

    def handed_on(self, firsts: Sequence[Verdict], symbols: Sequence[str]) -> dict[int, str]:
        """Places of the rows that the first judge does not decide, and why.

        Args:
            firsts: its verdicts, calibrated and decided by its rule.
        """
        reasons = (self.tiers[0].hands_on(verdict, symbols) for verdict in firsts)
        return {place: reason for place, reason in enumerate(reasons) if reason}

    def closed(
        self,
        firsts: Sequence[Verdict],
        handed: Mapping[int, str],
        seconds: Sequence[Verdict] | str,
        symbols: Sequence[str],
    ) -> list[Verdict]:
        """The verdict of who decides each row; of judge `people`, without grade and with the reason, where nobody does.

        Args:
            handed: of `handed_on`.
            seconds: what the second judge said of the rows handed on, in their order, or why it said nothing.
        """
        out = list(firsts)
        for number, (place, first_reason) in enumerate(handed.items()):
            if isinstance(seconds, str) or self.second is None:
                reason = seconds if isinstance(seconds, str) and seconds else first_reason
            elif not (reason := self.second.hands_on(seconds[number], symbols)):
                out[place] = seconds[number]
                continue
            out[place] = replace(firsts[place], judge=PEOPLE, grade=None, probs=None, trace=None, failure=reason)
        return out

    def require(self, place: int, fingerprint: str, what: str) -> None:
        """Make sure that a judge is the one that was fitted.

        Raises:
            PiarError: it is another, or has changed since.
        """
        if len(self.tiers) <= place or self.tiers[place].fingerprint != fingerprint:
            was = self.tiers[place].judge if len(self.tiers) > place else "none"
            raise PiarError(
                f"The cascade was fitted for other answers than those of {what}: its judge was {was}, as it was on "
                f"{self.made[:10]}, and weights, calibration, instruction or model have changed since.",
                f"Fit it again: `{self.again(place, what)}`.",
            )

    def again(self, place: int | None = None, what: str = "") -> str:
        """The command that fits it again; with another judge at a place, where one is named."""
        names = [tier.judge if tier.name != "teacher" else tier.name for tier in self.tiers]
        if place is not None:
            names[place : place + 1] = [what.partition(":")[0] if what.startswith("teacher:") else what]
        return f"piar cascade --tiers {','.join(names)} --precision {self.target}"

    def save(self, path: Path) -> None:
        """Write the document in one step."""
        write_text(path, self.model_dump_json(indent=1) + "\n")


def read_cascade(path: Path) -> Cascade:
    """A cascade that `piar cascade` wrote.

    Raises:
        UsageError: no such file, or another document.
    """
    try:
        return Cascade.model_validate_json(read_text(path))
    except FileNotFoundError:
        raise UsageError(f"There is no cascade at {path}.", FIT) from None
    except ValidationError:
        raise UsageError(f"{path} is no cascade that this version can read.", FIT) from None
