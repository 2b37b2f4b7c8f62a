"""Looking at errors: which they are, why they happen, what they share, and what to show a reviser.

Only recurring knowledge errors can be mended by editing the instruction. A rule that exists but was not
applied, a misreading and a suspect label are counted apart (as SEEK, Kuaishou 2026, sorts them). An error
is shown with its nearest correct neighbour (Contrastive Reflection, arXiv 2606.30840). The rules by which
causes are told apart here are ours.
"""

import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from piar.evolve.truth import Truth
from piar.instructions.revision_schema import EvidenceItem
from store.stats import group_codes, group_sums
from store.types import Instruction, Sample, Verdict

Cause = Literal["knowledge", "not_applied", "misread", "suspect"]
Cell = tuple[str, str]  # truth, verdict
FAILED = "(failed)"
MIN_CLUSTER = 3
MIN_GROUPS = 3
MIN_ROWS = 4
SLICE_TELLS = 1.64  # standard errors, by group, by which errors must be more frequent than elsewhere
PREDICATE_TELLS = 3.0  # ... of a predicate, of which hundreds are tried
_LEARNED_FROM = 1_500  # rows on which predicates are tried
_WORD = re.compile(r"\w+")


@dataclass(frozen=True, slots=True)
class Judged:
    """A sample with its truth, what the judge said, and what people wrote about it in review."""

    sample: Sample
    truth: Truth
    verdict: Verdict
    comment: str = ""

    @property
    def right(self) -> bool:
        """Whether the verdict is the grade held true."""
        return self.verdict.grade == self.truth.grade

    @property
    def cell(self) -> Cell:
        """Truth and verdict."""
        return self.truth.grade, self.verdict.grade or FAILED


@dataclass(frozen=True, slots=True)
class Cluster:
    """Knowledge errors of one confusion cell that share a word in a field; `lift` is how much more often
    the word stands in these errors than elsewhere."""

    cell: Cell
    field: str
    term: str
    errors: tuple[Judged, ...]
    groups: int
    lift: float


@dataclass(frozen=True, slots=True)
class Inspection:
    """What was found on one judged batch."""

    judged: tuple[Judged, ...]
    confusion: Mapping[Cell, int]
    causes: Mapping[str, Cause]  # sample id -> cause, of errors only
    clusters: tuple[Cluster, ...]
    members: Mapping[str, frozenset[str]] = field(default_factory=dict)  # slice -> sample ids

    @property
    def slices(self) -> dict[str, tuple[int, int]]:
        """Slice -> (rows, errors)."""
        return {name: _in_slice(self.judged, ids) for name, ids in self.members.items()}

    @property
    def errors(self) -> list[Judged]:
        """What the judge got wrong."""
        return [j for j in self.judged if not j.right]

    def counts(self) -> dict[str, int]:
        """Errors by cause."""
        return dict(Counter(self.causes.values()))


def inspect(
    judged: Sequence[Judged], instruction: Instruction, slices: Mapping[str, frozenset[str]] | None = None
) -> Inspection:
    """Confusion, causes, clusters and slices of a judged batch.

    Args:
        judged: samples with truth and verdict.
        instruction: what the judge read.
        slices: slice name -> ids of its samples.
    """
    terms = {j.sample.id: _terms(j.sample) for j in judged}
    served = _rules_serving(judged, instruction, terms)
    causes = {j.sample.id: cause_of(j, instruction, served, terms[j.sample.id]) for j in judged if not j.right}
    wrong = {i for i, cause in causes.items() if cause == "knowledge"}
    return Inspection(
        judged=tuple(judged),
        confusion=Counter(j.cell for j in judged),
        causes=causes,
        clusters=_clusters(judged, wrong, terms),
        members=dict(slices or {}),
    )


def cause_of(
    judged: Judged,
    instruction: Instruction,
    served: Mapping[tuple[str, str, str], str],
    terms: Iterable[tuple[str, str]],
) -> Cause:
    """Why a verdict is wrong, as far as can be told without asking anybody.

    Args:
        served: (truth, field, term) -> the rule that right verdicts on such samples cite.
    """
    votes, verdict = judged.truth.votes, judged.verdict
    if votes and not judged.truth.settled and (judged.truth.contested or judged.truth.grade not in votes):
        return "suspect"
    if verdict.grade is None:
        return "misread"
    cited = [rule for r in (verdict.trace.rules if verdict.trace else ()) if (rule := instruction.rule(r))]
    if cited and not any(rule.admits(verdict.grade) for rule in cited):
        return "misread"
    missed = {served.get((judged.truth.grade, *term)) for term in terms} - {None, *(r.id for r in cited)}
    return "not_applied" if missed else "knowledge"


def suspects(judged: Iterable[Judged]) -> list[Judged]:
    """Samples whose label contradicts every person who rated them: for people to look at, not for a reviser."""
    return [j for j in judged if j.truth.votes and not j.truth.settled and j.truth.grade not in j.truth.votes]


# -- evidence -----------------------------------------------------------------------------------


