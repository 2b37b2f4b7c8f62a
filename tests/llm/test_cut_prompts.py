"""A server that cuts long prompts in silence is found out by the tokens that it says it read."""

import pytest

from piar.connect import connect
from piar.llm.base import Message, Request
from piar.llm.settings import ModelSettings
from tests.faulty_server import GRADES, FaultyServer


class Cutting(FaultyServer):
    """Says of every prompt how many tokens it read."""

    def __init__(self, read):
        super().__init__(latency=0)
        self.read = read

    def answer(self, body):
        size = sum(len(message["content"]) for message in body["messages"])
        return super().answer(body) | {"usage": {"prompt_tokens": self.read(size), "completion_tokens": 5}}


@pytest.mark.parametrize(
    ("read", "cut"),
    [
        (lambda size: min(2048, size // 4), True),
        (lambda size: size // 4 if size < 9000 else 2050 + size % 2, True),
        (lambda size: {9506: 2048, 15506: 2049}.get(size, size // 4), False),
        (lambda size: min(100, size // 4), True),
        (lambda size: size // 4, False),
        (lambda size: size // 7, False),
        (lambda size: 0, False),
    ],
)
def test_a_prompt_that_was_cut_is_told_with_its_mend(read, cut):
    notices = []
    with Cutting(read).running() as server:
        client = connect(ModelSettings(model="openai:m", base_url=server.url, concurrency=1), notices.append)
        client.generate([
            Request(f"k{n}", (Message("system", "Judge."), Message("user", "word " * n)), GRADES)
            for n in (100, 1900, 2200, 2500, 2800, 3100)
        ])  # fmt: skip
    told = [notice for notice in notices if "in silence" in notice]
    assert len(told) == cut
    assert all("num_ctx" in notice for notice in told)
