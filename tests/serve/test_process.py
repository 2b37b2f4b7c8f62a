"""`piar serve` as a process of its own: SIGTERM under load, a thousand connections, a browser, vLLM in its place."""

import asyncio
import json
import math
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from piar.serve import _listen
from tests.serve.test_serve import SAMPLES, TASK, student
from tests.vllm_env import http_server

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    return student(tmp_path_factory.mktemp("student"))


@contextmanager
def serving(judge, log, *options):
    folder = judge if isinstance(judge, Path) else judge.policy.lm.config._name_or_path
    command = [sys.executable, "-m", "piar", "serve", "--student", str(folder), "--port", "0", *options]
    with log.open("w") as output:
        process = subprocess.Popen(command, stderr=output, stdout=output)
    try:
        while not (found := re.search(r"http://\S+", log.read_text())):
            assert process.poll() is None, log.read_text()
            time.sleep(0.1)
        yield process, found[0]
    finally:
        process.kill()
        process.wait()


def said(log):
    """What a log says, its lines joined: where they break hangs on the length of a path."""
    return " ".join(log.read_text().split())


def test_sighup_reads_the_folder_again(judge, tmp_path):
    folder = shutil.copytree(judge.policy.lm.config._name_or_path, tmp_path / "student")
    log = tmp_path / "log"
    with serving(folder, log) as (process, url):
        before = httpx.post(f"{url}/score", json={"samples": SAMPLES}).json()
        (folder / "model.safetensors").write_bytes(b"half")
        process.send_signal(signal.SIGHUP)
        while "Not reloaded" not in said(log):
            time.sleep(0.1)
        shutil.copytree(judge.policy.lm.config._name_or_path, folder, dirs_exist_ok=True)
        process.send_signal(signal.SIGHUP)
        while "answers from now on" not in said(log):
            time.sleep(0.1)
        assert httpx.post(f"{url}/score", json={"samples": SAMPLES}).json() == before


def test_sigterm_under_load_finishes_what_is_under_way_and_exits_with_0(judge, tmp_path):
    offline = {json.dumps(s): one.probs for s, one in zip(SAMPLES, judge.score(SAMPLES), strict=True)}
    answered, refused, stop = [], [], threading.Event()

    def ask(url, samples):
        with httpx.Client(base_url=url, timeout=60) as client:
            while not stop.is_set():
                try:
                    reply = client.post("/score", json={"samples": samples})
                except httpx.TransportError:  # it no longer listens
                    refused.append(stop.is_set() or process.poll() is not None or time.monotonic() > told)
                    return
                assert reply.status_code == 200
                answered.append((samples, reply.json()["results"]))

    told = float("inf")
    with serving(judge, tmp_path / "log") as (process, url), ThreadPoolExecutor(9) as pool:
        asking = [pool.submit(ask, url, SAMPLES[i : i + 4]) for i in range(8)]
        stream = pool.submit(httpx.post, f"{url}/explain", json=SAMPLES[0], timeout=60)
        while len(answered) < 50:
            time.sleep(0.05)
        told = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        stop.set()
        for one in asking:
            one.result()
        assert stream.result().status_code == 200
    assert answered
    assert all(refused)
    for samples, results in answered:
        for sample, result in zip(samples, results, strict=True):
            assert list(result["probs"].values()) == pytest.approx(offline[json.dumps(sample)], abs=1e-5)


def test_small_answers_leave_at_once():
    with _listen("127.0.0.1", 0) as listening:
        listening.listen()
        with socket.create_connection(listening.getsockname()):
            accepted, _ = listening.accept()
            with accepted:
                assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)