def whole_evidence(judged: Sequence[Judged], limit: int, seed: int) -> tuple[EvidenceItem, ...]:
    """Whole groups at random up to about `limit` rows, errors and rights in their natural proportion.

    For a reviser that counts: what an edit breaks weighs as much as what it fixes.
    """
    by_group: dict[str, list[Judged]] = defaultdict(list)
    for item in judged:
        by_group[item.sample.group].append(item)
    groups = sorted(by_group)
    random.Random(seed).shuffle(groups)
    chosen: list[Judged] = []
    for group in groups:
        if len(chosen) + len(by_group[group]) <= limit or not chosen:
            chosen += by_group[group]
    return _items(_with_kind(chosen))


def contrast_evidence(
    inspection: Inspection, limit: int, seed: int, focus: Cluster | None = None
) -> tuple[EvidenceItem, ...]:
    """What people commented on, then errors, each followed by its nearest correct neighbour.

    Comments take at most a quarter of the room; each confusion cell is capped.

    Args:
        limit: most items, neighbours included.
        focus: a cluster whose errors come first.
    """
    commented = [j for j in inspection.judged if j.comment][: limit // 4]
    told = {j.sample.id for j in commented}
    limit -= len(commented)
    usable = ("knowledge", "not_applied")
    errors = [j for j in inspection.errors if inspection.causes[j.sample.id] in usable and j.sample.id not in told]
    random.Random(seed).shuffle(errors)
    first = {j.sample.id for j in focus.errors} if focus else set()
    errors.sort(key=lambda j: j.sample.id not in first)
    cells = len({j.cell for j in errors}) or 1
    cap = max(MIN_CLUSTER, limit // 2 // cells)
    taken: Counter[Cell] = Counter()
    shown: list[Judged] = []
    for error in errors:
        if len(shown) < limit // 2 and (error.sample.id in first or taken[error.cell] < cap):
            taken[error.cell] += 1
            shown.append(error)
    rights = [j for j in inspection.judged if j.right and j.sample.id not in told]
    pairs = _with_kind(commented)
    for error, right in zip(shown, nearest(shown, rights), strict=True):
        pairs += [(error, "error")] + ([(right, "neighbour")] if right else [])
    return _items(pairs)


def nearest(errors: Sequence[Judged], rights: Sequence[Judged]) -> list[Judged | None]:
    """For each error the correct sample that is worded most like it (TF-IDF cosine)."""
    if not errors or not rights:
        return [None] * len(errors)
    from sklearn.feature_extraction.text import TfidfVectorizer

    def texts(items: Sequence[Judged]) -> list[str]:
        return [" ".join(j.sample.fields.values()) for j in items]

    vectorizer = TfidfVectorizer(token_pattern=r"(?u)\w+")
    try:
        known = vectorizer.fit_transform(texts(rights))
    except ValueError:  # no words at all
        return [None] * len(errors)
    best = (vectorizer.transform(texts(errors)) @ known.T).toarray().argmax(axis=1)
    return [rights[i] for i in best]


def hints(inspection: Inspection, limit: int = 12, learn: bool = True) -> tuple[str, ...]:
    """What the errors have in common, in words: the largest clusters, then slices and predicates.

    Args:
        limit: most clusters.
        learn: whether to try predicates on the samples, which takes a second on a thousand.
    """
    samples = [j.sample for j in inspection.judged]
    wrong = [not j.right for j in inspection.judged]
    said = [
        f"{len(c.errors)} errors in {c.groups} groups judged {c.cell[1]} where {c.cell[0]} is right share "
        f"{c.term!r} in {c.field} ({c.lift:.1f} times as often as elsewhere)"
        for c in inspection.clusters[:limit]
    ]
    slices = [f"slice {t.sentence()}" for t in telling_slices(samples, wrong, inspection.members)]
    shared = [f"where it holds that {t.sentence()}" for t in telling_predicates(samples, wrong)] if learn else []
    return tuple(said + slices + shared)


def _with_kind(chosen: Iterable[Judged]) -> list[tuple[Judged, str]]:
    return [(j, "right" if j.right else "error") for j in chosen]


def _items(chosen: Sequence[tuple[Judged, str]]) -> tuple[EvidenceItem, ...]:
    labels: dict[str, str] = {}
    for item, _ in chosen:
        labels.setdefault(item.sample.group, f"g{len(labels) + 1}")
    return tuple(
        EvidenceItem(
            fields=dict(j.sample.fields),
            truth=j.truth.grade,
            verdict=j.verdict.grade,
            rules=j.verdict.trace.rules if j.verdict.trace else (),
            group=labels[j.sample.group],
            votes={} if j.truth.settled else dict(j.truth.votes),
            kind=kind,  # type: ignore[arg-type]
            comment=j.comment,
        )
        for j, kind in chosen
    )


# -- clusters -----------------------------------------------------------------------------------

Term = tuple[str, str]  # field, word


def _terms(sample: Sample) -> frozenset[Term]:
    return frozenset((name, word) for name, text in sample.fields.items() for word in _WORD.findall(text.lower()))


def _rules_serving(
    judged: Sequence[Judged], instruction: Instruction, terms: Mapping[str, frozenset[Term]]
) -> dict[tuple[str, str, str], str]:
    """(truth, field, term) -> the rule that decides, rightly, most samples with this term, and at least three."""
    everywhere = Counter(term for found in terms.values() for term in found)
    cited: Counter[tuple[str, str, str, str]] = Counter()
    for item in judged:
        rules = item.verdict.trace.rules if item.right and item.verdict.trace else ()
        known = [r for r in rules if instruction.rule(r)]
        cited.update((item.truth.grade, *term, rule) for term in terms[item.sample.id] for rule in known)
    return {
        (grade, name, word): rule
        for (grade, name, word, rule), count in sorted(cited.items())
        if count >= max(MIN_CLUSTER, 0.5 * everywhere[name, word])
    }


def _clusters(judged: Sequence[Judged], wrong: set[str], terms: Mapping[str, frozenset[Term]]) -> tuple[Cluster, ...]:
    everywhere = Counter(term for found in terms.values() for term in found)
    cells: dict[Cell, list[Judged]] = defaultdict(list)
    for item in judged:
        if item.sample.id in wrong:
            cells[item.cell].append(item)
    clusters = [c for cell, items in cells.items() for c in _cell_clusters(cell, items, terms, everywhere, len(judged))]
    return tuple(sorted(clusters, key=lambda c: (-len(c.errors) * c.lift, c.cell, c.field, c.term)))


def _cell_clusters(
    cell: Cell,
    items: list[Judged],
    terms: Mapping[str, frozenset[Term]],
    everywhere: Mapping[Term, int],
    total: int,
) -> list[Cluster]:
    """Greedy: the word that marks the most errors best takes them; what is left goes on."""
    left, found = list(items), []
    while len(left) >= MIN_CLUSTER:
        counts = Counter(term for j in left for term in terms[j.sample.id])
        lifts = {t: (n / len(left)) / (everywhere[t] / total) for t, n in counts.items() if n >= MIN_CLUSTER}
        marking = {t: counts[t] * lift for t, lift in lifts.items() if lift > 1.5}
        if not marking:
            break
        best = max(sorted(marking), key=lambda t: marking[t])
        mine = [j for j in left if best in terms[j.sample.id]]
        groups = len({j.sample.group for j in mine})
        found.append(Cluster(cell, *best, tuple(mine), groups, lifts[best]))
        left = [j for j in left if best not in terms[j.sample.id]]
    return found


def _in_slice(judged: Sequence[Judged], ids: frozenset[str]) -> tuple[int, int]:
    inside = [j for j in judged if j.sample.id in ids]
    return len(inside), sum(not j.right for j in inside)


# -- where errors are frequent --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Telling:
    """Where errors are more frequent than elsewhere.

    Attributes:
        what: the slice or the predicate, in words.
        strength: standard errors, by group.
    """

    what: str
    rows: int
    errors: int
    strength: float

    def sentence(self) -> str:
        """In words."""
        return f"{self.what}: {self.errors} of {self.rows} wrong"


def telling_slices(
    samples: Sequence[Sample], wrong: Sequence[bool], slices: Mapping[str, frozenset[str]], limit: int = 6
) -> list[Telling]:
    """The slices in which errors are over-represented, strongest first."""
    masks = ((name, np.array([s.id in ids for s in samples])) for name, ids in slices.items())
    return _strongest(masks, samples, wrong, SLICE_TELLS, limit)


def telling_predicates(samples: Sequence[Sample], wrong: Sequence[bool], limit: int = 6) -> list[Telling]:
    """The predicates, as the offline inducer thinks of them, that errors share more often than the rest."""
    from piar.offline import conditions

    chosen = np.sort(np.random.default_rng(0).permutation(len(samples))[:_LEARNED_FROM])
    shown, errors = [samples[i] for i in chosen], [wrong[i] for i in chosen]
    if not any(errors):
        return []
    masks = conditions([s.fields for s in shown], group_codes([s.group for s in shown])[0], MIN_GROUPS)
    return _strongest(masks, shown, errors, PREDICATE_TELLS, limit)


def _strongest(
    masks: Iterable[tuple[str, npt.NDArray[np.bool_]]],
    samples: Sequence[Sample],
    wrong: Sequence[bool],
    least: float,
    limit: int,
) -> list[Telling]:
    errors = np.asarray(wrong, dtype=float)
    codes, count = group_codes([s.group for s in samples])
    found: dict[bytes, Telling] = {}
    for what, mask in masks:
        if mask.sum() < MIN_ROWS or mask.all():
            continue
        excess = group_sums((errors - errors.mean()) * mask, codes, count)[:, 0]
        spread = float(np.sqrt((excess**2).sum()))
        strength = float(excess.sum()) / spread if spread > 0 else 0.0
        if strength >= least and len(np.unique(codes[mask])) >= MIN_GROUPS:
            told = Telling(what, int(mask.sum()), int(errors[mask].sum()), strength)
            found.setdefault(np.packbits(mask).tobytes(), told)  # of equal ones the first
    return sorted(found.values(), key=lambda t: -t.strength)[:limit]
