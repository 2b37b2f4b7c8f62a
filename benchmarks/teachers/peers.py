"""Other labelling libraries, each in its own environment, asking the same mock.

Make the environments with `uv venv DIR` and `uv pip install -p DIR/bin/python 'distilabel[openai]==1.5.3' requests`
or `bespokelabs-curator==0.1.31`, and pass their Pythons as `--peer distilabel=DIR/bin/python`.
"""

import json
import os
import subprocess
import tempfile
from pathlib import Path

from benchmarks.judging import judge_messages
from piar.instructions.prompts import judge_prefix


def peer_argument(text):
    """`NAME=PYTHON` of a command line."""
    name, _, python = text.partition("=")
    script = Path(__file__).with_name(f"peer_{name}.py")
    if not script.is_file() or not Path(python).exists():
        raise ValueError(text)
    return name, python


def chats_of(task, instruction, samples):
    """The very chats that `piar.judging.labeller` sends, as JSON messages."""
    prefix = judge_prefix(task, instruction)
    return [
        [{"role": m.role, "content": m.content} for m in judge_messages(prefix, sample.fields)] for sample in samples
    ]


def run_peer(name, python, url, chats, cache, *flags):
    """What a peer says of one run over all chats: `done`, how many it gave back, and `seconds` by its own clock
    around its one call, without its import.

    Args:
        cache: folder of the peer's own cache; give the same again to measure a re-run.
        flags: `--cache` lets a peer use it that does not by itself.
    """
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "chats.json"
        file.write_text(json.dumps(chats))
        command = [python, str(Path(__file__).with_name(f"peer_{name}.py")), url, str(file), *flags]
        environment = {**os.environ, "CURATOR_CACHE_DIR": str(cache), "DISTILABEL_CACHE_DIR": str(cache)}
        done = subprocess.run(command, capture_output=True, text=True, env=environment, cwd=cache, timeout=1200)
    if done.returncode:
        raise RuntimeError(f"{name} failed: {done.stderr[-2000:]}")
    return next(json.loads(line) for line in reversed(done.stdout.splitlines()) if line.startswith("{"))
