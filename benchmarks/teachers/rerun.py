"""What a second run costs, counted by the server: one new sample, then a changed instruction, then nothing new.

Each tool labels the same samples with its own cache on, in a process of its own for the peers:

    python -m benchmarks.teachers.rerun [--samples 50] [--peer distilabel=PYTHON] [--peer curator=PYTHON]
"""

import argparse
import itertools
import tempfile
from dataclasses import replace
from pathlib import Path

from benchmarks.judging import judge
from benchmarks.teachers.mock import calls, mock
from benchmarks.teachers.peers import chats_of, peer_argument, run_peer
from benchmarks.teachers.throughput import INSTRUCTION, TASK, samples
from piar.connect import connect
from piar.llm.settings import ModelSettings
from store.db import Store
from store.journal import Journal

CHANGED = replace(INSTRUCTION, preamble="Judge how well a product answers a search query, strictly.")


def ours(url, folder):
    """Label with piar into one store."""
    model = ModelSettings(model="openai:mock", base_url=url)
    store, journal = Store.create(folder / "piar.duckdb", TASK), Journal(folder / "journal")

    def label(instruction, wanted):
        judge(store, connect(model, lambda words: None), instruction, wanted, journal=journal, model=model, run_id="r")

    return label


def peer(name, python, url, folder):
    """Label with a peer whose cache is the folder."""

    def label(instruction, wanted):
        done = run_peer(name, python, url, chats_of(TASK, instruction, wanted), folder, "--cache")["done"]
        if done != len(wanted):
            print(f"{name} gave back {done} rows for {len(wanted)} samples")

    return label


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--samples", type=int, default=50)
    parser.add_argument("--peer", type=peer_argument, action="append", default=[], metavar="NAME=PYTHON")
    options = parser.parse_args()
    wanted = samples(options.samples + 1)
    steps = {
        "first run": (INSTRUCTION, wanted[:-1]),
        "one new sample": (INSTRUCTION, wanted),
        "changed instruction": (CHANGED, wanted),
        "first instruction again": (INSTRUCTION, wanted),
    }
    tools = {"piar": ours, **{name: lambda *at, n=name, p=python: peer(n, p, *at) for name, python in options.peer}}
    print(f"{'requests':14}" + "".join(f"{step:>25}" for step in steps))
    for name, make in tools.items():
        with tempfile.TemporaryDirectory() as folder, mock() as url:
            label, counted = make(url, Path(folder)), [0]
            for step in steps.values():
                label(*step)
                counted.append(calls(url))
        asked = [after - before for before, after in itertools.pairwise(counted)]
        print(f"{name:14}" + "".join(f"{n:>25,}" for n in asked), flush=True)


if __name__ == "__main__":
    main()
