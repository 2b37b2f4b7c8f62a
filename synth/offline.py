"""Drafts without a model, from the store's own words: a rule's quoted words put into samples, words exchanged.

Words are exchanged for others that the store has seen between the same neighbours, and put in where it has seen them
stand: local word order is all the grammar there is. Most drafts still fall to the screens; what is left is as good
as the teacher that judged it.
"""

import re
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from random import Random

from store.ids import seed_of
from store.task import Task
from store.types import Instruction
from synth.drafts import Draft, Method, Parent, Target, Want

_QUOTED = re.compile(r'"([^"]+)"')
_EDGE = ""  # stands before the first word and after the last


class Neighbours:
    """Which words have stood beside which.

    Args:
        texts: what there is to learn from. Words that occur once and hold a digit (models, sizes) count as one.
    """

    def __init__(self, texts: Iterable[str]) -> None:
        split = [text.split() for text in texts]
        counts = Counter(word.lower() for words in split for word in words)
        self._often = {word for word, n in counts.items() if n > 1}
        self._after: defaultdict[str, set[str]] = defaultdict(set)
        self._before: defaultdict[str, set[str]] = defaultdict(set)
        self._written: dict[str, str] = {}
        for words in split:
            self._written.update((word.lower(), word) for word in words)
            keys = [_EDGE, *map(self._key, words), _EDGE]
            for left, right in pairwise(keys):
                self._after[left].add(right)
                self._before[right].add(left)

    def _key(self, word: str) -> str:
        key = word.lower()
        return "0" if key not in self._often and any(c.isdigit() for c in key) else key

    def substitutes(self, words: Sequence[str], at: int) -> list[str]:
        """Other words that stood after the left neighbour of words[at] and before its right one."""
        left = self._key(words[at - 1]) if at else _EDGE
        right = self._key(words[at + 1]) if at + 1 < len(words) else _EDGE
        fitting = self._after[left] & self._before[right] - {self._key(words[at]), "0", _EDGE}
        return [self._written[key] for key in sorted(fitting)]

    def places(self, words: Sequence[str], mark: str) -> list[int]:
        """Where a mark may be put in: after a word that it has followed, or before one that it has preceded."""
        marks = mark.split()
        first, last = self._key(marks[0]), self._key(marks[-1])
        keys = [_EDGE, *map(self._key, words), _EDGE]
        found = [i for i in range(len(words) + 1) if first in self._after[keys[i]] or last in self._before[keys[i + 1]]]
        return found or list(range(len(words) + 1))


class Offline:
    """Drafts by edits and recombination of the samples that are there.

    Args:
        parents: training samples with what the teacher said of them.
    """

    def __init__(self, task: Task, instruction: Instruction, parents: Sequence[Parent], seed: int = 0) -> None:
        self.task = task
        self.instruction = instruction
        self.parents = parents
        self.seed = seed
        self._order = {rule.id: place for place, rule in enumerate(instruction.rules)}
        self._text = next((name for name in reversed(task.fields) if name != task.group_by), task.fields[-1])
        self._neighbours = Neighbours(parent.fields[self._text] for parent in parents)
        self._marks = {rule.id: _QUOTED.findall(rule.text) for rule in instruction.rules if rule.grade is not None}

    def propose(self, wants: Sequence[Want]) -> list[list[Draft]]:
        """Different drafts for each want; none where its method has nothing to start from."""
        return [self._drafts(want.target, want.method, want.n) for want in wants]

    def _drafts(self, target: Target, method: Method, n: int) -> list[Draft]:
        rng = Random(seed_of(self.seed, "synth", target.rule, target.grade, target.bucket, method))
        drafts: dict[tuple[str, ...], Draft] = {}
        starts = self._starts(target, method)
        for _ in range(2 * n if starts else 0):
            parent = rng.choice(starts)
            fields = self._edit(parent, target, method, rng)
            key = tuple(fields.values())
            if key != tuple(parent.fields.values()):
                drafts.setdefault(key, Draft(fields, target, method, parent))
            if len(drafts) == n:
                break
        return list(drafts.values())

    def _starts(self, target: Target, method: Method) -> list[Parent]:
        """Paraphrase and structured start from the rule's own samples, contrast from another grade, boundary from a
        rule that is applied later; the last two from samples without another rule's marks."""
        tests: dict[Method, Callable[[Parent], bool]] = {
            "structured": lambda p: p.rule == target.rule,
            "paraphrase": lambda p: p.rule == target.rule,
            "contrast": lambda p: p.grade != target.grade and not self._marked(p),
            "boundary": lambda p: self._place(p.rule) > self._place(target.rule) and not self._marked(p),
        }
        return [parent for parent in self.parents if tests[method](parent)]

    def _marked(self, parent: Parent) -> bool:
        """Whether the rule that decided quotes a word that the text has."""
        text = parent.fields[self._text].lower()
        return any(
            re.search(rf"\b{re.escape(mark.lower())}\b", text) for mark in self._marks.get(parent.rule or "", [])
        )

    def _place(self, rule: str | None) -> int:
        return self._order.get(rule or "", -1)

    def _edit(self, parent: Parent, target: Target, method: Method, rng: Random) -> dict[str, str]:
        if method in ("contrast", "boundary"):
            return self._with_mark(parent, target, rng)
        fields = dict(parent.fields)
        if method == "structured":  # another group, or other words beside what decides
            if rng.random() < 0.5 and self.task.group_by in fields:
                fields[self.task.group_by] = rng.choice(self.parents).fields[self.task.group_by]
            return self._exchanged(fields, self._beside(parent), rng, 2)
        return self._exchanged(fields, self._beside(parent), rng, 3)

    def _with_mark(self, parent: Parent, target: Target, rng: Random) -> dict[str, str]:
        """The parent with a word that the rule quotes; of a rule that quotes none, one word exchanged or left out."""
        fields, marks = dict(parent.fields), self._marks.get(target.rule)
        words = fields[self._text].split()
        if not marks and rng.random() < 0.5:
            return self._exchanged(fields, range(len(words)), rng, 1)
        if marks:
            mark = rng.choice(marks)
            words.insert(rng.choice(self._neighbours.places(words, mark)), mark)
        elif words:
            words.pop(rng.randrange(len(words)))
        fields[self._text] = " ".join(words)
        return fields

    def _beside(self, parent: Parent) -> list[int]:
        """Places of the words that the teacher did not quote."""
        quoted = {word.lower() for span in parent.evidence for word in span.split()}
        return [i for i, word in enumerate(parent.fields[self._text].split()) if word.lower() not in quoted]

    def _exchanged(self, fields: dict[str, str], free: Sequence[int], rng: Random, times: int) -> dict[str, str]:
        """Up to so many of the words at the free places exchanged for others with the same neighbours."""
        words = fields[self._text].split()
        ready = [i for i in free if self._neighbours.substitutes(words, i)]
        for i in rng.sample(ready, min(times, len(ready))):
            words[i] = rng.choice(self._neighbours.substitutes(words, i) or [words[i]])
        fields[self._text] = " ".join(words)
        return fields
