"""How many people a row needs, simulated from what is known of the raters and of how hard the rows are.

The model is Dawid and Skene's latent truth (1979) with Rasch's difficulty (1960) in place of a table for each rater:
rater r names the true grade of an item of difficulty d with the logit a_r - d, where d is normal with mean 0; a wrong
grade depends on the true one alone. Whitehill et al. (GLAD, 2009) multiply ability and difficulty instead, under which
many raters are right of any item; with a difference an item can be so hard that more people do not help. Abilities, the
spread of difficulty and the truth are fitted together by expectation-maximisation with the difficulty integrated out on
a grid (Bock and Aitkin 1981).

Chosen by us: weak normal priors (abilities 1 around their mean, the spread 1 around 0), which keep a rater of few
answers and a spread that few rows tell near what is usual; and enough is the first number from which one more person
adds less than a named gain, taken as half of what two more add, for an even number of people often only makes ties. How
often that is right within one: docs/experiments/review.md.
"""

from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from store.stats import Floats, Ints

MOST = 9  # raters a row, beyond which nobody is asked
WIDE = 4  # an interval of more numbers than this tells nothing
_NODES = 9
_SMOOTHING = 0.1  # a pseudo-error per wrong grade
_DRAWN = 10_000  # simulated items
_WARM_ROUNDS = 30  # of a resample, which begins at the fit of all rows
_NEWTON = 2
_FEWEST_ROWS, _FEWEST_RATERS, _FEWEST_ANSWERS = 100, 3, 20


@dataclass(frozen=True, slots=True, eq=False)
class Raters:
    """What the votes tell of who gave them, and of the items.

    Attributes:
        prevalence: (K,) share of each true grade.
        ability: (R,) logit of being right on an item of middling difficulty.
        spread: standard deviation of the items' difficulty, in logits.
        errors: (K, K) given a wrong answer to an item of grade i, the chance that it is j.
    """

    prevalence: Floats
    ability: Floats
    spread: float
    errors: Floats


@lru_cache(maxsize=1)
def _grid() -> tuple[Floats, Floats]:
    """Points and weights of a standard normal difficulty (Gauss and Hermite)."""
    points, weights = np.polynomial.hermite_e.hermegauss(_NODES)
    return points, weights / weights.sum()


def _logistic(x: Floats) -> Floats:
    out: Floats = 1 / (1 + np.exp(-x))
    return out


def fit(
    items: ArrayLike,
    raters: ArrayLike,
    grades: ArrayLike,
    *,
    n_items: int,
    n_raters: int,
    k: int,
    weights: ArrayLike | None = None,
    start: Raters | None = None,
    rounds: int = 200,
    tolerance: float = 1e-4,
) -> Raters:
    """The raters that make the votes likeliest.

    Args:
        items, raters, grades: (V,) codes of each vote.
        weights: (I,) how often each item counts, for a bootstrap; once each when None.
        start: begin there; at abilities of 1.5 and a spread of 0.5 when None.
        rounds: of expectation-maximisation at most; it ends when nothing moves by more than `tolerance`.
    """
    from scipy.sparse import coo_array

    i, r, g = (np.asarray(x, dtype=np.int64) for x in (items, raters, grades))
    w = np.ones(n_items) if weights is None else np.asarray(weights, dtype=np.float64)
    found = start or _begin(i, g, w, n_raters, k)
    votes = coo_array((np.ones(len(i)), (i, r * k + g)), shape=(n_items, n_raters * k)).tocsr()
    for _ in range(rounds):
        latest = _step(found, votes, w)
        moved = max(abs(latest.spread - found.spread), float(np.abs(latest.ability - found.ability).max()))
        found = latest
        if moved < tolerance:
            break
    return found


def _begin(i: Ints, g: Ints, w: Floats, n_raters: int, k: int) -> Raters:
    prevalence = np.bincount(g, weights=w[i], minlength=k) + 1.0
    errors = (1 - np.eye(k)) / max(1, k - 1)
    return Raters(prevalence / prevalence.sum(), np.full(n_raters, 1.5), 0.5, errors)


