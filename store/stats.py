"""Statistics by group: rows of one query rise and fall together, so a group is what is drawn, flipped and counted.

Light: numpy, and scipy's special functions when a power figure is asked.

Stated by others: BCa intervals (Efron 1987); the jackknife's t interval (Tukey 1958); widening
a bootstrap's level for few units (Hesterberg, "What Teachers Should Know About the Bootstrap",
2015); sign-flip permutation tests; the effective number of unequal weights and the design effect
1 + (m - 1)·icc (Kish 1965); Holm (1979). Chosen by us: groups as the unit everywhere, the wider
end of BCa and jackknife t, both with t for the *effective* number of groups (coverage by
simulation: `benchmarks/coverage.py`, figures in docs/experiments/intervals.md), and the geometric spending of alpha.
"""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray
from pydantic import BaseModel, ConfigDict

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
Statistic = Callable[[Floats], Floats]

REPLICATES = 1_000
FEWEST = 6  # groups for an interval: one inside what G groups showed holds the truth in at most 1 - 2^(1 - G) of cases
MAX_BLOCKS = 2_000
EXACT_RANGE = 1_000_000  # widest range of sums counted exactly
EXACT_GROUPS = 20  # most groups enumerated exactly when differences are not whole numbers
_TAIL = 0.025  # of a 95 % interval, on each side
_SAME = 1e-12  # replicates that differ by no more are one value, rounded
_NORMAL = NormalDist()


class Result(BaseModel):
    """A frozen figure that dumps to JSON."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Interval(Result):
    """A figure with its 95 % interval by group.

    Attributes:
        value: None where it is not defined (no pair, no row).
        low, high: None where there is no interval: fewer than six groups say something of the figure, or all say the
            same, so that nothing shows how far it may be off.
    """

    value: float | None
    low: float | None = None
    high: float | None = None


class Gain(Result):
    """Mean gain per row with its interval by group, and the one-sided p-value of the sign-flip test.

    Attributes:
        low, high: as of an `Interval`.
    """

    mean: float
    low: float | None
    high: float | None
    p_value: float

    @property
    def above(self) -> bool:
        """Whether the interval lies above zero; without one (all groups gained alike), whether the test says so."""
        return self.low > 0 if self.low is not None else self.mean > 0 and self.p_value <= _TAIL

    @property
    def below(self) -> bool:
        """Whether the interval lies below zero."""
        return self.high is not None and self.high < 0


def group_codes(groups: Any) -> tuple[Ints, int]:
    """Groups as codes 0 … G-1, and G. Accepts anything numpy can make an array of."""
    names, codes = np.unique(np.asarray(groups), return_inverse=True)
    return codes.astype(np.int64).reshape(-1), len(names)


def group_sums(rows: ArrayLike, codes: Ints, n_groups: int) -> Floats:
    """Sum rows (N,) or (N, S) within groups: (G, S)."""
    columns = np.asarray(rows, dtype=np.float64)
    columns = columns[:, None] if columns.ndim == 1 else columns
    sums = [np.bincount(codes, weights=column, minlength=n_groups) for column in columns.T]
    return np.stack(sums, axis=1) if sums else np.zeros((n_groups, 0))


class GroupBootstrap:
    """One set of resampled groups, shared by every figure of a table, so that figures can be compared.

    More than 2,000 groups are pooled at random into 2,000 blocks: sums of blocks are still
    independent, and time and memory no longer grow with the data.

    Args:
        n_groups: number of groups.
        replicates: how often to resample.
        seed: of the resampling.
        level: coverage of the interval.

    Attributes:
        blocks: number of blocks that are resampled, the groups themselves when they are few.
        block_of: (G,) block of each group.
    """

    def __init__(self, n_groups: int, *, replicates: int = REPLICATES, seed: int = 0, level: float = 0.95) -> None:
        rng = np.random.default_rng(seed)
        self.blocks = min(n_groups, MAX_BLOCKS)
        self.block_of: Ints = rng.permutation(n_groups) % max(self.blocks, 1)
        self._level = level
        self._weights: Floats = np.zeros((0, 0))
        if self.blocks > 1:
            shares = np.full(self.blocks, 1 / self.blocks)
            self._weights = rng.multinomial(self.blocks, shares, size=replicates).astype(np.float64)

    def interval(self, sums: Floats, statistic: Statistic) -> Interval:
        """The statistic of all groups, with its interval.

        Args:
            sums: (G, S) additive quantities of each group.
            statistic: maps summed quantities (…, S) to the figure (…,); NaN where undefined.
        """
        return self.interval_of_blocks(group_sums(sums, self.block_of, self.blocks), statistic)

    def interval_of_blocks(self, pooled: Floats, statistic: Statistic) -> Interval:
        """The same from sums (blocks, S) that were made with `block_of`, for callers with very many groups."""
        value = float(statistic(pooled.sum(axis=0)))
        if math.isnan(value):
            return Interval(value=None)
        if int(pooled.any(axis=1).sum()) < FEWEST:
            return Interval(value=value)
        replicates = statistic(self._weights @ pooled)
        jackknife = statistic(pooled.sum(axis=0) - pooled)
        low, high = _ends(value, replicates, jackknife, effective(pooled), 1 - self._level)
        return Interval(value=value, low=low, high=high)


def effective(pooled: Floats) -> float:
    """How many groups of one size would weigh as much: (sum w)^2 / sum w^2 (Kish 1965), w a group's absolute sums."""
    weight = np.abs(pooled).sum(axis=1)
    return float(weight.sum() ** 2 / (weight**2).sum()) if weight.any() else float(len(pooled))


