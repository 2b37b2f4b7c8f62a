"""Signals: named numbers that say how much a sample deserves a second look; higher is more.

A signal is a function that returns one SQL expression over the row of `judged` (see `mining.judged`); its
docstring gives formula and source. Add your own as an expression in `piar.toml`:

    [mining.signals]
    long_title = "length(title) / 200"

or as a function: `mine(..., extra={"name": function})`. An expression that has nothing to say is null.
"""

from collections.abc import Callable
from dataclasses import dataclass

from mining.judged import Columns


@dataclass(frozen=True, slots=True)
class Setting:
    """What signals know of the store besides the row.

    Attributes:
        columns: column names by grade.
        rater_accuracy: share of people's votes that agree with gold.
        cited: samples whose teacher cited a rule, and `rule_count` (a column) how many cite the same.
    """

    columns: Columns
    rater_accuracy: float
    cited: int


Signal = Callable[[Setting], str]
SIGNALS: dict[str, Signal] = {}


def signal(function: Signal) -> Signal:
    """Register a signal under the function's name."""
    SIGNALS[function.__name__] = function
    return function


@signal
def margin(s: Setting) -> str:
    """First-token margin, 1 − (p₁ − p₂) of the teacher's two likeliest grades, else of who stands in.

    Source: margin sampling, Scheffer, Decomain and Wrobel 2001; on the first token because the answer comes first.
    """
    return f"coalesce({', '.join(_margin(s.columns(judge)) for judge in 'tq')})"


@signal
def entropy(s: Setting) -> str:
    """Entropy of the teacher's first-token distribution, −Σ p ln p / ln K, else of who stands in.

    Source: Shannon 1948; Settles 2009.
    """
    return f"coalesce({', '.join(_entropy(s.columns(judge), '1') for judge in 'tq')})"


@signal
def vote_entropy(s: Setting) -> str:
    """Entropy of the teachers' votes, −Σ (nₖ/n) ln (nₖ/n) / ln K, from two on. Source: Dagan and Engelson 1995."""
    total = _sum(s.columns("v"))
    return f"if({total} >= 2, {_entropy(s.columns('v'), f'({total})')}, null)"


@signal
def people_entropy(s: Setting) -> str:
    """Entropy of people's votes, as `vote_entropy`: an ambiguous sample or an unclear rule."""
    total = _sum(s.columns("h"))
    return f"if({total} >= 2, {_entropy(s.columns('h'), f'({total})')}, null)"


@signal
def teacher_against_gold(s: Setting) -> str:
    """What the teacher gives its own grade more than the truth, max p − p(y*); without probabilities its votes'.

    Source: the (unscaled) margin of confident learning, Northcutt, Jiang and Chuang 2021.
    """
    votes = s.columns("v")
    by_votes = f"(greatest({', '.join(votes)}) - {_at_truth(votes)}) / nullif({_sum(votes)}, 0)"
    return f"coalesce({_largest(s.columns('t'))} - {_at_truth(s.columns('t'))}, {by_votes})"


@signal
def teacher_against_student(s: Setting) -> str:
    """Total variation between teacher and student, ½ Σ |pₜ − pₛ|. Source: disagreement of a committee of two."""
    pairs = zip(s.columns("t"), s.columns("s"), strict=True)
    return f"({' + '.join(f'abs({t} - {u})' for t, u in pairs)}) / 2"


@signal
def version_flips(s: Setting) -> str:
    """Chance that two versions of the instruction give different grades, 1 − Σ (nₖ/n)² over first votes (Gini 1912)."""
    total = _sum(s.columns("g"))
    squares = " + ".join(f"{g} * {g}" for g in (f"{g}::double" for g in s.columns("g")))
    return f"if({total} >= 2, 1 - ({squares}) / ({total} * {total}), null)"


@signal
def forgetting(s: Setting) -> str:
    """1 − mean probability of the truth over a student's checkpoints, else over versions of the instruction.

    Source: the confidence of dataset cartography, Swayamdipta et al. 2020; forgetting, Toneva et al. 2019.
    """
    return "if(seen >= 2, 1 - mean_true, null)"


@signal
def variability(s: Setting) -> str:
    """Standard deviation of that probability: samples that swing. Source: Swayamdipta et al. 2020."""
    return "if(seen >= 2, spread_true, null)"


@signal
def learnability(s: Setting) -> str:
    """4 p (1 − p) of the truth's (else the own grade's) probability: where a pass can go either way and so teaches.

    Source: the variance of a Bernoulli reward; LILO and E2H (arXiv 2506.06632) prefer such prompts. Scaled to [0, 1].
    """
    p = f"coalesce({p_answer(s.columns)}, {p_held(s.columns)})"
    return f"4 * {p} * (1 - {p})"


@signal
def rule_rarity(s: Setting) -> str:
    """−ln of the share of samples that cite the same rule, / ln of all: the long tail. Source: self-information."""
    return f"-ln(rule_count / {max(s.cited, 1)}) / ln({max(s.cited, 2)})"


