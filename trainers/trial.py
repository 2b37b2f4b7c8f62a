"""A first run of somebody else's template, in a process of its own whose time and memory are bounded.

The sandbox of transformers keeps templates from files and from Python's insides, but lets them loop and grow.
"""

import os
import resource
import signal
import warnings
from collections.abc import Callable
from pathlib import Path

SECONDS = 5  # of the processor, a thousand times what a template takes
BYTES = 1 << 30  # beyond what the process holds


def trial(work: Callable[[], object]) -> str | None:
    """What went wrong in bounded time and memory, in words; None where nothing did, or the system cannot fork.

    What `work` raises is not told: it will raise the same where it is called in earnest.
    """
    if not hasattr(os, "fork"):
        return None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # of threads: the child runs this function alone
        child = os.fork()
    if child == 0:
        _bounded(work)
    _, status = os.waitpid(child, 0)
    if os.WIFSIGNALED(status):
        return "does not end" if os.WTERMSIG(status) in (signal.SIGXCPU, signal.SIGKILL) else "ends the process"
    return {0: None, _MEMORY: "takes more than a gigabyte of memory"}.get(os.WEXITSTATUS(status), "ends the process")


_MEMORY = 3


def _bounded(work: Callable[[], object]) -> None:
    """Call `work` in the child, and leave without a trace of the parent's business at exit."""
    code = 0
    try:
        signal.signal(signal.SIGXCPU, signal.SIG_DFL)
        resource.setrlimit(resource.RLIMIT_CPU, (SECONDS, SECONDS + 1))
        statm = Path("/proc/self/statm")
        if statm.exists():
            held = int(statm.read_text(encoding="utf-8").split()[0]) * resource.getpagesize()
            resource.setrlimit(resource.RLIMIT_AS, (held + BYTES, held + BYTES))
        work()
    except MemoryError:
        code = _MEMORY
    except BaseException as error:  # also what a sandbox turns into an error of ours
        code = _MEMORY if isinstance(error.__context__, MemoryError) else 0
    finally:
        os._exit(code)
