"""Ray on one machine, from an environment of its own (see `tests.environments`)."""

from tests import ROOT
from tests.environments import outer_environment

# One machine, two workers, little memory, and nothing that opens a window to the network.
INIT = """ray.init(
    num_cpus=2, include_dashboard=False, log_to_driver=False, object_store_memory=10**8, _node_ip_address="127.0.0.1"
)"""


def environment() -> dict[str, str]:
    """Environment variables for a process of that Python that can import this repository."""
    return {**outer_environment(), "PYTHONPATH": str(ROOT), "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
