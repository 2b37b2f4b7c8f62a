"""An environment of its own for Ray: `python -m tests.ray_env` makes it under `.envs/ray`.

Ray's own packages come first in it, then those of the environment that tests run in, so that its workers know piar and
torch. `PIAR_RAY_PYTHON` names the Python of one that is there already.
"""

import os
import subprocess
import sys
import sysconfig

from tests import ROOT

FOLDER = ROOT / ".envs" / "ray"
PACKAGES = ["ray[data]>=2.50", "aiohttp", "jinja2", "pydantic"]
# One machine, two workers, little memory, and nothing that opens a window to the network.
INIT = """ray.init(
    num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8, _node_ip_address="127.0.0.1"
)"""


def ray_python() -> str:
    """The Python of an environment with Ray, made now if it is not there (a minute)."""
    if named := os.environ.get("PIAR_RAY_PYTHON"):
        return named
    python, done = FOLDER / "bin" / "python", FOLDER / ".done"
    if not done.exists():
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(FOLDER)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "-q", *PACKAGES], check=True)
        done.touch()
    [packages] = (FOLDER / "lib").glob("python*/site-packages")
    (packages / "ours.pth").write_text(f"import site; site.addsitedir({sysconfig.get_paths()['purelib']!r})\n")
    return str(python)


def environment() -> dict[str, str]:
    """Environment variables for a process of that Python that can import this repository."""
    return {**os.environ, "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}


if __name__ == "__main__":
    print(ray_python())
