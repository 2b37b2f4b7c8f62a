"""What all tests share: the numbers that models compute in, and an interpreter left as it was found."""

import gc
import os

import pytest

os.environ.setdefault("PIAR_PRECISION", "fp32")  # the same on every machine; another run of the tests forces bf16
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers do not fight over the same cores


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that compare numbers need all their digits."""
    if os.environ["PIAR_PRECISION"] != "fp32":
        skip = pytest.mark.skip(reason="compares numbers: float32 only")
        for item in items:
            if item.get_closest_marker("exact"):
                item.add_marker(skip)


def pytest_unconfigure() -> None:
    """Take down the collector's callback that Hypothesis leaves behind.

    It outlives every module and keeps fixtures of test modules, and DuckDB through them, alive to the very end, where
    nanobind lists each as leaked, below the summary of the tests.
    """
    gc.callbacks.clear()
