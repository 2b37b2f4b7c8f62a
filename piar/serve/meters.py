"""What the server counts, for Prometheus."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

if TYPE_CHECKING:
    from trainers.scoring import Scored

SECONDS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10)
BATCHES = (1, 2, 4, 8, 16, 32, 64, 128, 256)


class Meters:
    """Counters of one server, in a registry of its own.

    `piar_grades_total` by grade is what drift shows in first.
    """

    def __init__(self) -> None:
        self.registry = own = CollectorRegistry()
        ProcessCollector(registry=own)
        self.requests = Counter("piar_requests", "Requests answered.", ["route", "status"], registry=own)
        self.samples = Counter("piar_samples", "Samples judged.", registry=own)
        self.grades = Counter("piar_grades", "Grades given.", ["grade"], registry=own)
        self.waiting = Gauge("piar_waiting_samples", "Samples that wait for the model.", registry=own)
        self.batch = Histogram("piar_batch_samples", "Samples in one forward pass.", buckets=BATCHES, registry=own)
        self.grade_seconds = Histogram(
            "piar_grade_seconds", "From arrival at the model's queue to the last grade.", buckets=SECONDS, registry=own
        )
        self.shadowed = Counter("piar_shadow", "Samples judged by the shadow too.", ["outcome"], registry=own)
        self.decided = Counter("piar_decided", "Samples of a cascade, by who decided.", ["tier"], registry=own)
        self.traces = Counter("piar_traces", "Traces, by whether their verdict is the grade.", ["agrees"], registry=own)
        self.trace_seconds = Histogram(
            "piar_trace_seconds", "From arrival to the end of the trace.", buckets=SECONDS, registry=own
        )

    def judged(self, found: "Sequence[Scored]", seconds: float) -> None:
        """Count a request that got its grades."""
        self.samples.inc(len(found))
        for one in found:
            self.grades.labels(one.grade).inc()
        self.grade_seconds.observe(seconds)

    def explained(self, agrees: bool | None, seconds: float) -> None:
        """Count a trace that was written to its end."""
        self.traces.labels({True: "yes", False: "no", None: "unread"}[agrees]).inc()
        self.trace_seconds.observe(seconds)
