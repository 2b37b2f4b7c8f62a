"""What a run takes and what it may spend: one place divides the budget, and the forecast asks it too.

A run has one budget. Its caps stand at the search's share first and rise from part to part: the winner's new draft,
then the end. So nothing that the end needs is spent on the search, and what the search leaves goes to the end.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from math import ceil

from piar.evolve.settings import EvolveSettings, SearchName
from piar.llm.cost import Budget
from store.db import Store
from store.errors import PiarError

FOLDS = 3  # of dev's groups, when asked whether a draft from more rows does better
CROSS_FOLDS = 6  # of all groups that may teach, when a draft is tested by cross-fitting
_CITED = 3  # rules that one row cites, on average, before rules are left out no further
_MARGIN = 1.2  # of what the end is taken to cost, as judging dev has shown it


class BudgetSpent(Exception):
    """The search's share of the budget is used up."""


@dataclass(frozen=True, slots=True)
class Rows:
    """How many samples a run has in each split.

    Attributes:
        largest: rows of train's largest group.
    """

    train: int
    dev: int
    holdout: int
    test: int
    largest: int


@dataclass(frozen=True, slots=True)
class Needs:
    """Requests that each part of a run sends at most; to the teacher, where nothing else is said.

    Args:
        rows: of each split, as they are dealt.
        evidence: most samples that the reviser is shown at once.
        drafts: candidates of the first round beside the reviser's own.
        causes: whether the reviser is asked for causes before it is asked for edits.
    """

    settings: EvolveSettings
    rows: Rows
    evidence: int
    drafts: int = 0
    causes: bool = False

    @property
    def opening(self) -> int:
        """The incumbent on dev, and the canary."""
        return self.rows.dev + min(self.settings.audit.canary, self.rows.dev)

    @property
    def round(self) -> int:
        """The parent on a batch of whole groups, and every candidate on dev."""
        batch = min(self.rows.train, max(self.settings.train_rows, self.rows.largest))
        return batch + self.settings.revision.candidates * self.rows.dev

    @property
    def redraft(self) -> int:
        """To teacher and reviser: drafts, each on a fold of dev, and the last one on all of it; 0: not done.

        It is for revisers that have been shown all of train and could be shown more: one that reads forty samples has
        seen what it can see.
        """
        wanted = self.settings.redraft != "none" and self.evidence > self.rows.train
        return 2 * self.rows.dev + FOLDS + 1 if wanted else 0

    @property
    def search(self) -> int:
        """The least with which a search is worth beginning."""
        return self.rows.dev

    @property
    def told(self) -> str:
        """What that and the end are, in words."""
        return "judging dev once, two instructions on holdout and test, and the flip audit"

    @property
    def audit(self) -> int:
        """Holdout rows asked a second time."""
        return min(self.settings.audit.items, self.rows.holdout)

    @property
    def end(self) -> int:
        """Two instructions on holdout and test, and the flip audit."""
        return 2 * (self.rows.holdout + self.rows.test) + self.audit

    @property
    def attribution(self) -> int:
        """The standing instruction without each of its rules, on the rows that cite it."""
        return _CITED * (self.rows.dev + self.rows.holdout)

    @property
    def repeated(self) -> int:
        """Rows of audit and canary."""
        return self.audit + min(self.settings.audit.canary, self.rows.dev)

    @property
    def total(self) -> int:
        """All that a run without caps would ask of the teacher at most."""
        beside = (self.drafts if self.settings.rounds else 0) * self.rows.dev
        redraft = self.rows.train + 2 * self.rows.dev if self.redraft else 0
        return self.opening + self.settings.rounds * self.round + beside + redraft + self.end + self.attribution

    @property
    def capped(self) -> int:
        """The same within the cap on calls."""
        return self.total if self.settings.max_calls is None else min(self.total, self.settings.max_calls)


class CrossFittedNeeds(Needs):
    """The same for a cross-fitted draft, of which nothing can be left out."""

    @property
    def _rows(self) -> int:
        """Rows that teach and decide."""
        return self.rows.train + self.rows.dev + self.rows.holdout

    @property
    def drafting(self) -> int:
        """To the reviser: edits from all labels and from those of all folds but one, and causes before each."""
        return (1 + self.causes) * (CROSS_FOLDS + 1)

    @property
    def search(self) -> int:
        """The incumbent on all rows, the canary, and the drafts."""
        return self._rows + min(self.settings.audit.canary, self.rows.dev) + self.drafting

    @property
    def redraft(self) -> int:
        """None: the last draft is the search."""
        return 0

    @property
    def told(self) -> str:
        """What search and end are, in words."""
        return "the instruction in force and one draft on every row, both on test, the drafts and the flip audit"

    @property
    def audit(self) -> int:
        """Rows asked a second time."""
        return min(self.settings.audit.items, self._rows)

    @property
    def end(self) -> int:
        """Each row under the draft that was not shown it, two instructions on test, and the flip audit."""
        return self._rows + 2 * self.rows.test + self.audit

    @property
    def attribution(self) -> int:
        """The proposal, which was drafted last, on dev and holdout, and without each of its rules."""
        return (_CITED + 1) * (self.rows.dev + self.rows.holdout)

    @property
    def total(self) -> int:
        """All that a run without caps would ask of the teacher at most."""
        return self.search - self.drafting + self.end + self.attribution


