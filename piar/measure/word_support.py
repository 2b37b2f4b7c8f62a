"""How many rows and groups stand behind each word that a rule asks for; see `piar.offline.named_words`."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from piar.offline import NamedWord, Text, named_words, read_text
from store.db import Store, quote
from store.figures import many
from store.types import Rule


@dataclass(frozen=True, slots=True)
class Support:
    """A word or phrase, and the labelled train and dev rows that have it.

    Attributes:
        asked: whether the rule asks for it; else its absence.
        agree: of these rows, those whose true grade is the rule's.
    """

    term: str
    asked: bool
    rows: int
    groups: int
    agree: int

    def sentence(self) -> str:
        """In words."""
        told = f"“{self.term}” {many(self.rows, 'row')}, {many(self.groups, 'group')}"
        return f"{told}, {100 * self.agree / self.rows:.0f} % right" if self.asked and self.rows else told


@dataclass(frozen=True, slots=True)
class _Row:
    group: str
    truth: str
    texts: dict[str, Text]


def support(store: Store, rules: Sequence[Rule]) -> dict[str, tuple[Support, ...]]:
    """Rule id -> the support of each word that it names; rules that name none are left out.

    Train and dev only: holdout and test stay closed to who edits rules.
    """
    named = {rule.id: (rule, words) for rule in rules if (words := named_words(store.task, rule, rules))}
    rows = _labelled(store) if named else []
    return {name: tuple(_support(word, rule, rows) for word in words) for name, (rule, words) in named.items()}


def _labelled(store: Store) -> list[_Row]:
    """The labelled rows of train and dev, their fields read."""
    names = store.task.fields
    fields = ", ".join(f"s.{quote(name)}" for name in names)
    frame = store.frame(
        f"select s.group_key, t.grade, {fields} from samples s join truth t using (sample_id) "
        "where s.split in ('train', 'dev')"
    )
    return [
        _Row(group, grade, {name: read_text(text or "") for name, text in zip(names, texts, strict=True)})
        for group, grade, *texts in frame.rows()
    ]


def _support(named: NamedWord, rule: Rule, rows: Iterable[_Row]) -> Support:
    words = read_text(named.word).words
    having = [row for row in rows if any(row.texts[name].find(words) >= 0 for name in named.fields)]
    asked, groups = named.asked and rule.grade is not None, {row.group for row in having}
    return Support(named.word, asked, len(having), len(groups), sum(row.truth == rule.grade for row in having))
