"""How much of a bare client's speed is left when everything that a label needs is done.

Each round asks the same requests, in this order: the bare `openai` client (aiohttp transport, a semaphore),
then `benchmarks.judging.judge` (render, ask, parse, journal, store) over the same transport, then over the lean one,
then peers. CPU seconds of our own process are shown beside the rates, since they do not depend on a busy machine.
Figures are medians over interleaved rounds, as ratios to the bare client of the same round.

    python -m benchmarks.teachers.throughput [--requests 5000] [--rounds 5] [--peer distilabel=PYTHON] …
"""

import argparse
import asyncio
import statistics
import tempfile
import time
from pathlib import Path

import openai

from benchmarks.judging import judge
from benchmarks.teachers.mock import mock
from benchmarks.teachers.peers import chats_of, peer_argument, run_peer
from piar.connect import connect
from piar.llm.settings import ModelSettings
from store.db import Store
from store.ids import sample_id
from store.journal import Journal
from store.task import Grade, Task
from store.types import Instruction, Rule, Sample

IN_FLIGHT = 64
TASK = Task(
    name="search",
    group_by="query",
    fields=("query", "title"),
    grades=tuple(Grade(symbol=str(i), value=i, meaning="fits better than the one below") for i in range(4)),
)
INSTRUCTION = Instruction(
    "Judge how well a product answers a search query.",
    tuple(Rule(f"R{i:02}", "When the title lacks a word that the query needs, look for a synonym.") for i in range(20)),
)


def samples(count, salt=""):
    """Distinct samples, five to a query."""
    pairs = [(f"wireless mouse {salt}{i // 5}", f"Silent wireless mouse for travel, model {i}") for i in range(count)]
    return [Sample(sample_id(q, (q, t)), q, {"query": q, "title": t}) for q, t in pairs]


async def bare(url, chats):
    """The `openai` package as its documentation shows it, with its aiohttp transport."""
    gate = asyncio.Semaphore(IN_FLIGHT)
    async with openai.AsyncOpenAI(
        api_key="none", base_url=url, http_client=openai.DefaultAioHttpClient(), max_retries=0
    ) as client:

        async def ask(messages):
            async with gate:
                reply = await client.chat.completions.create(model="mock", messages=messages, max_tokens=400)
            return reply.choices[0].message.content

        return await asyncio.gather(*(ask(chat) for chat in chats))


def time_bare(url, wanted):
    clock = Clock()
    assert len(asyncio.run(bare(url, chats_of(TASK, INSTRUCTION, wanted)))) == len(wanted)
    return clock.read()


def time_ours(url, wanted, transport):
    model = ModelSettings(model="openai:mock", base_url=url, transport=transport, concurrency=IN_FLIGHT)
    with tempfile.TemporaryDirectory() as folder:
        store = Store.create(Path(folder) / "piar.duckdb", TASK)
        journal = Journal(Path(folder) / "journal")
        clock = Clock()
        report = judge(
            store, connect(model, lambda words: None), INSTRUCTION, wanted, journal=journal, model=model, run_id="r"
        )
        journal.close()
        assert report.labelled == len(wanted), report
        return clock.read()


class Clock:
    """Wall and CPU seconds since it was made."""

    def __init__(self):
        self.start = time.perf_counter(), time.process_time()

    def read(self):
        return time.perf_counter() - self.start[0], time.process_time() - self.start[1]


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--requests", type=int, default=5000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--peer", type=peer_argument, action="append", default=[], metavar="NAME=PYTHON")
    options = parser.parse_args()
    wanted, rounds = samples(options.requests), []
    with mock() as url:
        ways = {
            "bare openai": lambda: time_bare(url, wanted),
            "piar, openai transport": lambda: time_ours(url, wanted, "openai"),
            "piar, lean transport": lambda: time_ours(url, wanted, "lean"),
            **{name: lambda n=name, p=python: time_peer(n, p, url, wanted) for name, python in options.peer},
        }
        for _ in range(options.rounds):
            rounds.append({name: way() for name, way in ways.items()})
    for name in ways:
        show(name, rounds, options.requests)


def time_peer(name, python, url, wanted):
    with tempfile.TemporaryDirectory() as cache:
        report = run_peer(name, python, url, chats_of(TASK, INSTRUCTION, wanted), cache)
    assert report["done"] == len(wanted), report
    return report["seconds"], None


def show(name, rounds, requests):
    rate = statistics.median(requests / r[name][0] for r in rounds)
    ratios = [r["bare openai"][0] / r[name][0] for r in rounds]
    each = ", ".join(f"{ratio:.2f}" for ratio in ratios)
    line = f"{name:24} {rate:6.0f} req/s  {statistics.median(ratios):5.2f} x bare ({each})"
    if rounds[0][name][1] is not None:
        line += f"  CPU {statistics.median(r[name][1] / requests * 1000 for r in rounds):.2f} ms/request"
    print(line)


if __name__ == "__main__":
    main()
