"""The metric that a search gains in, where the rows allow it; the metrics are those of `store.gain_metrics`."""

from collections import defaultdict
from collections.abc import Mapping, Sequence

from piar.evolve.truth import Truth
from store.errors import UsageError
from store.gain_metrics import METRICS, Metric, MetricName
from store.stats import FEWEST
from store.task import Task
from store.types import Sample


def chosen(name: MetricName, task: Task, parts: Mapping[str, Sequence[Sample]], truths: Mapping[str, Truth]) -> Metric:
    """The metric of a run.

    Args:
        parts: what instructions are compared on, by name.

    Raises:
        UsageError: it needs an order of the grades, and the task has none; or groups to rank, and there are none.
    """
    fix = 'Set [evolve] metric = "accuracy"'
    if name != "accuracy" and not task.ordered:
        raise UsageError(
            f"[evolve] metric = {name} needs grades in an order, and task.toml says `ordered = false`.",
            f"{fix}, or `ordered = true` where the grades have an order.",
        )
    for part, samples in parts.items() if METRICS[name].whole_groups else ():
        grades = defaultdict[str, set[str]](set)
        for sample in samples:
            grades[sample.group].add(truths[sample.id].grade)
        ranked = sum(len(found) > 1 for found in grades.values())
        if ranked < FEWEST:
            raise UsageError(
                f"[evolve] metric = {name} needs groups with rows of different grades, and {part} has {ranked} of "
                f"them, fewer than {FEWEST}: nothing could be shown.",
                f"{fix}, or label more rows of the same {task.group_by}.",
            )
    return METRICS[name]
