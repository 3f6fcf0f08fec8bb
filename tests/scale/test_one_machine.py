"""A golden case over two ranks or engines of one machine."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.scale.served import (
    CASE,
    FLAGS,
    assert_dies_of,
    assert_every_answer_is_golden_and_counted,
    epistemic,
    rank_process,
)
from tests.support.golden_server import converted
from tests.support.servers import Server, serving

pytestmark = pytest.mark.server

SETUPS = {
    "tensor parallel": (["--tensor-parallel-size", 2], "Worker_TP1"),
    "pipeline parallel": (["--pipeline-parallel-size", 2], "Worker_PP1"),
    "two engines and two API processes": (["--data-parallel-size", 2, "--api-server-count", 2], "EngineCore_DP1"),
}


@pytest.fixture(scope="module", params=SETUPS)
def setup(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture(scope="module")
def server(setup: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    root = tmp_path_factory.mktemp("scale")
    with serving(converted(CASE, root), root / "log", [*FLAGS, *SETUPS[setup][0]], CASE) as started:
        started.wait_until_ready()
        yield started


def test_every_answer_is_golden_and_counted_once(server: Server) -> None:
    assert_every_answer_is_golden_and_counted(server)


def test_epistemic_uncertainty_comes_but_from_a_pipeline(server: Server, setup: str) -> None:
    found = epistemic(server)
    assert found is None if setup == "pipeline parallel" else len(found) == 4 and all(found)


def test_the_log_says_once_that_it_is_ready_and_warns_of_nothing(server: Server) -> None:
    log = server.log.read_text()
    assert log.count("is ready at") == 1
    assert "Warning" not in log


def test_a_killed_rank_ends_the_stream_that_waits_for_it_and_the_server(server: Server, setup: str) -> None:
    """The last test: the server is dead then."""
    assert_dies_of(server, rank_process(server, SETUPS[setup][1]))
