"""Labelled samples that a judge is shown beside the one it judges: the nearest of the train split.

They are data in the prompt, after what all samples share, and part of the request's key: a label that changes, or a new
one that is nearer, makes another question. Never among them: rows of another split, rows of the asked sample's own
group, and rows of another group that say the same words; what several rows say is shown once. A text that is long is
cut.

Source: nearest examples in the prompt, Liu et al. 2022 (arXiv 2101.06804). Chosen by us: the nearest whatever their
grades are, the nearest last, and how much of each is shown.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import pyarrow as pa

from mining.neighbours import HashedWords, Vectors, nearest_among, unit
from piar.instructions.prompts import render
from piar.judging.settings import LabelSettings
from store.db import Store, quote
from store.errors import PiarError
from store.fragments import sample_words
from store.task import sample_text
from store.types import Sample

Embed = Callable[[Sequence[str]], Any]
SHOWN = 1_200  # characters of a labelled sample, all its fields together
DIMENSIONS = 256  # of hashed words: cosines within .06
_COPIES = 8  # rows beyond twice the wanted that are looked at, since some repeat others
_REMEMBERED = 100_000  # samples whose neighbours are remembered
_PLACE = "the place"  # no field is called so


@dataclass(frozen=True, slots=True)
class Labelled:
    """A labelled sample of train."""

    id: str
    group: str
    fields: Mapping[str, str]
    grade: str


@dataclass(frozen=True, slots=True)
class _Read:
    """Texts, ready to be compared: unit vectors (N, D), and a number for each group and each text."""

    vectors: Vectors
    groups: Any
    words: Any


class Neighbours:
    """The labelled samples nearest to any sample; read and compared when they are first asked for.

    Args:
        store: whose train split has the labels.
        settings: how many, and by which vectors.
        embed: texts -> (N, D) vectors, where they are an encoder's.
        prompts: the project's folder of template overrides.
    """

    def __init__(
        self, store: Store, settings: LabelSettings, *, embed: Embed | None = None, prompts: Path | None = None
    ) -> None:
        self.k, self.mark, self.task = settings.neighbours, settings.mark, store.task
        self._store, self._embed, self._prompts = store, embed, prompts
        self._found: dict[str, tuple[int, ...]] = {}

    @cached_property
    def labelled(self) -> list[Labelled]:
        """Every sample of train with what is held true of it.

        Raises:
            PiarError: there is none.
        """
        fields = ", ".join(f"coalesce(s.{quote(name)}, '')" for name in self.task.fields)
        with self._store.read() as con:
            rows = con.execute(
                f"select s.sample_id::varchar, s.group_key, [{fields}], t.grade from samples s "
                "join truth t using (sample_id) where s.split = 'train' order by s.sample_id"
            ).fetchall()
        if not rows:
            raise PiarError(
                f"`[label] neighbours = {self.k}` shows labelled samples of train, and train has none.",
                "Label some (`piar review here`, or import a file with grades), or set it to 0.",
            )
        return [Labelled(i, g, dict(zip(self.task.fields, texts, strict=True)), grade) for i, g, texts, grade in rows]

    def prepare(self, samples: Sequence[Sample]) -> None:
        """Find the neighbours of all these samples at once, which is faster than one after the other."""
        wanted = [sample for sample in samples if sample.id not in self._found]
        if len(self._found) + len(wanted) > _REMEMBERED:
            self._found.clear()
            wanted = list(samples)
        if wanted:
            self._found.update((s.id, f) for s, f in zip(wanted, self.find(wanted), strict=True))

    def text(self, sample: Sample, most: int) -> str:
        """What the prompt says of a sample's nearest neighbours; empty where it has none."""
        self.prepare([sample])
        shown = [self.labelled[place] for place in reversed(self._found[sample.id][:most])]
        values = [{"text": sample_text(cut(one.fields)), "grade": one.grade} for one in shown]
        return render("neighbours", {"neighbours": values}, self._prompts) if values else ""

    def find(self, samples: Sequence[Sample]) -> list[tuple[int, ...]]:
        """Places in `labelled` of each sample's neighbours, the nearest first."""
        base = self._base
        asked = self._read(samples)

        def barred(start: int, stop: int) -> Any:
            same_group = asked.groups[start:stop, None] == base.groups[None, :]
            return same_group | (asked.words[start:stop, None] == base.words[None, :])

        places, _ = nearest_among(asked.vectors, base.vectors, 2 * self.k + _COPIES, barred)
        return [self._without_copies([place for place in row if place >= 0]) for row in places.tolist()]

    def _without_copies(self, places: Sequence[int]) -> tuple[int, ...]:
        """The first k that say different things: a text that stands in several groups is shown once."""
        first: dict[int, int] = {}
        for place in places:
            first.setdefault(int(self._base.words[place]), place)
        return tuple(first.values())[: self.k]

    @cached_property
    def _base(self) -> _Read:
        return self._read(self.labelled, learn=True)

    def _read(self, samples: Sequence[Sample | Labelled], *, learn: bool = False) -> _Read:
        """The samples as they are compared; `learn` what is rare, and which groups and texts there are, from them."""
        columns = {name: [sample.fields[name] for sample in samples] for name in self.task.fields}
        with duckdb.connect() as con:
            con.register("asked", pa.table({_PLACE: pa.array(range(len(samples)), pa.int32()), **columns}))
            source = f"select {quote(_PLACE)} as place, {sample_words(self.task)} as words from asked"
            words = [text for (text,) in con.execute(f"select words from ({source}) order by place").fetchall()]
            if self._embed is not None:
                vectors = unit(np.asarray(self._embed(words)))
            elif learn:
                self._hashed = HashedWords(con, source, len(samples), DIMENSIONS)
                vectors = self._hashed.learnt
            else:
                vectors = self._hashed.vectors(con, source, len(samples))
        groups = [sample.group for sample in samples]
        if learn:
            self._numbers = {text: number for number, text in enumerate(dict.fromkeys([*groups, *words]))}
        unknown = -1 if learn else -2  # no group of the labelled samples is like that of one without
        return _Read(vectors, self._numbered(groups, unknown), self._numbered(words, unknown))

    def _numbered(self, texts: Sequence[str], unknown: int) -> Any:
        """The number of each text that labelled samples have."""
        return np.array([self._numbers.get(text, unknown) if text else unknown for text in texts], dtype=np.int64)


def cut(fields: Mapping[str, str]) -> dict[str, str]:
    """The fields with at most `SHOWN` characters: the longest are cut to one length and end in an ellipsis."""
    short, left = {}, SHOWN
    for done, name in enumerate(sorted(fields, key=lambda name: len(fields[name]))):
        text, fair = fields[name], left // (len(fields) - done)
        short[name] = text if len(text) <= fair else f"{text[: fair - 1]}…"
        left -= len(short[name])
    return {name: short[name] for name in fields}
