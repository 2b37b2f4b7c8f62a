"""What `piar serve` adds to the model: latency of the grade by each route, of the trace, and throughput.

`python -m benchmarks.serve [--hidden 384] [--layers 8] [--requests 300] [--only routes|vllm]`; the load comes from this
process, the server is another one, each with one thread. Random weights: nothing here depends on what was learned.
"""

import argparse
import asyncio
import os
import random
import re
import statistics
import string
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ["OMP_NUM_THREADS"] = "1"

from piar.shop.world import make_shop
from store.task import sample_text
from tests.vllm_env import http_server
from trainers.checkpoint import StudentCard, save
from trainers.config import Prompt
from trainers.scoring import Student
from trainers.session import Session
from trainers.tiny import tiny_model, tiny_tokenizer

RUBRIC_WORDS = 300
LABELS = [*string.ascii_uppercase, *string.digits, "yes", "no"]  # vLLM's own, each of which must be one token
REASONS = (60, 100, 150)  # tokens of a trace, short to long
SHARES = (0.5, 0.65, 0.8)  # of capacity


def make_student(folder: Path, hidden: int, layers: int, prompt: Prompt) -> tuple[Path, list[dict[str, str]]]:
    """A random student that reads a rulebook, or samples alone, and samples of the simulated shop for it."""
    world = make_shop(600, seed=1)
    task = world.task
    samples = [{f: row[f] for f in task.fields} for row in world.pairs.iter_rows(named=True)]
    rubric = " ".join([" ".join(r.text for r in world.oracle.rules)] * 9)
    rubric = " ".join(rubric.split()[:RUBRIC_WORDS])
    tokenizer = tiny_tokenizer([rubric, *(sample_text(s) for s in samples)], LABELS, 2048)
    card = StudentCard(task=task, prompt=prompt, rubric=rubric if prompt == "rulebook" else "")
    return save(folder / prompt, tiny_model(len(tokenizer), hidden=hidden, layers=layers), tokenizer, card), samples


class Bare:
    """One forward of the same model on the same prompt, the rubric in the model's own cache; and its own decoding."""

    def __init__(self, student: Student, root: Sequence[int]) -> None:
        import torch
        from transformers import AutoModelForCausalLM, DynamicCache

        self.torch = torch
        self.lm = AutoModelForCausalLM.from_pretrained(student.policy.lm.config._name_or_path)
        self.cache = DynamicCache(config=self.lm.config)
        with torch.inference_mode():
            self.lm(input_ids=torch.tensor([list(root)]), past_key_values=self.cache)
        self.skip = len(root)

    def grade(self, prompt: Sequence[int]) -> None:
        """Forward, last position's logits."""
        own = self.torch.tensor([list(prompt[self.skip :])])
        with self.torch.inference_mode():
            self.lm(input_ids=own, past_key_values=self.cache, logits_to_keep=1).logits[0, -1].softmax(-1).tolist()
        self.cache.crop(-own.shape[1])

    def reason_first(self, prompt: Sequence[int]) -> list[float]:
        """The same with a reason before the grade: seconds until the grade after each length in `REASONS`."""
        own = list(prompt[self.skip :])
        found: list[float] = []
        start = time.perf_counter()
        with self.torch.inference_mode():
            for written in range(REASONS[-1] + 1):
                ids = self.torch.tensor([own])
                logits = self.lm(input_ids=ids, past_key_values=self.cache, logits_to_keep=1).logits[0, -1]
                own = [int(logits.argmax())]
                if written in REASONS:
                    found.append(time.perf_counter() - start)
        self.cache.crop(-(len(prompt) - self.skip + REASONS[-1]))
        return found


def timed(work: Callable[[], object]) -> float:
    """Seconds."""
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def latency(client: Any, bare: Bare, session: Session, samples: Sequence[dict[str, str]]) -> None:
    """One request at a time, each followed by the bare forward of the same prompt."""
    served, alone, reasoned = [], [], []
    for i, sample in enumerate(samples):
        [prompt] = session.prompts([sample])
        served.append(timed(lambda s=sample: client.post("/score", json={"samples": [s]}).raise_for_status()))
        alone.append(timed(lambda p=prompt: bare.grade(p)))
        if i % 20 == 0:
            reasoned.append(bare.reason_first(prompt))
    drop = len(samples) // 10  # the first ones warm up
    served, alone = served[drop:], alone[drop:]
    ratios = sorted(a / b for a, b in zip(served, alone, strict=True))
    print(f"  grade over HTTP       p50 {ms(served, 0.5)}  p99 {ms(served, 0.99)}")
    print(f"  bare forward          p50 {ms(alone, 0.5)}  p99 {ms(alone, 0.99)}")
    low, high = (ratios[int(q * len(ratios))] for q in (0.25, 0.75))
    print(f"  ratio                 median {statistics.median(ratios):.2f} ({low:.2f}–{high:.2f} quartiles; aim 1.3)")
    for tokens, seconds in zip(REASONS, zip(*reasoned, strict=True), strict=True):
        sooner = statistics.median(seconds) / statistics.median(served)
        print(
            f"  reasoning first       p50 {ms(seconds, 0.5)} for {tokens} tokens; "
            f"the grade comes {sooner:.0f} × sooner (aim 20)"
        )