def _step(now: Raters, votes: Any, w: Floats) -> Raters:
    """One round: what each item may be, then the raters that this makes likeliest."""
    points, share = _grid()
    k, n_raters, one = len(now.prevalence), len(now.ability), np.arange(len(now.prevalence))
    right, wrong = _log_chances(now)
    told = wrong[:, None, None, :] + np.log(np.maximum(now.errors, 1e-12)).T[:, :, None]  # (R, grade, truth, M)
    told[:, one, one] = right[:, None]
    score = (votes @ told.reshape(n_raters * k, -1)).reshape(-1, k, _NODES) + np.log(share)
    score += np.log(np.maximum(now.prevalence, 1e-12))[:, None]
    belief = np.exp(score - score.max(axis=(1, 2), keepdims=True))
    belief *= (w / belief.sum(axis=(1, 2)))[:, None, None]  # (I, K, M)
    given = (votes.T @ belief.reshape(len(w), -1)).reshape(n_raters, k, k, _NODES)
    hits = given[:, one, one].sum(axis=1)
    errors = (given.sum(axis=(0, 3)).T + _SMOOTHING) * (1 - np.eye(k))
    prevalence = belief.sum(axis=(0, 2)) + 1.0 / k
    ability, spread = _abilities(now, hits, given.sum(axis=(1, 2)), points)
    return Raters(prevalence / prevalence.sum(), ability, spread, errors / errors.sum(axis=1, keepdims=True))


def _log_chances(raters: Raters) -> tuple[Floats, Floats]:
    """(R, M) twice: log chances of being right and wrong at each difficulty of the grid."""
    hit = _logistic(raters.ability[:, None] - raters.spread * _grid()[0])
    return np.log(hit), np.log1p(-hit)


def _abilities(now: Raters, hits: Floats, votes: Floats, points: Floats) -> tuple[Floats, float]:
    """Newton's method on abilities and spread, from expected hits and votes of each rater at each difficulty."""
    a, s = now.ability.copy(), now.spread
    for _ in range(_NEWTON):
        p = _logistic(a[:, None] - s * points)
        rest, steep = hits - votes * p, votes * p * (1 - p)
        center = a.mean()
        gradient = np.append(rest.sum(axis=1) - (a - center), -(rest * points).sum() - s)
        size = len(a)
        curve = np.zeros((size + 1, size + 1))
        curve[np.arange(size), np.arange(size)] = steep.sum(axis=1) + 1.0
        curve[:size, size] = curve[size, :size] = -(steep * points).sum(axis=1)
        curve[size, size] = (steep * points**2).sum() + 1.0
        move = np.linalg.solve(curve, gradient)
        move *= min(1.0, 1.0 / max(1e-9, float(np.abs(move).max())))
        a, s = a + move[:-1], abs(float(s + move[-1]))
    return a, s


# -- more or fewer of them -------------------------------------------------------------------------


def accuracy(raters: Raters, seed: int = 0, drawn: int = _DRAWN) -> tuple[Floats, Floats]:
    """(MOST,) twice: how often the label of 1, 2, … raters is right, by majority and by weighing the votes.

    A tie of the majority goes to the grade nearest the median of the votes, as the store resolves it. Each rater judges
    an item once before anybody like them does so again.
    """
    rng, k = np.random.default_rng(seed), len(raters.prevalence)
    truth = rng.choice(k, size=drawn, p=raters.prevalence)
    who = _turns(rng, len(raters.ability), drawn)
    chance = _logistic(raters.ability[who] - raters.spread * rng.standard_normal((drawn, 1)))
    wrong = (rng.random((drawn, MOST, 1)) > np.cumsum(raters.errors, axis=1)[truth][:, None, :-1]).sum(axis=2)
    votes = np.where(rng.random((drawn, MOST)) < chance, truth[:, None], wrong)
    weighed = _weighed(raters, who, votes)
    counts, place = np.zeros((drawn, k)), np.arange(k)
    plain, by_weight = np.empty(MOST), np.empty(MOST)
    for n in range(MOST):
        counts[np.arange(drawn), votes[:, n]] += 1
        middle = np.median(votes[:, : n + 1], axis=1)
        plain[n] = (np.argmax(counts - np.abs(place - middle[:, None]) / (2 * k), axis=1) == truth).mean()
        by_weight[n] = (weighed[n] == truth).mean()
    return plain, by_weight