NEEDS: dict[SearchName, type[Needs]] = {"rounds": Needs, "cross_fitted": CrossFittedNeeds}


def cost_of_an_answer(budget: Budget, store: Store, judge: str, instruction: str) -> tuple[float, float]:
    """Dollars and tokens of one answer: of this run's, else of those that earlier runs have paid for.

    Args:
        instruction: id of the one that the judge was asked under.
    """
    if budget.calls:
        return budget.usd / budget.calls, budget.tokens / budget.calls
    return earlier_cost(store, judge, instruction)


def earlier_cost(store: Store, judge: str, instruction: str, but: str = "") -> tuple[float, float]:
    """Dollars and tokens of one answer that the store holds, on average; zeros where it holds none.

    Args:
        but: a run whose answers do not count.
    """
    sql = """select coalesce(avg(cost_usd), 0), coalesce(avg(tokens_in + tokens_out), 0) from completions
             where key in (select key from verdicts where judge = ? and instruction = ? and run_id <> ?)"""
    with store.read() as con:
        found = con.execute(sql, [judge, instruction, but]).fetchone()
    return found or (0.0, 0.0)


class Purse:
    """The budget of one run, opened part by part; at first for the search.

    Args:
        settings: the caps.
        needs: what the parts take.

    Attributes:
        budget: of teacher and reviser together. Only this class moves its caps.

    Raises:
        PiarError: the cap on calls is too small for a search and its end.
    """

    def __init__(self, settings: EvolveSettings, needs: Needs) -> None:
        self.needs = needs
        self._settings = settings
        self._for_redraft = 0
        self.budget = Budget(None, settings.max_usd, settings.max_tokens)
        if settings.max_calls is not None:
            search = settings.max_calls - needs.end
            if search < needs.search:
                least = needs.end + needs.search
                raise PiarError(
                    f"{settings.max_calls} calls are too few: {needs.told} take up to {least}.",
                    f"Use --max-calls {least}.",
                )
            self._for_redraft = min(needs.redraft, search - needs.search)
            self.budget.max_calls = search - self._for_redraft

    def refuse_too_little(self, asked: Iterable[object], usd: float, tokens: float) -> None:
        """Stop, before anything is paid, where dollars or tokens cannot pay for what comes first and the end.

        Args:
            asked: requests that come first; counted only where a cap goes by them.
            usd: of one answer, as far as earlier ones tell.
            tokens: likewise.

        Raises:
            PiarError: they cannot.
        """
        settings = self._settings
        caps = (("--max-usd", settings.max_usd, usd, 100), ("--max-tokens", settings.max_tokens, tokens, 1))
        known = [(option, most, one, parts) for option, most, one, parts in caps if most is not None and one]
        wanted = _MARGIN * self.needs.end + (sum(1 for _ in asked) if known else 0)
        for option, most, one, parts in known:
            least = ceil(parts * wanted * one) / parts
            if least > most:
                raise PiarError(
                    f"{option} {most:g} is too little: {self.needs.told} take up to {least:.10g} at what earlier "
                    "answers have cost.",
                    f"Use {option} {least:.10g}.",
                )

    def keep_for_the_end(self, usd: float, tokens: float) -> None:
        """Take from the search what the end will cost.

        Args:
            usd: dollars of one answer.
            tokens: tokens of one answer.
        """
        answers = _MARGIN * self.needs.end
        if self._settings.max_usd is not None:
            self.budget.max_usd = max(0.0, self._settings.max_usd - answers * usd)
        if self._settings.max_tokens is not None:
            self.budget.max_tokens = max(0, self._settings.max_tokens - round(answers * tokens))

    def afford(self, answers: int) -> None:
        """Do nothing where what is open pays for so many answers.

        Raises:
            BudgetSpent: it does not.
        """
        left = self.budget.answers_left
        if left is not None and left < answers:
            raise BudgetSpent

    def open_redraft(self) -> None:
        """Let the winner's new draft be paid."""
        if self.budget.max_calls is not None:
            self.budget.max_calls += self._for_redraft
            self._for_redraft = 0

    def open_end(self) -> None:
        """Let everything be paid that is left."""
        settings = self._settings
        self.budget.max_calls, self.budget.max_usd = settings.max_calls, settings.max_usd
        self.budget.max_tokens = settings.max_tokens

    def open_attribution(self) -> None:
        """Let what rules are worth be paid, within its own limit too."""
        most = self.budget.calls + self.needs.attribution
        self.budget.max_calls = most if self._settings.max_calls is None else min(most, self._settings.max_calls)