def routes(client: Any, bare: Bare, session: Session, samples: Sequence[dict[str, str]]) -> None:
    """One grade by each route in turn, each beside the bare forward of the same prompt."""
    task = session.student.task
    levels = [{"label": symbol} for symbol in task.symbols]
    asked: dict[str, Callable[[dict[str, str]], object]] = {
        "/score": lambda sample: {"samples": [sample]},
        "/v1/decisions": lambda sample: {
            "input": [{"role": "user", "content": [{"type": "input_json", "data": sample}]}],
            "questions": [{"type": "score", "instructions": "", "levels": levels}],
        },
        "/v1/systemone": lambda sample: {
            "state": sample,
            "questions": {"grade": {"type": "score", "criteria": list(task.symbols)}},
        },
        "/v2/rerank": lambda sample: {"query": sample["query"], "documents": [f"title: {sample['title']}"]},
    }
    ratios: dict[str, list[float]] = {path: [] for path in asked}
    for i, sample in enumerate(samples):
        [prompt] = session.prompts([sample])
        for path, body in asked.items():
            sent = body(sample)
            taken = timed(lambda p=path, b=sent: client.post(p, json=b).raise_for_status())
            alone = timed(lambda p=prompt: bare.grade(p))
            if i >= len(samples) // 10:  # the first ones warm up
                ratios[path].append(taken / alone)
    for path, found in ratios.items():
        low, high = (sorted(found)[int(q * len(found))] for q in (0.25, 0.75))
        told = f"{statistics.median(found):.2f} × a bare forward ({low:.2f}–{high:.2f} quartiles; aim 1.25)"
        print(f"  {path:<21} {told}")


def beside_vllm(client: Any, folder: Path, samples: Sequence[dict[str, str]], symbols: Sequence[str]) -> None:
    """One grade by our endpoint and by vLLM's own, in turn: the same folder, samples and route, its prompt its own."""
    import httpx

    body = {"model": "tiny", "questions": {"grade": {"type": "score", "criteria": list(symbols)}}}
    found: dict[str, list[float]] = {"ours": [], "vLLM's": []}
    with http_server(folder, folder.parent / "vllm.log") as url, httpx.Client(base_url=url, timeout=60) as vllm:
        for sample in samples:
            asked = body | {"state": sample}
            for name, to, path in (("ours", client, "/v1/systemone"), ("vLLM's", vllm, "systemone")):
                sent = asked if name != "ours" else {key: asked[key] for key in ("state", "questions")}
                found[name].append(timed(lambda t=to, p=path, b=sent: t.post(p, json=b).raise_for_status()))
    drop = len(samples) // 10  # the first ones warm up
    for name, seconds in found.items():
        print(f"  {name:<21} p50 {ms(seconds[drop:], 0.5)}  p99 {ms(seconds[drop:], 0.99)} over /v1/systemone")
    ratios = sorted(b / a for a, b in zip(*(seconds[drop:] for seconds in found.values()), strict=True))
    low, high = (ratios[int(q * len(ratios))] for q in (0.25, 0.75))
    print(f"  vLLM's over ours      {statistics.median(ratios):.2f} × ({low:.2f}–{high:.2f} quartiles)")


def reranking(client: Any, samples: Sequence[dict[str, str]], size: int = 32, rounds: int = 15) -> None:
    """One request with many documents of a query, beside as many requests with one, in turn."""
    ratios = []
    for at in range(rounds):
        query = samples[at]["query"]
        documents = [f"title: {sample['title']}" for sample in samples[at * size : (at + 1) * size]]
        together = timed(lambda q=query, d=documents: _reranked(client, q, d))
        alone = timed(lambda q=query, d=documents: [_reranked(client, q, [one]) for one in d])
        ratios.append(alone / together)
    low, high = (sorted(ratios)[int(q * len(ratios))] for q in (0.25, 0.75))
    told = f"{statistics.median(ratios):.1f} × {size} single calls ({low:.1f}–{high:.1f} quartiles; aim 3)"
    print(f"  /rerank of {size:<10} {told}")


def _reranked(client: Any, query: str, documents: Sequence[str]) -> None:
    client.post("/v2/rerank", json={"query": query, "documents": list(documents)}).raise_for_status()


def ms(seconds: Sequence[float], q: float) -> str:
    """A quantile in milliseconds."""
    return f"{1e3 * sorted(seconds)[min(len(seconds) - 1, int(q * len(seconds)))]:.1f} ms"