def _ends(
    value: float, replicates: Floats, jackknife: Floats, groups: float, alpha: float
) -> tuple[float | None, float | None]:
    """The wider end, on each side, of BCa and of the jackknife's t interval.

    BCa follows a skewed figure, and trusts a handful of groups too much; the t interval is the other way round. The
    latter is held inside what the bootstrap saw, and so inside the range of the figure.

    Args:
        groups: effective number of groups; t has one degree of freedom less.
    """
    replicates = replicates[~np.isnan(replicates)]
    jackknife = jackknife[~np.isnan(jackknife)]
    n = len(jackknife)
    if len(replicates) < 20 or n < 2 or np.ptp(replicates) <= _SAME * max(1.0, abs(value)):
        return None, None
    t = t_quantile(1 - alpha / 2, max(1.0, min(groups, n) - 1))
    spread = jackknife.mean() - jackknife
    reach = t * math.sqrt((n - 1) / n * float((spread**2).sum()))
    low, high = _bca(value, replicates, spread, math.sqrt(n / (n - 1)) * t)
    least, most = float(replicates.min()), float(replicates.max())
    return min(low, max(value - reach, least)), max(high, min(value + reach, most))


def _bca(value: float, replicates: Floats, spread: Floats, z: float) -> tuple[float, float]:
    """Bias-corrected accelerated interval, `z` normal deviations to each side; `spread` is that of the jackknife."""
    below = float(np.mean(replicates < value) + 0.5 * np.mean(replicates == value))
    bias = _NORMAL.inv_cdf(min(max(below, 1e-4), 1 - 1e-4))
    power = float((spread**2).sum()) ** 1.5
    skew = float((spread**3).sum()) / (6 * power) if power > 0 else 0.0

    def position(side: float) -> float:
        shifted = bias + side * z
        return _NORMAL.cdf(bias + shifted / max(1 - skew * shifted, 1e-3))

    low, high = np.quantile(replicates, [position(-1.0), position(1.0)])
    return float(low), float(high)


def bootstrap_by_group(
    rows: ArrayLike,
    groups: Any,
    statistic: Statistic | None = None,
    *,
    replicates: int = REPLICATES,
    seed: int = 0,
    level: float = 0.95,
) -> Interval:
    """Interval by group of a figure that depends on rows through sums; without `statistic`, of the mean.

    Args:
        rows: (N,) or (N, S) additive quantities.
        groups: (N,) group of each row.
        statistic: as in `GroupBootstrap.interval`.
    """
    codes, n_groups = group_codes(groups)
    bootstrap = GroupBootstrap(n_groups, replicates=replicates, seed=seed, level=level)
    if statistic is not None:
        return bootstrap.interval(group_sums(rows, codes, n_groups), statistic)
    values = np.asarray(rows, dtype=np.float64)
    return bootstrap.interval(group_sums(np.stack([values, np.ones(len(values))], axis=1), codes, n_groups), ratio)