def _turns(rng: np.random.Generator, n_raters: int, drawn: int) -> Ints:
    rounds = [rng.random((drawn, n_raters)).argsort(axis=1) for _ in range(-(-MOST // n_raters))]
    turns: Ints = np.concatenate(rounds, axis=1)[:, :MOST]
    return turns


def _weighed(raters: Raters, who: Ints, votes: Ints) -> list[Ints]:
    """(drawn,) the likeliest grade after 1, 2, … votes."""
    right, wrong = _log_chances(raters)
    errors = np.log(np.maximum(raters.errors, 1e-12))
    score = np.zeros((len(votes), len(raters.prevalence), _NODES)) + np.log(_grid()[1])
    score += np.log(np.maximum(raters.prevalence, 1e-12))[:, None]
    found = []
    for n in range(MOST):
        said, rows = votes[:, n], np.arange(len(votes))
        as_error = wrong[who[:, n]][:, None, :] + errors.T[said][:, :, None]
        as_error[rows, said] = right[who[:, n]]
        score += as_error
        top = score.max(axis=2, keepdims=True)
        found.append((np.log(np.exp(score - top).sum(axis=2)) + top[:, :, 0]).argmax(axis=1))
    return found


def enough(right: Floats, gain: float) -> int | None:
    """The first number of raters from which one more adds less than `gain`; None: more than are simulated."""
    one_more = (right[2:] - right[:-2]) / 2
    small = np.flatnonzero(one_more < gain)
    return int(small[0]) + 1 if len(small) else None


@dataclass(frozen=True, slots=True)
class Needed:
    """How many people a row needs by one way of making labels; None: more than are simulated.

    Attributes:
        low, high: between which it lies in 90 of 100 resamples by group.
        right: share of right labels with 1, 2, … people.
    """

    number: int | None
    low: int | None
    high: int | None
    right: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class Enough:
    """How many people a row needs.

    Attributes:
        unknown: why that cannot be told, or "".
        rows, raters: what it rests on: rows that two or more people judged, and those people.
        gain: what one more person must add to be worth asking, as a share of the labels.
        spread: standard deviation of how hard the rows are, in logits of being right.
        majority, weighed: for labels by majority, and for labels that weigh people by their ability.
    """

    unknown: str
    rows: int
    raters: int
    gain: float
    spread: float | None = None
    majority: Needed | None = None
    weighed: Needed | None = None


def how_many(
    items: ArrayLike,
    raters: ArrayLike,
    grades: ArrayLike,
    groups: ArrayLike,
    *,
    k: int,
    gain: float,
    seed: int = 0,
    resamples: int = 40,
) -> Enough:
    """How many people a row needs until one more adds less than `gain`.

    Args:
        items, raters, grades: (V,) codes of each vote.
        groups: (I,) code of each item's group; what is resampled.
        k: number of grades.
        resamples: by group, for the interval.
    """
    i, r, g, group = (np.asarray(x, dtype=np.int64) for x in (items, raters, grades, groups))
    n_items, n_raters = len(group), int(r.max(initial=-1)) + 1
    rows = int((np.bincount(i, minlength=n_items) >= 2).sum())
    known = np.flatnonzero(np.bincount(r, minlength=n_raters) >= _FEWEST_ANSWERS)
    if lacking := _lacking(rows, len(known)):
        return Enough(lacking, rows, len(known), gain)

    def pool(found: Raters) -> Raters:
        return Raters(found.prevalence, found.ability[known], found.spread, found.errors)

    found = fit(i, r, g, n_items=n_items, n_raters=n_raters, k=k)
    rng, resampled = np.random.default_rng(seed), []
    for _ in range(resamples):
        drawn = np.bincount(rng.integers(0, group.max() + 1, group.max() + 1), minlength=group.max() + 1)
        again = fit(
            i, r, g, n_items=n_items, n_raters=n_raters, k=k, weights=drawn[group], start=found, rounds=_WARM_ROUNDS
        )
        resampled.append(accuracy(pool(again), seed, _DRAWN // 5))
    curves = accuracy(pool(found), seed)
    ways = [_needed(curve, [both[way] for both in resampled], gain) for way, curve in enumerate(curves)]
    wide = (ways[1].high or MOST + 1) - (ways[1].low or MOST + 1) > WIDE
    unknown = "these rows leave more than a few numbers possible: have more rows judged by everybody" if wide else ""
    return Enough(unknown, rows, len(known), gain, found.spread, *ways)


def _lacking(rows: int, raters: int) -> str:
    if raters < _FEWEST_RATERS:
        return f"{raters} people have given {_FEWEST_ANSWERS} answers or more; fewer than three cannot be told apart"
    if rows < _FEWEST_ROWS:
        return f"{rows} rows drawn at random were judged by two people or more; it takes {_FEWEST_ROWS}"
    return ""


def _needed(curve: Floats, resampled: list[Floats], gain: float) -> Needed:
    numbers = np.sort([enough(c, gain) or MOST + 1 for c in resampled])
    cut = len(numbers) // 20
    low, high = (int(n) if n <= MOST else None for n in (numbers[cut], numbers[-1 - cut]))
    return Needed(enough(curve, gain), low, high, tuple(round(float(c), 4) for c in curve))
