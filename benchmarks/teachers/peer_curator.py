"""curator asking the mock, run by its own environment's Python: `python peer_curator.py URL CHATS.json`.

Its rate limits are lifted. Its token counter fetches a vocabulary from the network; here it counts four
characters as a token instead, which is cheaper, so in its favour.
"""

import json
import os
import sys
import time
from pathlib import Path

os.environ |= {
    "TELEMETRY_ENABLED": "0",
    "CURATOR_VIEWER": "0",
    "OPENAI_API_KEY": "none",
    "CURATOR_DISABLE_RICH_DISPLAY": "1",
}

import tiktoken


class FourCharacters:
    """Stands for a tiktoken encoding."""

    def encode(self, text, **options):
        return range(len(text) // 4)


tiktoken.encoding_for_model = tiktoken.get_encoding = lambda name: FourCharacters()

from bespokelabs import curator  # noqa: E402


class Judge(curator.LLM):
    """Asks one chat as it is."""

    def prompt(self, row):
        return row["chat"]

    def parse(self, row, response):
        return {"answer": response}


def main():
    url, chats = sys.argv[1], json.loads(Path(sys.argv[2]).read_text())
    judge = Judge(
        model_name="mock",
        backend="openai",
        backend_params={
            "base_url": url,
            "max_requests_per_minute": 10_000_000,
            "max_tokens_per_minute": 1_000_000_000,
            "max_concurrent_requests": 64,
            "max_retries": 0,
        },
    )
    started = time.perf_counter()
    answers = judge([{"chat": chat} for chat in chats])
    seconds = time.perf_counter() - started
    rows = answers.dataset if hasattr(answers, "dataset") else answers
    print(json.dumps({"seconds": seconds, "done": len(rows)}))


if __name__ == "__main__":
    main()