def test_a_second_server_on_the_same_port_says_so(judge, tmp_path):
    with serving(judge, tmp_path / "log") as (_, url):
        port = url.rpartition(":")[2]
        folder = judge.policy.lm.config._name_or_path
        command = [sys.executable, "-m", "piar", "serve", "--student", folder, "--port", port]
        done = subprocess.run(command, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    assert f"Cannot listen on 127.0.0.1:{port}" in done.stderr


BODY = json.dumps({"samples": SAMPLES[:2]}).encode()
HEAD = (
    f"POST /score HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: {len(BODY)}\r\n\r\n"
)
ASK = HEAD.encode() + BODY


@asynccontextmanager
async def connected(host, port):
    reader, writer = await asyncio.open_connection(host, port)
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


async def half(host, port, hold):
    async with connected(host, port) as (_, writer):
        writer.write(ASK[:-60])
        await hold.wait()


async def rubbish(host, port, i):
    async with connected(host, port) as (reader, writer):
        writer.write(bytes((i * j) % 256 for j in range(1, 400)) + b"\r\n\r\n")
        await reader.read(1000)


async def ask(host, port):
    async with connected(host, port) as (reader, writer):
        writer.write(ASK)
        status = await reader.readline()
        length = 0
        while (line := await reader.readline()).strip():
            if line.lower().startswith(b"content-length"):
                length = int(line.split(b":")[1])
        return status, await reader.readexactly(length)


async def everyone(host, port):
    hold = asyncio.Event()
    others = [asyncio.create_task(half(host, port, hold)) for _ in range(300)]
    await asyncio.sleep(0.5)
    others += [asyncio.create_task(rubbish(host, port, i)) for i in range(200)]
    answers = await asyncio.gather(*(ask(host, port) for _ in range(500)), return_exceptions=True)
    hold.set()
    await asyncio.gather(*others, return_exceptions=True)
    return answers


def test_a_thousand_connections_of_all_kinds(judge, tmp_path):
    """300 that send half a request and wait, 200 of rubbish, 500 that ask: every asker gets its answer."""
    wanted = [s.probs for s in judge.score(SAMPLES[:2])]

    with serving(judge, tmp_path / "log", "--set", "serve.body_seconds=60") as (process, url):
        host, port = url.removeprefix("http://").split(":")
        httpx.post(f"{url}/score", json={"samples": SAMPLES[:2]})
        before = psutil.Process(process.pid).memory_info().rss
        for _ in range(2):
            answers = asyncio.run(everyone(host, int(port)))
            assert [a for a in answers if not isinstance(a, tuple)] == []
            for status, found in answers:
                assert b"200" in status
                for one, probs in zip(json.loads(found)["results"], wanted, strict=True):
                    assert list(one["probs"].values()) == pytest.approx(probs, abs=1e-5)
        grown = psutil.Process(process.pid).memory_info().rss - before
        assert grown < 200 * 2**20
        assert httpx.get(f"{url}/healthz").json()["waiting"] == 0
    assert "Traceback" not in (tmp_path / "log").read_text()


def test_the_page_in_a_browser_shows_text_as_text(judge, tmp_path):
    from playwright.sync_api import sync_playwright

    with serving(judge, tmp_path / "log") as (_, url), sync_playwright() as play:
        browser = play.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        page = browser.new_page()
        problems = []
        page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.goto(url)
        for field in TASK.fields:
            page.fill(f"textarea[name={field}]", "<img src=x onerror=alert(1)> red lamp")
        page.keyboard.press("Control+Enter")
        page.wait_for_selector("#probs meter")
        page.wait_for_selector("#go:not([disabled])")
        assert page.inner_text("#grade")[0] in TASK.symbols
        assert page.locator("#probs tr").count() == len(TASK.grades)
        assert page.locator("img").count() == 0
        page.screenshot(path=tmp_path / "page.png", full_page=True)
        page.route("**/explain", lambda route: route.fulfill(content_type="text/event-stream", body=_disagreeing()))
        page.click("#go")
        page.wait_for_function("document.getElementById('doubt').textContent.includes('comes to 2')")
        page.screenshot(path=tmp_path / "doubt.png", full_page=True)
        page.unroute("**/explain")
        page.click("#go")
        page.wait_for_function("document.getElementById('doubt').textContent === ''")
        browser.close()
    assert problems == []


def _disagreeing():
    """An answer whose reason comes to another grade, as the server streams it."""
    opinion = {"grade": "1", "probs": {"0": 0.2, "1": 0.5, "2": 0.3}, "expected": 1.1}
    text = "1\nevidence:\nrules: R01\nverdict: 2"
    told = {"text": text, "trace": {"grade": "1", "verdict": "2"}, "reason": None, "agrees": False}
    return "".join(
        f"event: {name}\ndata: {json.dumps(data)}\n\n" for name, data in [("grade", opinion), ("trace", told)]
    )


@pytest.mark.timeout(1200)
def test_vllm_serves_the_checkpoint_unchanged_with_the_same_first_token(judge, tmp_path):
    """The request of the README: one token, its choices the grades, log-probabilities of all of them."""
    from trainers.scoring import messages

    ids = judge.grade_ids
    folder, mode = judge.policy.lm.config._name_or_path, ("--logprobs-mode", "processed_logprobs")
    with http_server(folder, tmp_path / "server.log", *mode) as url:
        for sample, ours in zip(SAMPLES[:5], judge.score(SAMPLES[:5]), strict=True):
            body = {"model": "tiny", "messages": messages(judge.card, sample), "max_tokens": 1, "temperature": 1,
                    "logprobs": True, "top_logprobs": len(ids), "allowed_token_ids": ids}  # fmt: skip
            reply = httpx.post(f"{url}/chat/completions", json=body, timeout=120).json()
            [first] = reply["choices"][0]["logprobs"]["content"]
            found = {entry["token"]: math.exp(entry["logprob"]) for entry in first["top_logprobs"]}
            theirs = [found[symbol] for symbol in TASK.symbols]
            assert theirs == pytest.approx(ours.probs, abs=2e-3)
