"""A real HTTP server on 127.0.0.1 that speaks chat completions and misbehaves on a seeded schedule.

Each sample has one right grade (`right_grade`), so a test can tell an answer that belongs to another
request. The ledger counts what a provider would bill: whole answers that were sent to the end.
"""

import asyncio
import hashlib
import json
import random
import threading
from collections import Counter
from contextlib import contextmanager

GRADES = ("0", "1", "2")
FAULTS = (
    "429", "429_retry_after", "500", "reset", "stall", "truncated_json", "empty_choices", "other_model", "slow_loris",
    "error_with_200", "not_json",
)  # fmt: skip


def right_grade(sample_text):
    return GRADES[hashlib.sha256(sample_text.encode()).digest()[0] % len(GRADES)]


def trace_text(grade):
    return f'{grade}\nevidence: "x"\nrules: R01\nverdict: {grade}'


class FaultyServer:
    """Args:
    faults: share of requests that meet a fault, drawn evenly from `kinds`.
    malformed: share of samples whose first answer holds no grade; a third of those never gets one.
    latency: mean seconds of an answer, exponential, so that answers come out of order.
    reject: parameter names answered with a 400.
    key: when set, any other bearer token is answered with a 401 that echoes it.
    """

    def __init__(self, *, seed=0, faults=0.0, kinds=FAULTS, malformed=0.0, latency=0.002, reject=(), key=None,
                 logprobs=True, schema=True):  # fmt: skip
        self.seed, self.faults, self.kinds, self.malformed = seed, faults, kinds, malformed
        self.latency, self.reject, self.key, self.logprobs, self.schema = latency, reject, key, logprobs, schema
        self.seen = Counter()  # what each request met
        self.billed = Counter()  # sample text -> whole, good answers sent
        self.bodies, self.open, self.most_open, self.dead = [], 0, 0, False
        self._ordinal = 0

    @property
    def url(self):
        return f"http://127.0.0.1:{self.port}/v1"

    # -- HTTP ---------------------------------------------------------------------------------

    async def _connection(self, reader, writer):
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
                headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:] if ": " in line)
                body = json.loads(await reader.readexactly(int(headers["content-length"])))
                if self.dead:
                    raise ConnectionResetError
                self.open += 1
                self.most_open = max(self.most_open, self.open)
                try:
                    await self._serve(writer, headers, body)
                finally:
                    self.open -= 1
        except (asyncio.IncompleteReadError, asyncio.CancelledError, ConnectionError):
            pass
        finally:
            writer.transport.abort()

    async def _serve(self, writer, headers, body):
        self._ordinal += 1
        draw = random.Random(f"{self.seed}:{self._ordinal}")
        self.bodies.append(body)
        if self.key and headers.get("authorization") != f"bearer {self.key}".lower():
            self.seen["401"] += 1
            words = f"Incorrect API key provided: {headers.get('authorization')}"
            await send(writer, 401, {"error": {"message": words}})
            return
        refused = next((name for name in self.reject if name in body), None)
        if refused:
            self.seen["400"] += 1
            await send(writer, 400, {"error": {"message": f"Unsupported parameter: '{refused}'."}})
            return
        await asyncio.sleep(draw.expovariate(1 / self.latency) if self.latency else 0)
        fault = draw.choice(self.kinds) if draw.random() < self.faults else "ok"
        self.seen[fault] += 1
        await getattr(self, f"_{fault}")(writer, body)

    # -- what can happen ----------------------------------------------------------------------

    async def _ok(self, writer, body):
        await send(writer, 200, self.answer(body))
        self.billed[body["messages"][1]["content"]] += 1

    async def _429(self, writer, body):
        await send(writer, 429, {"error": {"message": "slow down"}})

    async def _429_retry_after(self, writer, body):
        await send(writer, 429, {"error": {"message": "slow down"}}, **{"Retry-After": "0.05"})

    async def _500(self, writer, body):
        await send(writer, 500, {"error": {"message": "internal"}})

    async def _reset(self, writer, body):
        whole = encode(200, self.answer(body))
        writer.write(whole[: len(whole) // 2])
        await writer.drain()
        raise ConnectionResetError

    async def _stall(self, writer, body):
        await asyncio.sleep(3)
        raise ConnectionResetError

    async def _slow_loris(self, writer, body):
        for byte in encode(200, self.answer(body))[:60]:
            if writer.is_closing():
                break
            writer.write(bytes([byte]))
            await asyncio.sleep(0.05)
        raise ConnectionResetError

    async def _truncated_json(self, writer, body):
        await send(writer, 200, json.dumps(self.answer(body))[:-40])

    async def _not_json(self, writer, body):
        await send(writer, 200, "<html>gateway</html>")

    async def _empty_choices(self, writer, body):
        await send(writer, 200, self.answer(body) | {"choices": []})

    async def _error_with_200(self, writer, body):
        await send(writer, 200, {"error": {"message": "upstream failed", "code": 502}})

    async def _other_model(self, writer, body):
        await send(writer, 200, self.answer(body) | {"model": "someone-else"})
        self.billed[body["messages"][1]["content"]] += 1

    # -- answers --------------------------------------------------------------------------------

    def answer(self, body):
        """The reply's JSON: the right grade, malformed for a seeded share of samples."""
        sample = body["messages"][1]["content"]
        text = self._text(sample, asked_again=len(body["messages"]) > 2, structured="response_format" in body)
        choice = {"index": 0, "message": {"role": "assistant", "content": text}, "finish_reason": "stop"}
        if body.get("logprobs") and self.logprobs:
            choice["logprobs"] = {"content": logprobs(text, body["top_logprobs"])}
        usage = {"prompt_tokens": 50, "completion_tokens": 10, "prompt_tokens_details": {"cached_tokens": 40}}
        return {"id": "c", "object": "chat.completion", "created": 1, "model": body["model"], "choices": [choice],
                "usage": usage | {"total_tokens": 60}}  # fmt: skip

    def _text(self, sample, *, asked_again, structured):
        luck = random.Random(f"{self.seed}:{sample}").random()
        if luck < self.malformed and (not asked_again or luck < self.malformed / 3):
            return "I would say it is rather relevant."
        grade = right_grade(sample)
        if structured and self.schema:
            return json.dumps({"grade": grade, "evidence": ["x"], "rules": ["R01"], "verdict": grade})
        return trace_text(grade)

    def die(self):
        """Reset every connection and every new one, until `revive`."""
        self.dead = True

    def revive(self):
        """Answer again."""
        self.dead = False

    # -- life ---------------------------------------------------------------------------------

    @contextmanager
    def running(self):
        """Serve in a thread until the block ends."""
        ready = threading.Event()

        async def serve():
            self._loop, self._stop = asyncio.get_running_loop(), asyncio.Event()
            server = await asyncio.start_server(self._connection, "127.0.0.1", 0, limit=1 << 24)
            self.port = server.sockets[0].getsockname()[1]
            ready.set()
            await self._stop.wait()
            server.close()

        thread = threading.Thread(target=asyncio.run, args=[serve()])
        thread.start()
        ready.wait(10)
        try:
            yield self
        finally:
            self._loop.call_soon_threadsafe(self._stop.set)
            thread.join(10)


def encode(status, payload, **headers):
    body = (payload if isinstance(payload, str) else json.dumps(payload)).encode()
    lines = [f"HTTP/1.1 {status} X", "Content-Type: application/json", f"Content-Length: {len(body)}"]
    lines += [f"{name}: {value}" for name, value in headers.items()]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def send(writer, status, payload, **headers):
    writer.write(encode(status, payload, **headers))
    await writer.drain()


def logprobs(text, top):
    """Tokens of one character; the grade's place has 70 % on the grade, split over two spellings."""
    place = text.find('"grade": "') + len('"grade": "') if text.startswith("{") else 0
    items = []
    for i, character in enumerate(text):
        alternatives = {character: -0.01}
        if i == place and character in GRADES:
            others = [g for g in GRADES if g != character]
            alternatives = {character: -0.51082562, f" {character}": -2.30258509}  # 0.6 + 0.1
            alternatives |= dict.fromkeys(others, -1.89711998)  # 0.15 each
        ranked = [{"token": t, "logprob": p} for t, p in alternatives.items()][:top]
        items.append({**ranked[0], "top_logprobs": ranked})
    return items
