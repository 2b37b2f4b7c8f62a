"""Processes that push or pull a batch and say when they begin, so that a test can kill them at any moment."""

from multiprocessing.connection import Connection
from pathlib import Path

from piar import Project
from piar.review import server
from piar.review.batch import load
from piar.review.push_pull import pull, push
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


def pull_until_killed(folder: Path, name: str, url: str, token: str, began: Connection) -> None:
    """Pull in small chunks."""
    server.EXPORTED = 3
    store = Project.open(folder).store
    batch = load(store, name)
    assert batch is not None
    with server.Server(url, token) as desk:
        began.send("connected")
        pull(store, desk, batch, "killed")
