"""GPU tests are skipped where there is no GPU, unless NAIGN_REQUIRE_GPU=1 turns that into a failure."""

import os

import pytest
import torch


def pytest_runtest_setup(item: pytest.Item) -> None:
    if item.get_closest_marker("gpu") is None or torch.cuda.is_available():
        return
    if os.environ.get("NAIGN_REQUIRE_GPU") == "1":
        pytest.fail("NAIGN_REQUIRE_GPU=1, but torch sees no CUDA device")
    pytest.skip("needs a CUDA device")