def share_by_group(hits: ArrayLike, of: ArrayLike, groups: Any, *, seed: int = 0) -> Interval:
    """Hits over the rows that count; where all or none hit, the interval ends where one more group would show (exact).

    Args:
        hits: (N,) 1 for a hit among the rows that count, else 0.
        of: (N,) 1 for a row that counts, else 0.
        groups: (N,) group of each row.
    """
    counts = np.asarray(of, dtype=np.float64)
    found = bootstrap_by_group(np.stack([np.asarray(hits, dtype=np.float64), counts], axis=1), groups, ratio, seed=seed)
    if found.value not in (0.0, 1.0):
        return found
    reach = _TAIL ** (1 / group_codes(np.asarray(groups)[counts > 0])[1])
    return Interval(value=found.value, low=found.value and reach, high=max(found.value, 1 - reach))


def ratio(sums: Floats) -> Floats:
    """First summed quantity over the second; NaN over nothing."""
    below = sums[..., 1]
    out: Floats = np.where(below > 0, sums[..., 0] / np.where(below > 0, below, 1), np.nan)
    return out


# -- tests ------------------------------------------------------------------------------------


def sign_flip_test(differences: ArrayLike, *, seed: int = 0, draws: int = 100_000) -> float:
    """One-sided p-value that the summed differences of groups are this large when each could as well be negative.

    Valid when the sign of a whole group's difference is exchangeable, however its rows hang
    together. Exact for whole numbers (counts of rows fixed minus broken) and for up to 20
    groups; otherwise seeded Monte Carlo, with the observed value counted as one draw.

    Args:
        differences: (G,) sum over the group's rows of after - before.
    """
    d = np.asarray(differences, dtype=np.float64)
    d = d[d != 0]
    if len(d) == 0:
        return 1.0
    size = np.abs(d)
    if np.all(size == np.round(size)) and size.sum() <= EXACT_RANGE:
        return _flip_by_counting(size.astype(np.int64), int(d.sum()))
    tolerance = 1e-9 * float(size.sum())
    if len(d) <= EXACT_GROUPS:
        sums = np.zeros(1)
        for step in size:
            sums = np.concatenate([sums - step, sums + step])
        return float(np.mean(sums >= d.sum() - tolerance))
    rng = np.random.default_rng(seed)
    hits, done = 0, 0
    while done < draws:
        block = min(10_000, draws - done)
        hits += int(np.sum((rng.integers(0, 2, (block, len(d))) * 2.0 - 1) @ size >= d.sum() - tolerance))
        done += block
    return (hits + 1) / (draws + 1)