@signal
def flagged(s: Setting) -> str:
    """How many people flagged it (gold is wrong, rule unclear, ambiguous)."""
    return "if(doubts > 0, doubts, null)"


@signal
def suspicion(s: Setting) -> str:
    """1 − probability of the held grade when all other opinions are pooled: the default ranking of suspect labels.

    Teacher and student count with their probabilities p (at least .01), each person's vote as probability a on
    its grade and (1 − a) / (K − 1) on the others, a being how often votes agree with gold:
    q(k) ∝ Π p(k). Where none of them spoke, 1 − what the out-of-fold student gives the held grade.
    Source: logarithmic opinion pools, Genest and Zidek 1986.
    """
    k = s.columns.grades
    odds = s.rater_accuracy * (k - 1) / (1 - s.rater_accuracy)
    pooled = [
        f"({judged} * if({h} > 0, pow({odds}, least({h}, 99)), 1))"
        for judged, h in zip(_by_judges(s.columns), s.columns("h"), strict=True)
    ]
    said = f"t0 is not null or s0 is not null or {_sum(s.columns('h'))} > 0"
    return f"if({said}, 1 - {_at_truth(pooled)} / ({' + '.join(pooled)}), 1 - {_at_truth(s.columns('q'))})"


@signal
def ambiguity(s: Setting) -> str:
    """Probability that people's votes were dealt at random rather than given by raters who see one right grade.

    Σ_k q(k) a^h_k b^(n − h_k) against K^−n, at prior odds of 1 to 9: h_k of n votes for grade k, a how often votes
    agree with gold, b = (1 − a) / (K − 1), and q(k) what teacher, student and gold say, each at least .01. Where
    people split it is high, and where they agree on what all others deny. Our choice; the likelihood of a rater of
    known accuracy is Dawid and Skene's (1979).
    """
    k = s.columns.grades
    right, wrong = s.rater_accuracy, (1 - s.rater_accuracy) / (k - 1)
    votes = _sum(s.columns("h"))
    gold = [f"if(basis = 'majority', 1, if(truth = {i}, {_GOLD}, {(1 - _GOLD) / (k - 1)}))" for i in range(k)]
    prior = [f"({judged} * coalesce({g}, 1))" for judged, g in zip(_by_judges(s.columns), gold, strict=True)]
    seen = [
        f"{q} * pow({right}, {h}::double) * pow({wrong}, {votes} - {h})"
        for q, h in zip(prior, s.columns("h"), strict=True)
    ]
    clear = f"({' + '.join(seen)}) / ({' + '.join(prior)})"
    return f"if({votes} > 0, 1 / (1 + 9 * {clear} * pow({float(k)}, {votes})), null)"


_GOLD = 0.95  # how far a gold grade is believed while asking whether a sample has one right grade


def _by_judges(columns: Columns) -> list[str]:
    """For each grade, teacher's times student's probability, each at least .01; 1 where neither spoke."""
    return [
        f"coalesce(greatest({t}, .01), 1) * coalesce(greatest({u}, .01), 1)"
        for t, u in zip(columns("t"), columns("s"), strict=True)
    ]


def p_answer(columns: Columns, judge: str = "t") -> str:
    """π(y*|x): a judge's probability of the truth, or of its own grade where there is no truth.

    Args:
        judge: `t` for the teacher, `s` for the student.
    """
    return f"if(truth is null, {_largest(columns(judge))}, {_at_truth(columns(judge))})"


def p_held(columns: Columns) -> str:
    """What who stands in gives the held grade: the truth, else the teachers' majority."""
    votes, names = columns("v"), columns("q")
    most = f"greatest({', '.join(votes)})"
    own = f"list_position([{', '.join(votes)}], {most})"
    return f"coalesce({_at_truth(names)}, if({most} > 0, list_extract([{', '.join(names)}], {own}), null))"


def _margin(names: list[str]) -> str:
    first, second = _best_two(names)
    return f"1 - ({first} - {second})"


def _at_truth(names: list[str]) -> str:
    return f"case truth {' '.join(f'when {k} then {name}' for k, name in enumerate(names))} end"


def _largest(names: list[str]) -> str:
    return f"greatest({', '.join(names)})"


def _best_two(names: list[str]) -> tuple[str, str]:
    """Largest and second largest: the second is the largest of all pairs' smaller ones."""
    smaller = [f"least({a}, {b})" for i, a in enumerate(names) for b in names[i + 1 :]]
    return _largest(names), f"greatest({', '.join(smaller)})"


def _sum(names: list[str]) -> str:
    return "(" + " + ".join(f"{name}::double" for name in names) + ")"


def _entropy(names: list[str], total: str) -> str:
    terms = " + ".join(f"if({n} > 0, {n} / {total} * ln({n} / {total}), 0)" for n in names)
    return f"if({names[0]} is null, null, -({terms}) / ln({len(names)}))"
