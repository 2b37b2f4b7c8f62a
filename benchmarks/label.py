"""Judging with the offline teacher, samples a second and core: the whole path beside its parts in the same run.

Run: `python -m benchmarks.label [SAMPLES]`. Whole path: render, ask, parse, journal, fold. Parts: the teacher
alone, and everything but the teacher (a client that answers from memory).
"""

import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from benchmarks.judging import judge, judge_messages
from piar.instructions.prompts import judge_prefix
from piar.llm.base import Completion, OnCompletion, Request
from piar.offline.teacher import RulebookClient
from piar.shop.world import make_shop
from store.db import Store
from store.ids import sample_id
from store.journal import Journal
from store.types import Sample


class _Memory:
    """Answers with one text at once."""

    model = "memory"

    def __init__(self, text: str) -> None:
        self.text = text

    def generate(self, requests: Sequence[Request], on_completion: OnCompletion | None = None) -> list[Completion]:
        completions = [Completion(r.key, self.model, self.text, dict.fromkeys(r.grades, 0.25)) for r in requests]
        for completion in completions:
            if on_completion:
                on_completion(completion)
        return completions


def main(count: int = 20_000) -> dict[str, float]:
    """Samples per second of processor time."""
    world = make_shop(count, 0)
    pairs = world.pairs.select("query", "title").rows()
    samples = [Sample(sample_id(q, (q, t)), q, {"query": q, "title": t}) for q, t in pairs]
    prefix = judge_prefix(world.task, world.oracle)
    requests = [Request(s.id, judge_messages(prefix, s.fields), world.task.symbols) for s in samples]
    teacher = RulebookClient()
    started = time.process_time()
    answers = teacher.generate(requests)
    alone = time.process_time() - started
    found = {"teacher alone": count / alone}
    for name, client in (("whole path", teacher), ("all but the teacher", _Memory(answers[0].text or ""))):
        with tempfile.TemporaryDirectory() as folder:
            store, journal = Store.create(Path(folder) / "piar.duckdb", world.task), Journal(Path(folder) / "journal")
            started = time.process_time()
            judge(store, client, world.oracle, samples, journal=journal)
            found[name] = count / (time.process_time() - started)
            journal.close()
    return {name: round(value) for name, value in found.items()}


if __name__ == "__main__":
    print(json.dumps(main(*(int(a) for a in sys.argv[1:])), indent=1))
