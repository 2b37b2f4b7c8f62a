"""What all tests share: the numbers that models compute in, two projects, and an interpreter left as it was found."""

import gc
import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, settings

if TYPE_CHECKING:
    from piar import Project

os.environ.setdefault("PIAR_PRECISION", "fp32")  # the same on every machine; another run of the tests forces bf16
if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # workers do not fight over the same cores
settings.register_profile(
    "busy", deadline=None, suppress_health_check=[HealthCheck.too_slow]
)  # a slow machine is no bug
settings.load_profile("busy")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Tests that compare numbers need all their digits."""
    if os.environ["PIAR_PRECISION"] != "fp32":
        skip = pytest.mark.skip(reason="compares numbers: float32 only")
        for item in items:
            if item.get_closest_marker("exact"):
                item.add_marker(skip)


@pytest.fixture(scope="session")
def one_toys(tmp_path_factory: pytest.TempPathFactory) -> "Project":
    """`small_project`, made once and never changed."""
    from tests.small_project import small_project

    return small_project(tmp_path_factory.mktemp("one") / "toys")


@pytest.fixture(scope="session")
def one_shop(tmp_path_factory: pytest.TempPathFactory) -> "Project":
    """A simulated shop of 300 pairs that no judge has seen, made once and never changed."""
    from piar import Project

    return Project.init(tmp_path_factory.mktemp("one") / "shop", example="shop", pairs=300)


@pytest.fixture
def toys(one_toys: "Project", tmp_path_factory: pytest.TempPathFactory) -> "Project":
    """The test's own copy of `small_project`."""
    from tests.small_project import copy_of

    return copy_of(one_toys, tmp_path_factory.mktemp("own"))


@pytest.fixture
def shop(one_shop: "Project", tmp_path_factory: pytest.TempPathFactory) -> "Project":
    """The test's own copy of the simulated shop."""
    from tests.small_project import copy_of

    return copy_of(one_shop, tmp_path_factory.mktemp("own"))


def pytest_unconfigure() -> None:
    """Take down the collector's callback that Hypothesis leaves behind.

    It outlives every module and keeps fixtures of test modules, and DuckDB through them, alive to the very end, where
    nanobind lists each as leaked, below the summary of the tests.
    """
    gc.callbacks.clear()
