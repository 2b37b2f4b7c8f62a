"""The words of synthesis: cells to fill, parents to start from, drafts to screen."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from store.ids import sample_id
from store.task import Task
from store.types import Sample

Method = Literal["structured", "contrast", "paraphrase", "boundary"]
METHODS: tuple[Method, ...] = ("structured", "contrast", "paraphrase", "boundary")
Status = Literal["kept", "dropped", "borderline"]


@dataclass(frozen=True, slots=True)
class Target:
    """A thin cell: samples in which `rule` decides for `grade`; `have` there are, `wanted` more are missing.

    The rule is "" where the cell is of a grade alone, since the teacher cites no rules.
    """

    rule: str
    grade: str
    bucket: str
    have: int
    wanted: int


@dataclass(frozen=True, slots=True)
class Parent:
    """A training sample to start from, with what the teacher said of it."""

    id: str
    group: str
    fields: Mapping[str, str]
    grade: str
    rule: str | None
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Draft:
    """A proposed sample: `fields` may be anything until the schema screen has seen them."""

    fields: Mapping[str, object]
    target: Target
    method: Method
    parent: Parent | None

    def sample(self, task: Task) -> Sample:
        """The draft as a training sample; its group is its own field, else the parent's."""
        fields = {name: str(self.fields.get(name, "")) for name in task.fields}
        group = fields.get(task.group_by) or (self.parent.group if self.parent else "synthetic")
        return Sample(sample_id(group, fields.values()), group, fields, "train")


@dataclass(frozen=True, slots=True)
class Want:
    """Drafts to be made: how many, for which cell, by which method."""

    target: Target
    method: Method
    n: int


class Proposer(Protocol):
    """Makes drafts for cells."""

    def propose(self, wants: Sequence[Want]) -> list[list[Draft]]:
        """Drafts for each want, in order; fewer than wanted may come."""
        ...
