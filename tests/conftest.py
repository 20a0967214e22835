"""GPU tests are skipped where there is no GPU, unless NAIGN_REQUIRE_GPU=1 turns every skip into a failure."""

import os
from collections.abc import Generator, Iterator

import pytest
import torch

from naign_ext import _native

REQUIRED = os.environ.get("NAIGN_REQUIRE_GPU") == "1"


@pytest.fixture(scope="session", autouse=True)
def classifiers_in_a_temporary_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Tests neither read nor fill the user's cache."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("NAIGN_CACHE", str(tmp_path_factory.mktemp("classifiers")))
        yield


@pytest.fixture
def no_waiting() -> Iterator[None]:
    """Any wait of the host for the device is an error."""
    before = torch.cuda.get_sync_debug_mode()
    torch.cuda.set_sync_debug_mode("error")
    yield
    torch.cuda.set_sync_debug_mode(before)


@pytest.fixture
def built_with_cuda() -> None:
    """Else the reference would be under test."""
    assert "cuda" in _native.DEVICES_WITH_KERNELS, _native.status()


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is None or torch.cuda.is_available():
        return
    if REQUIRED:
        pytest.fail("NAIGN_REQUIRE_GPU=1, but torch sees no CUDA device")
    pytest.skip("needs a CUDA device")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if REQUIRED and report.skipped and not hasattr(report, "wasxfail"):
        report.outcome = "failed"
        report.longrepr = f"NAIGN_REQUIRE_GPU=1 allows no skips: {report.longrepr}"
    return report
