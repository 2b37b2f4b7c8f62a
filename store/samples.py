"""Samples as a sequence over a table: a million of them take a fifth of a gigabyte, and objects are made when used."""

from collections.abc import Iterator, Sequence
from typing import overload

import polars as pl

from store.types import Sample

_SLICE = 10_000


class Samples(Sequence[Sample]):
    """Samples that stay in columns until they are looked at.

    Args:
        frame: rows of the table `samples`, with `sample_id`, `group_key`, `split` and the fields.
        fields: the task's fields, in order.
    """

    def __init__(self, frame: pl.DataFrame, fields: Sequence[str]) -> None:
        self._frame, self._fields = frame.select("sample_id", "group_key", "split", *fields), tuple(fields)

    def __len__(self) -> int:
        return self._frame.height

    @overload
    def __getitem__(self, place: int) -> Sample: ...

    @overload
    def __getitem__(self, place: slice) -> "Samples": ...

    def __getitem__(self, place: "int | slice") -> "Sample | Samples":
        if isinstance(place, slice):
            return Samples(self._frame[place], self._fields)
        return self._sample(self._frame.row(place))

    def __iter__(self) -> Iterator[Sample]:
        for rows in self._frame.iter_slices(_SLICE):
            yield from map(self._sample, rows.rows())

    def _sample(self, row: tuple[str | None, ...]) -> Sample:
        sample_id, group, split, *texts = row
        named = {name: text or "" for name, text in zip(self._fields, texts, strict=True)}
        return Sample(sample_id or "", group or "", named, split)  # type: ignore[arg-type]
