"""Engines that several modules of this folder share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.engine.test_stages import Family, open_family


@pytest.fixture(scope="package", params=["l2_norm_gelu", "gelu_l2_norm", "softmax"])
def family(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Family]:
    with open_family(tmp_path_factory.mktemp(request.param), request.param) as opened:
        yield opened
