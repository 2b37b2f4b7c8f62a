"""What an audit can find, told before anybody is asked: its rows, its tests, and the smallest effect they would show.

Chosen by us: a level of 5 % for the whole audit, a power of 95 %, and rows of one group that are a little alike. The
effect is planned by the normal approximation of `store.stats.detectable_effect` at the strictest level of Holm.
"""

import json
from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from piar.measure.probes import Probe
from store.ids import seed_of
from store.stats import PairedVariance, detectable_effect
from store.task import Task
from store.types import Sample

if TYPE_CHECKING:
    from store.db import Store

VERB = "audit"  # of the runs whose detail keeps what was found
LEVEL = 0.05  # chance that a judge without a fault has any reported
POWER = 0.95  # chance that an effect of the planned size is found
NOISE = 0.05  # share of answers that change when asked twice, at least as far as plans go
ALIKE = 0.1  # intra-class correlation of what a probe changes
_LATEST = f"""select e.detail from run_events e join runs r using (run_id)
where r.verb = '{VERB}' and e.status = 'done' and e.detail->>'$.judge.name' = ? order by e.created_at desc limit 1"""


@dataclass(frozen=True, slots=True)
class Plan:
    """What an audit can find.

    Attributes:
        rows, groups: that are asked.
        tests: that the correction covers at most.
        noise: share of answers expected to change when asked twice: the latest audit's, 5 % at least.
        wanted: the effect to be found, as a share of the rows.
        detectable: the smallest share of the rows that is found with a chance of `power`; None where none is.
        power: the chance.
    """

    rows: int
    groups: int
    tests: int
    noise: float
    wanted: float
    detectable: float | None
    power: float = POWER


def plan(samples: Sequence[Sample], noise: float, tests: int, wanted: float) -> Plan:
    """What an audit of these samples can find."""
    sizes = _sizes(samples)
    return Plan(len(samples), len(sizes), tests, noise, wanted, least_detectable(sizes, noise, tests))


def tests_of(probes: Sequence[Probe], task: Task) -> int:
    """How many tests the correction covers: changes, and where grades have an order the mean grade."""
    return max(1, sum(probe.expects == "same" for probe in probes) * (2 if task.ordered else 1))


def least_detectable(sizes: Sequence[int], noise: float, tests: int) -> float | None:
    """The smallest share of rows changed beyond noise that is found with a chance of `POWER`; None where none is.

    Args:
        sizes: rows of each group.
        noise: share of answers that change when asked twice.
    """

    def seen(effect: float) -> bool:
        variance = PairedVariance(row=noise + min(1.0, noise + effect) - effect**2, icc=ALIKE)
        reach = detectable_effect(variance, sizes, alpha=LEVEL / tests, power=POWER)
        return reach is not None and reach <= effect

    steps = range(1, 1001)
    place = bisect_left(steps, True, key=lambda step: seen(step / 1000))
    return steps[place] / 1000 if place < len(steps) else None


def rows_for(samples: Sequence[Sample], noise: float, tests: int, wanted: float) -> int:
    """The fewest of these samples, in their order, that find an effect of `wanted`; all where even these do not."""
    low, high = 0, len(samples)
    while high - low > 1:
        middle = (low + high) // 2
        found = least_detectable(_sizes(samples[:middle]), noise, tests)
        low, high = (low, middle) if found is not None and found <= wanted else (middle, high)
    return high


def in_drawing_order(samples: Iterable[Sample]) -> list[Sample]:
    """Samples so that the first N hold as many groups as can be, whatever N; the same ones for the same samples."""
    groups: dict[str, list[tuple[int, Sample]]] = {}
    for chance, sample in sorted(((seed_of("audit", s.id), s) for s in samples), key=lambda pair: pair[0]):
        groups.setdefault(sample.group, []).append((chance, sample))
    ranked = [(rank, *pair) for members in groups.values() for rank, pair in enumerate(members)]
    return [sample for _, _, sample in sorted(ranked, key=lambda row: row[:2])]


def known_noise(store: "Store", judge: str) -> float:
    """How often this judge changed its mind when it was asked twice for its latest audit; `NOISE` at least, so that a
    repeated audit never takes fewer rows."""
    with store.read() as con:
        rows = con.execute(_LATEST, [judge]).fetchall()
    noise = json.loads(rows[0][0])["noise"]["value"] if rows else None
    return max(NOISE, float(noise or 0.0))


def _sizes(samples: Sequence[Sample]) -> list[int]:
    return list(Counter(sample.group for sample in samples).values())