def _flip_by_counting(sizes: Ints, observed: int) -> float:
    """Exact: the distribution of the sum of signed whole numbers, built one group at a time."""
    reach = int(sizes.sum())
    chance = np.zeros(reach + 1)  # chance[k]: the positive groups sum to k
    chance[0] = 1.0
    top = 0
    for size in sizes:
        shifted = chance[: top + 1].copy()
        chance[: top + 1] *= 0.5
        top += int(size)
        chance[size : top + 1] += 0.5 * shifted
    return float(min(1.0, chance[(reach + observed + 1) // 2 :].sum()))


def paired_gain(
    before: ArrayLike,
    after: ArrayLike,
    groups: Any,
    *,
    margin: float = 0.0,
    replicates: int = REPLICATES,
    seed: int = 0,
) -> Gain:
    """What `after` gains over `before` on the same rows, by group.

    Args:
        before: (N,) score of each row (correct = 1) of the one that is to be beaten.
        after: (N,) the same for the other.
        groups: (N,) group of each row.
        margin: the p-value is for gain > -margin: 0 asks for superiority, .02 whether it is
            not worse by two points or more.
    """
    difference = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    codes, n_groups = group_codes(groups)
    sums = group_sums(np.stack([difference, np.ones(len(difference))], axis=1), codes, n_groups)
    found = GroupBootstrap(n_groups, replicates=replicates, seed=seed).interval(sums, ratio)
    p_value = sign_flip_test(sums[:, 0] + margin * sums[:, 1], seed=seed)
    return Gain(mean=found.value or 0.0, low=found.low, high=found.high, p_value=p_value)


def pseudo_values(sums: Floats, statistic: Statistic) -> tuple[float, Floats]:
    """The statistic of all groups, and a value for each group whose mean is nearly that (Tukey's jackknife).

    Args:
        sums: (G, S) additive quantities of each group.
        statistic: maps summed quantities (…, S) to the figure (…,).
    """
    whole, count = sums.sum(axis=0), len(sums)
    value = statistic(whole)
    return float(value), count * value - (count - 1) * statistic(whole - sums)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values adjusted for testing them all, in the given order."""
    adjusted = [0.0] * len(p_values)
    highest = 0.0
    for rank, i in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        highest = max(highest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = highest
    return adjusted


def spend(spent: Sequence[float], *, total: float = 0.05, share: float = 0.6) -> float:
    """The level of the next test on the same data: a share of what earlier tests left of `total`.

    By the union bound the chance of any false promotion stays within `total`, however many follow.
    """
    return max(0.0, share * (total - sum(spent)))


# -- power ------------------------------------------------------------------------------------


class PairedVariance(Result):
    """How differences between two judges vary: over rows, and how alike rows of one group are.

    Attributes:
        row: variance of a single row's difference (after - before, correctness 0 or 1).
        icc: intra-class correlation of rows in a group, 0 … 1.
    """

    row: float
    icc: float


def paired_variance(before: ArrayLike, after: ArrayLike, groups: Any) -> PairedVariance:
    """Variance and intra-class correlation of after - before (one-way random effects, unequal sizes).

    Raises:
        ValueError: fewer than two groups, or one row in every group (nothing to compare within).
    """
    d = np.asarray(after, dtype=np.float64) - np.asarray(before, dtype=np.float64)
    codes, n_groups = group_codes(groups)
    n = len(d)
    if n_groups < 2 or n <= n_groups:
        raise ValueError("variance by group needs two groups or more, and more rows than groups")
    sizes, sums = np.bincount(codes), np.bincount(codes, weights=d)
    means = sums / sizes
    between = float((sizes * (means - d.mean()) ** 2).sum()) / (n_groups - 1)
    within = float(((d - means[codes]) ** 2).sum()) / (n - n_groups)
    typical = (n - float((sizes**2).sum()) / n) / (n_groups - 1)
    shared = max(0.0, (between - within) / typical)
    row = shared + within
    return PairedVariance(row=row, icc=shared / row if row > 0 else 0.0)


def design_effect(sizes: ArrayLike, icc: float) -> float:
    """How many times the rows would have to be repeated to make up for their being alike within groups."""
    n = np.asarray(sizes, dtype=np.float64)
    return float(1 + ((n**2).sum() / n.sum() - 1) * icc)


def detectable_effect(
    variance: PairedVariance, sizes: ArrayLike, *, alpha: float = 0.05, power: float = 0.8
) -> float | None:
    """Smallest true gain that a one-sided test over groups finds with this power; None for one group.

    Args:
        variance: from `paired_variance` of two judges, or assumed.
        sizes: (G,) rows in each group of the set on which the test is made.
    """
    n = np.asarray(sizes, dtype=np.float64)
    if len(n) < 2:
        return None
    error = math.sqrt(variance.row * design_effect(n, variance.icc) / float(n.sum()))
    return (t_quantile(1 - alpha, len(n) - 1) + t_quantile(power, len(n) - 1)) * error


def groups_for(
    variance: PairedVariance, effect: float, rows_per_group: int, *, alpha: float = 0.05, power: float = 0.8
) -> int:
    """Fewest groups of this many rows in which `effect` is detectable: the labelling to ask for."""

    def enough(groups: int) -> bool:
        found = detectable_effect(variance, np.full(groups, rows_per_group), alpha=alpha, power=power)
        return found is not None and found <= effect

    if effect <= 0:
        raise ValueError("effect must be positive")
    high = 2
    while not enough(high):
        high *= 2
    low = high // 2
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def t_quantile(probability: float, degrees: float) -> float:
    """Quantile of Student's t."""
    from scipy.special import stdtrit

    return float(stdtrit(degrees, probability))
