"""A process that pushes a batch and says when it begins, so that a test can kill it at any moment."""

from multiprocessing.connection import Connection
from pathlib import Path

from piar.review import server
from piar.review.batch import load
from piar.review.push_pull import push
from store.db import Store
from store.types import Instruction
from tests.review_world import TASK


def push_until_killed(folder: Path, url: str, token: str, began: Connection) -> None:
    """Push in small chunks, so that there are many moments to be killed at."""
    server.CHUNK = 10
    store = Store.open(folder / "piar.duckdb", TASK)
    batch = load(store, "killed")
    assert batch is not None
    with server.Server(url, token) as desk:
        began.send("connected")
        push(store, desk, batch, Instruction("Judge."))