async def closed_loop(url: str, samples: Sequence[dict[str, str]], clients: int, seconds: float) -> float:
    """Requests a second when `clients` ask one sample after another."""
    import aiohttp

    done = 0
    stop = time.perf_counter() + seconds
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=clients)) as http:

        async def ask(start: int) -> None:
            nonlocal done
            i = start
            while time.perf_counter() < stop:
                async with http.post("/score", json={"samples": [samples[i % len(samples)]]}) as reply:
                    await reply.read()
                done += reply.status == 200
                i += clients

        await asyncio.gather(*(ask(i) for i in range(clients)))
    return done / seconds


async def open_loop(url: str, samples: Sequence[dict[str, str]], rate: float, seconds: float) -> list[float]:
    """Latencies when requests arrive at random (Poisson) at `rate` a second, whether answers have come or not."""
    import aiohttp

    found: list[float] = []
    draw = random.Random(0)
    async with aiohttp.ClientSession(url, connector=aiohttp.TCPConnector(limit=0)) as http:

        async def ask(sample: dict[str, str]) -> None:
            start = time.perf_counter()
            async with http.post("/score", json={"samples": [sample]}) as reply:
                await reply.read()
            found.append(time.perf_counter() - start)

        asking = []
        due = time.perf_counter()
        end = due + seconds
        while due < end:
            await asyncio.sleep(max(0, due - time.perf_counter()))
            asking.append(asyncio.create_task(ask(draw.choice(samples))))
            due += draw.expovariate(rate)
        await asyncio.gather(*asking)
    return found


def load(url: str, samples: Sequence[dict[str, str]], seconds: float) -> None:
    """Latency at shares of capacity, when requests arrive at random."""
    capacity = statistics.median(asyncio.run(closed_loop(url, samples, 32, seconds)) for _ in range(3))
    print(f"  capacity              {capacity:.0f} requests of one sample a second, 32 clients (median of 3)")
    for share in SHARES:
        found = sorted(asyncio.run(open_loop(url, samples, share * capacity, 3 * seconds)))
        ratio = found[int(0.99 * len(found))] / statistics.median(found)
        print(
            f"  at {100 * share:.0f} % of it         p50 {ms(found, 0.5)}  p99 {ms(found, 0.99)}  "
            f"p99 / p50 {ratio:.1f} (aim 5); {len(found)} requests"
        )


def throughput(client: Any, student: Student, samples: Sequence[dict[str, str]], size: int) -> None:
    """Samples a second, the same batches offline and over HTTP, in turn."""
    ratios, ours, offline = [], [], []
    for at in range(0, len(samples) - size + 1, size):
        batch = samples[at : at + size]
        ours.append(size / timed(lambda b=batch: client.post("/score", json={"samples": b}).raise_for_status()))
        offline.append(size / timed(lambda b=batch: student.score(b)))
        ratios.append(ours[-1] / offline[-1])
    print(
        f"  batches of {size:<10} {statistics.median(ours):.0f} samples a second over HTTP, "
        f"{statistics.median(offline):.0f} offline: {100 * statistics.median(ratios):.0f} % (aim 80)"
    )


def main() -> None:
    """Run all parts."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--hidden", type=int, default=384)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--requests", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=5.0, help="of load")
    parser.add_argument("--only", choices=["routes", "vllm"], help="no load; vllm: beside vLLM's own endpoint")
    asked = parser.parse_args()
    for prompt in ("rulebook", "short"):
        measured(asked, prompt)


def measured(asked: argparse.Namespace, prompt: Prompt) -> None:
    """All parts for a student that reads a rulebook; the routes alone for one that does not."""
    import httpx

    with tempfile.TemporaryDirectory() as folder:
        path, samples = make_student(Path(folder), asked.hidden, asked.layers, prompt)
        command = [sys.executable, "-m", "piar", "serve", "--student", str(path), "--port", "0"]
        server = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        try:
            assert server.stderr is not None
            url = next(found[0] for line in server.stderr if (found := re.search(r"http://\S+", line)))
            student = Student.load(path)
            session = Session(student)
            [first] = session.prompts(samples[:1])
            print(
                f"  student               {asked.layers} layers of {asked.hidden}, {prompt} prompt; "
                f"{len(session.root)} tokens cached of {len(first)}"
            )
            bare = Bare(student, session.root)
            with httpx.Client(base_url=url, timeout=60) as client:
                if asked.only == "vllm":
                    beside_vllm(client, path, samples[: asked.requests], student.task.symbols)
                    return
                routes(client, bare, session, samples[: asked.requests])
                reranking(client, samples)
                if prompt == "rulebook" and not asked.only:
                    latency(client, bare, session, samples[: asked.requests])
                    throughput(client, student, samples, 32)
            if prompt == "rulebook" and not asked.only:
                load(url, samples, asked.seconds)
        finally:
            server.terminate()
            server.wait()


if __name__ == "__main__":
    main()
