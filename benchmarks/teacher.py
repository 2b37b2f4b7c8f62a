"""The offline teacher: how fast it judges, and what it induces.

`python -m benchmarks teacher`. Rates are per second of processor time on one core, so that a busy machine
does not change them; everything here is simulated.
"""

import json
import time
from collections.abc import Callable, Sequence
from typing import Any

import polars as pl

from benchmarks.judging import judge_messages
from piar.instructions.operations import apply
from piar.instructions.prompts import judge_prefix
from piar.instructions.revision_schema import EvidenceItem, GradeShown, RevisionAnswer, RevisionRequest, RuleShown
from piar.llm.base import Message, Request
from piar.offline.teacher import RulebookClient
from piar.shop.world import ShopWorld, make_shop
from store.types import Instruction

CLIENT = RulebookClient()
Pairs = Sequence[dict[str, str]]


def run() -> None:
    """Print the figures."""
    seconds, world = _timed(lambda: make_shop(10_000, seed=1))
    print(f"shop of 10,000 pairs           {seconds:6.2f} s of processor time")
    pairs = world.pairs.select("query", "title").to_dicts()
    for name, instruction in (("seed, 4 rules", world.seed), ("oracle, 25 rules", world.oracle)):
        for state in ("new texts", "known texts"):
            seconds, _ = _timed(lambda i=instruction, n=name, s=state: _judge(world, i, pairs))
            print(f"judging, {name:<17} {state:<12} {len(pairs) / seconds:8,.0f} judgements/s a core")
    _induction(make_shop(3000, seed=1))


def _induction(world: ShopWorld) -> None:
    """One revision after another from half of the queries, measured on the truth of the other half."""
    rows = world.pairs.with_columns(truth=world.answers["true_grade"])
    queries = sorted(set(rows["query"]))[::2]
    shown, rest = rows.filter(rows["query"].is_in(queries)), rows.filter(~rows["query"].is_in(queries))
    instruction = world.seed
    for number in range(4):
        print(f"after {number} revisions              {_accuracy(world, instruction, rest):.3f} on queries not shown")
        asked = RevisionRequest(
            grades=tuple(GradeShown(symbol=g.symbol, name=g.name, value=g.value) for g in world.task.grades),
            rules=tuple(RuleShown(id=r.id, text=r.text, grade=r.grade) for r in instruction.rules),
            evidence=tuple(
                EvidenceItem(fields={"query": q, "title": t}, truth=g, group=q)
                for q, t, g in shown.select("query", "title", "grade").rows()
            ),
        )
        messages = (Message("system", "Revise."), Message("user", asked.model_dump_json()))
        seconds, answers = _timed(lambda m=messages: CLIENT.generate([Request("k", m)]))
        candidates = RevisionAnswer.model_validate(json.loads(answers[0].text or "{}")).candidates
        if not candidates:
            break
        print(f"  a revision from {shown.height} samples  {seconds:6.2f} s of processor time")
        instruction = apply(instruction, candidates[0].operations, world.task)
    print(f"the planted rules              {_accuracy(world, world.oracle, rest):.3f}")


def _timed(work: Callable[[], Any]) -> tuple[float, Any]:
    start = time.process_time()
    result = work()
    return time.process_time() - start, result


def _judge(world: ShopWorld, instruction: Instruction, pairs: Pairs) -> list[str]:
    prompt = judge_prefix(world.task, instruction)
    requests = [Request("k", judge_messages(prompt, pair), world.task.symbols) for pair in pairs]
    return [(answer.text or " ")[0] for answer in CLIENT.generate(requests)]


def _accuracy(world: ShopWorld, instruction: Instruction, rows: pl.DataFrame) -> float:
    answers = _judge(world, instruction, rows.select("query", "title").to_dicts())
    return sum(a == t for a, t in zip(answers, rows["truth"], strict=True)) / len(answers)


if __name__ == "__main__":
    run()
