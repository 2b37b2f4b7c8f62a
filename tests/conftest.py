"""Leaves the interpreter as it was found."""

import gc


def pytest_unconfigure() -> None:
    """Take down the collector's callback that Hypothesis leaves behind.

    It outlives every module and keeps fixtures of test modules, and DuckDB through them, alive to the very end, where
    nanobind lists each as leaked, below the summary of the tests.
    """
    gc.callbacks.clear()
