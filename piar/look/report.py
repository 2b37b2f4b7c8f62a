"""What `piar look` finds, as plain values; `LookReport.model_dump(mode="json")` is what `--json` prints."""

from store.stats import Interval, Result


class Columns(Result):
    """Which column holds what; `guessed` says of each guess why, `unused` why a likely column was passed over."""

    gold: str | None
    raters: list[str]
    group: str | None
    fields: list[str]
    guessed: dict[str, str]
    unused: dict[str, str]


class GradeShare(Result):
    """How often a grade is the truth (gold, else the raters' majority)."""

    grade: str
    n: int
    share: float


class RaterFigure(Result):
    """One rater against gold, and against what all the others say where they agree."""

    name: str
    votes: int
    against_gold: float | None
    against_others: float | None


class Agreement(Result):
    """Krippendorff's alpha with intervals by group, and the share of rows on which all votes are one.

    `alpha_ordinal` is `alpha` again where the grades have no order.
    """

    alpha: Interval
    alpha_ordinal: Interval
    all_agree: float | None
    raters: list[RaterFigure]
    odd_one: str | None
    disputed: list[str]


class Block(Result):
    """Rows of one group."""

    group: str
    n: int


class Shift(Result):
    """Rows on which the raters' majority says one grade and gold another."""

    majority: str
    gold: str
    n: int


class Suspects(Result):
    """Where gold contradicts the raters.

    Attributes:
        compared: rows with gold and a majority of two raters or more.
        contradicts: of these, rows on which gold is another grade.
        unanimous: of these, rows on which all raters agree with each other.
        blocks: groups that hold most of the unanimous ones, largest first.
        shifts: the unanimous ones by (majority, gold), largest first.
        unwritten_rule: they sit in a few groups and go one way.
    """

    compared: int
    contradicts: int
    unanimous: int
    blocks: list[Block]
    shifts: list[Shift]
    unwritten_rule: bool


class Repeats(Result):
    """Rows that repeat an earlier (group, fields); of the repeated ones, those that carry two truths."""

    rows: int
    pairs: int
    conflicting: int


class Groups(Result):
    """The shape of the groups.

    Attributes:
        median_rows: rows of the middle group.
        one_grade: groups of three rows or more whose rows all have one grade.
        twins: pairs of groups that differ only in case, order of words, punctuation or plural.
    """

    median_rows: float
    one_grade: int
    twins: list[tuple[str, str]]


class Detectable(Result):
    """Smallest gains that a test by group on the holdout finds four times in five.

    Attributes:
        groups, rows: of a holdout of 30 % of the groups.
        low, high: over pairs of like judges, raters or baselines, on this file (`basis` measured);
            or for two judges that differ on 30 % of rows, alike within groups at .4 (`assumed`).
        layout_groups, layout_rows: the same number of rows laid out as more, smaller groups,
        layout_low, layout_high: and what would show then.
        half_groups: groups of that size that would halve `high`.
    """

    groups: int
    rows: int
    low: float
    high: float
    layout_groups: int
    layout_rows: int
    layout_low: float
    layout_high: float
    half_groups: int
    basis: str


class BaselineFigure(Result):
    """Accuracy of a simple judge; `by_row` is what a split by rows would have claimed."""

    name: str
    accuracy: Interval
    by_row: float | None = None


class LookReport(Result):
    """All of it.

    Attributes:
        sampled: the number of rows behind baselines and detectable, None when all.
        mend: the option that makes grades of what holds none; "".
    """

    file: str
    rows: int
    rejected: int
    groups: int
    group_name: str
    columns: Columns
    grades: list[GradeShare]
    agreement: Agreement | None
    suspects: Suspects | None
    repeats: Repeats
    shape: Groups | None
    detectable: Detectable | None
    baselines: list[BaselineFigure]
    sampled: int | None
    notes: list[str]
    mend: str = ""
