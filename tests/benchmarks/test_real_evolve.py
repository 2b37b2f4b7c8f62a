"""The real search's own parts: splits that share no group, answers asked once, an endpoint for another optimizer."""

import json
import urllib.request

import polars as pl

from benchmarks.real.evolving import ROWS, part
from benchmarks.real.serving import Kept, served
from piar.llm.base import Completion, Message, Request
from store.task import Grade, Task

TASK = Task(
    name="t", group_by="query", fields=("query",), grades=(Grade(symbol="0", value=0), Grade(symbol="1", value=1))
)


class Counting:
    model, window = "counting", 4096

    def __init__(self):
        self.asked = []

    def tokens(self, text):
        return len(text)

    def generate(self, requests, on_completion=None):
        self.asked += requests
        done = [Completion(r.key, self.model, "1", {"0": 0.2, "1": 0.8} if r.grades else None) for r in requests]
        for completion in done if on_completion else ():
            on_completion(completion)
        return done


def test_no_group_stands_on_two_sides_and_test_stays_apart():
    frame = part("chorus", 0)
    sides = frame.group_by("query").agg(pl.col("split").n_unique())["split"]
    assert sides.max() == 1
    assert frame.group_by("query").len()["len"].max() == ROWS
    assert set(frame["split"]) == {"train", "dev", "holdout", "test"}


def test_answers_are_asked_once_and_counted_each_time(tmp_path):
    asked = [Request(f"k{i}", (Message("user", "x"),), TASK.symbols) for i in range(3)]
    first, second = Counting(), Counting()
    done = Kept(first, tmp_path / "a.jsonl", "m").generate(asked)
    again = Kept(second, tmp_path / "a.jsonl", "m")
    assert again.generate(asked) == done
    assert (len(first.asked), second.asked, again.calls) == (3, [], 3)


def test_another_optimizer_asks_the_same_teacher_under_its_own_text(tmp_path):
    inner = Counting()
    client = Kept(inner, tmp_path / "a.jsonl", "m")
    with served(client, TASK, 50) as url:
        for model, system in (("teacher", "Be strict."), ("other", "Improve it.")):
            chat = [{"role": "system", "content": system}, {"role": "user", "content": '{"query": "mouse"}'}]
            body = json.dumps({"model": model, "messages": chat, "temperature": 1.0}).encode()
            with urllib.request.urlopen(f"{url}/v1/chat/completions", body) as reply:
                assert json.load(reply)["choices"][0]["message"]["content"] == "1"
    judging, writing = inner.asked
    assert judging.messages[0].content.startswith("Be strict.")
    assert "# Grades" in judging.messages[0].content
    assert (judging.grades, writing.grades, client.calls) == (("0", "1"), (), 1)
