"""Money, held against a server that keeps its own ledger, whatever it answers and whatever usage it tells."""

import json
import random
from collections import Counter

import pytest

from benchmarks.judging import judge
from piar.cli import main
from piar.connect import connect
from piar.llm.base import Message, Request
from piar.llm.cost import Budget, Price, most_usage, read_usage
from piar.llm.settings import ModelSettings
from store.db import Store
from store.errors import PiarError
from store.journal import Journal
from store.types import Usage
from tests.faulty_server import FaultyServer, encode, send
from tests.judging.test_faults import INSTRUCTION, TASK, samples
from tests.small_project import small_project

PRICE = Price(input=1.0, output=5.0)
TURNED_AWAY = (429, 500, 503, 529, 409)
SHAPES = ("good", "good", "good", "garbage", "null", "parts", "no choices", "no json", "error inside", "lost", "late")
USAGES = ("whole", "missing", "partial", "text", "negative", "absurd", "thinking")


class Ledger(FaultyServer):
    """Bills every answer that it makes, delivered or not, by tokens that keep to the limits of the request.

    Args:
        seed: decides shapes, usages and their shares.
        honest: every reply arrives and tells its usage whole.
    """

    def __init__(self, seed, *, honest=False):
        super().__init__(seed=seed, latency=0.001)
        self.honest, self.calls, self.usd, self.tokens, self.good = honest, 0, 0.0, 0, Counter()
        draw = random.Random(seed)
        self.away, self.shapes = draw.choice((0, 0.2, 0.5)), draw.sample(SHAPES, 4) + ["good"] * draw.choice((0, 4))
        self.usages = ["whole"] if honest else draw.sample(USAGES, 3)
        if honest:
            self.shapes = ["good" if shape in ("lost", "late", "error inside") else shape for shape in self.shapes]

    async def _ok(self, writer, body):
        draw = random.Random(f"{self.seed}:{self._ordinal}:ledger")
        if draw.random() < self.away:
            await send(writer, draw.choice(TURNED_AWAY), {"error": {"message": "later"}}, **{"Retry-After": "0.01"})
            return
        prompt = draw.randint(20, len(json.dumps(body["messages"])) // 2)
        answer = draw.randint(1, body["max_tokens"])
        self.calls, self.tokens = self.calls + 1, self.tokens + prompt + answer
        self.usd += PRICE.cost(Usage(prompt, 0, answer))
        usage = self._usage_as(draw.choice(self.usages), prompt, answer)
        await self._shaped(writer, body, draw.choice(self.shapes), usage)

    def _usage_as(self, how, prompt, answer):
        told = {"prompt_tokens": prompt, "completion_tokens": answer, "total_tokens": prompt + answer}
        return {
            "whole": told, "missing": None, "partial": {"prompt_tokens": prompt},
            "text": {name: str(float(n)) for name, n in told.items()},
            "negative": {"prompt_tokens": -prompt, "completion_tokens": -1},
            "absurd": {"prompt_tokens": 10**30, "completion_tokens": True},
            "thinking": {**told, "completion_tokens": 1},
        }[how]  # fmt: skip

    async def _shaped(self, writer, body, shape, usage):
        reply = self.answer(body) | {"usage": usage}
        choice = reply["choices"][0]
        if shape == "garbage":
            choice["message"]["content"] = "It is rather good, I think."
        elif shape == "null":
            choice["message"]["content"] = None
        elif shape == "parts":
            choice["message"]["content"] = [{"type": "text", "text": choice["message"]["content"]}]
        elif shape == "no choices":
            reply["choices"] = []
        elif shape == "no json":
            reply = "{" + json.dumps(reply)
        elif shape == "error inside":
            choice |= {"finish_reason": "error", "error": {"code": 502, "message": "upstream"}}
        if shape in ("lost", "late"):
            await self._broken_off(writer, reply, shape)
        self.good[body["messages"][1]["content"]] += shape in ("good", "parts")
        await send(writer, 200, reply)

    async def _broken_off(self, writer, reply, shape):
        if shape == "late":
            await self._stall(writer, reply)
        whole = encode(200, reply)
        writer.write(whole[: len(whole) // 2])
        await writer.drain()
        raise ConnectionResetError


def run(folder, server, count, budget):
    patience = 60 if server.honest else 0.15  # where every reply arrives, a busy machine is no lost one
    model = ModelSettings(
        model="openai:m", base_url=server.url, timeout=patience, attempts=4, concurrency=8, price=PRICE, max_tokens=60
    )
    store = Store.open(folder / "piar.duckdb", TASK) if (folder / "piar.duckdb").exists() else None
    store, journal = store or Store.create(folder / "piar.duckdb", TASK), Journal(folder / "journal")
    try:
        return judge(store, connect(model, lambda _: None), INSTRUCTION, samples(count), journal=journal, model=model,
                     budget=budget, run_id=f"{server.calls}"), store  # fmt: skip
    except PiarError as error:
        return error, store
    finally:
        journal.close()


@pytest.fixture(autouse=True)
def _quick(monkeypatch):
    monkeypatch.setattr("piar.llm.openai.pacing.PAUSE_SECONDS", 0.005)
    monkeypatch.setattr("piar.llm.openai.asking.BACKOFF_SECONDS", 0.005)


def check_caps(folder, seed):
    draw = random.Random(f"caps {seed}")
    caps = [draw.choice((None, 5, 17)), draw.choice((None, 0.004)), draw.choice((None, 3000))]
    budget = Budget(*caps)
    with Ledger(seed).running() as server:
        report, store = run(folder, server, 24, budget)
        for spent, cap in zip((server.calls, server.usd, server.tokens), caps, strict=True):
            assert cap is None or spent <= cap + 1e-9
        if isinstance(report, PiarError):
            return
        assert report.labelled + report.failed.total() == 24
        assert server.usd <= report.cost_usd + 1e-9
        failures = store.frame("select error from completions where failure is not null")["error"].to_list()
        assert all(failures)
        graded = {
            row[0] for row in store.frame("select sample_id::varchar from verdict where grade is not null").rows()
        }
        before = Counter(server.good)
        again, _ = run(folder, server, 24, Budget(max_calls=40))
        if not isinstance(again, PiarError):
            assert again.cached == len(graded)
        paid_again = {text for text, times in server.good.items() if times > before[text] > 0}
        texts = {sample.id: sample.fields["q"] for sample in samples(24)}
        assert not any(texts[sample] in " ".join(paid_again).split('"') for sample in graded)


@pytest.mark.parametrize("seed", range(5))
def test_no_cap_is_passed_by_the_servers_own_ledger(tmp_path, seed):
    check_caps(tmp_path, seed)


@pytest.mark.integration
@pytest.mark.parametrize("seed", range(100, 300))
def test_no_cap_is_passed_by_many_more_ledgers(tmp_path, seed):
    check_caps(tmp_path, seed)


@pytest.mark.parametrize("seed", range(3))
def test_the_receipt_is_the_ledgers_where_usage_is_whole(tmp_path, seed):
    with Ledger(seed, honest=True).running() as server:
        _, store = run(tmp_path, server, 20, Budget())
    spent = store.frame("select sum(cost_usd), sum(tokens_in + tokens_out), sum(attempts) from completions").row(0)
    assert spent == (pytest.approx(server.usd), server.tokens, server.calls)


def test_a_row_that_cannot_be_read_is_paid_for_twice_at_most_and_nothing_readable_stops_the_run(tmp_path):
    server = Ledger(0, honest=True)
    server.shapes, server.away = ["no choices"], 0
    with server.running():
        error, store = run(tmp_path, server, 500, Budget())
    assert "none of 12 answers could be read" in error.message
    assert "no choices" in error.message
    assert "max_tokens" in error.fix
    assert server.calls < 60
    assert store.frame("select max(attempts) from completions").item() == 2


def test_an_endpoint_that_thinks_beyond_its_limit_passes_a_cap_by_no_more_than_its_first_answer(tmp_path):
    class Thinker(Ledger):
        async def _ok(self, writer, body):
            self.usd += PRICE.cost(Usage(100, 0, 2000))
            self.calls += 1
            usage = {"prompt_tokens": 100, "completion_tokens": 10, "total_tokens": 2100}
            await send(writer, 200, self.answer(body) | {"usage": usage})

    with Thinker(0).running() as server:
        report, _ = run(tmp_path, server, 100, Budget(max_usd=0.06))
    assert 0.03 < server.usd <= 0.06
    assert report.cost_usd == pytest.approx(server.usd)


MOST = Usage(1000, 0, 400)


@pytest.mark.parametrize(
    ("usage", "read"),
    [
        ({"prompt_tokens": 300, "completion_tokens": 40}, (300, 0, 40)),
        ({"prompt_tokens": 300, "completion_tokens": 40, "total_tokens": 2340}, (300, 0, 2040)),
        ({"prompt_tokens": 300, "completion_tokens": 40,
          "completion_tokens_details": {"reasoning_tokens": 900}}, (300, 0, 940)),
        ({"prompt_tokens": 300, "completion_tokens": 940,
          "completion_tokens_details": {"reasoning_tokens": 900}}, (300, 0, 940)),
        ({"input_tokens": "300", "output_tokens": 40.0}, (300, 0, 40)),
        ({"prompt_tokens": 300, "completion_tokens": 4,
          "prompt_tokens_details": {"cached_tokens": 999}}, (300, 300, 4)),
        ({"input_tokens": 20, "output_tokens": 40, "cache_read_input_tokens": 500,
          "cache_creation_input_tokens": 80}, (600, 500, 40)),
        ({"prompt_tokens": 20, "completion_tokens": 40, "total_tokens": 560,
          "cache_read_input_tokens": 500}, (520, 500, 40)),
        ({"prompt_tokens": 520, "completion_tokens": 40, "total_tokens": 560,
          "cache_read_input_tokens": 500}, (520, 500, 40)),
        ({"prompt_tokens": 300, "completion_tokens": 40, "cached_tokens": 256}, (300, 256, 40)),
        (None, (1000, 0, 400)),
        ({"prompt_tokens": 0, "completion_tokens": 7}, (1000, 0, 7)),
        ({"prompt_tokens": True, "completion_tokens": -1}, (1000, 0, 400)),
        ({"prompt_tokens": 10**30, "completion_tokens": float("nan")}, (1000, 0, 400)),
        ("many", (1000, 0, 400)),
    ],
)  # fmt: skip
def test_usage_is_read_whole_or_taken_at_its_most(usage, read):
    found, whole = read_usage({"usage": usage}, MOST)
    assert (found.prompt, found.cached, found.completion) == read
    assert whole == (1000 not in read)


@pytest.mark.parametrize(("content", "total", "answer", "whole"), [
    ("2", 300, MOST.completion, False), ("2", 340, 40, True), ("", 300, 0, True), (None, 300, 0, True),
])  # fmt: skip
def test_a_text_of_no_tokens_is_charged_at_its_most(content, total, answer, whole):
    usage = {"prompt_tokens": 300, "completion_tokens": 0, "total_tokens": total}
    reply = {"choices": [{"message": {"content": content}}], "usage": usage}
    found, complete = read_usage(reply, MOST)
    assert (found.completion, complete) == (answer, whole)


def test_a_cap_in_dollars_without_a_price_asks_nothing(tmp_path, capsys):
    small_project(tmp_path / "p")
    with FaultyServer().running() as server:
        verb = ["label", "--where", "true", "-C", str(tmp_path / "p"), "--set", "teacher.model=openai:m"]
        verb += ["--set", f"teacher.base_url={server.url}"]
        assert main([*verb, "--max-usd", "5"]) == 2
        assert "price = {" in capsys.readouterr().err
        assert main([*verb, "--dry-run"]) == 0
        assert "unknown: no price is set" in capsys.readouterr().out
        assert not server.bodies
        assert main([*verb, "--max-usd", "5", "--set", "teacher.price={input=0,output=0}"]) == 0
        assert server.bodies


@pytest.mark.parametrize(
    "verb", ["score --split test", "check --split test --against {id}", "label p.parquet -o o.parquet"]
)
def test_every_verb_that_asks_fails_when_nothing_can_be_read_and_says_what_came(tmp_path, capsys, monkeypatch, verb):
    project = small_project(tmp_path / "p")
    project.sql("select query, title from samples").write_parquet(tmp_path / "p.parquet")
    monkeypatch.chdir(tmp_path)
    words = verb.format(id=project.instruction().id).split()
    with FaultyServer(malformed=9).running() as server:
        asked = ["-C", "p", "--set", "teacher.model=openai:m", "--set", f"teacher.base_url={server.url}"]
        assert main([*words, *asked]) == 1
    said = " ".join("".join(capsys.readouterr()).split())
    assert "I would say it is rather relevant." in said
    assert "$0.0000" not in said


def test_a_run_is_free_only_where_a_price_says_so(tmp_path, capsys):
    small_project(tmp_path / "p")
    with FaultyServer().running() as server:
        asked = ["-C", str(tmp_path / "p"), "--set", "teacher.model=openai:m"]
        assert main(["label", "--where", "true", *asked, "--set", f"teacher.base_url={server.url}"]) == 0
    capsys.readouterr()
    assert main(["show", "run", "label", *asked]) == 0
    assert "cost unknown, no price is set" in capsys.readouterr().out
    assert main(["show", "run", "label", *asked, "--set", "teacher.price={input=0,output=0}"]) == 0
    assert "$0.0000" in capsys.readouterr().out


def test_a_run_in_which_nothing_can_be_read_fails_and_shows_what_came(tmp_path, capsys):
    small_project(tmp_path / "p")
    with FaultyServer(malformed=9).running() as server:
        verb = ["label", "--where", "true", "-C", str(tmp_path / "p"), "--set", "teacher.model=openai:m"]
        assert main([*verb, "--set", f"teacher.base_url={server.url}"]) == 1
    printed = " ".join(capsys.readouterr().out.split())
    assert "it said 'I would say it is rather relevant.'" in printed
    assert "10 calls" in printed


def test_the_ceiling_counts_what_is_really_sent():
    request = Request("k", (Message("user", "ä" * 10),), max_tokens=100)
    plain = most_usage(request)
    assert plain.prompt >= 20
    assert plain.completion == 100
    assert most_usage(request, {"max_completion_tokens": 500, "n": 3}).completion == 1500
    assert most_usage(request, {"max_tokens": 4000}).completion == 4000
    assert most_usage(request, {"stop": ["x" * 300]}).prompt >= plain.prompt + 300
