"""A golden case over two machines, by vLLM's own modes for several nodes."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from server.process.serve import HEADLESS_END
from tests.faults.lasting import wait_for
from tests.scale.nodes import spread
from tests.scale.served import CASE, FLAGS, assert_dies_of, assert_every_answer_is_golden_and_counted, rank_process
from tests.support.golden_server import converted
from tests.support.servers import Server

pytestmark = pytest.mark.engine  # and not `server`, whose half of `make test` takes longer

RANKS = ["--nnodes", 2, "--tensor-parallel-size", 2, "--master-addr", "10.77.0.1"]
ENGINES = ["--data-parallel-size", 2, "--data-parallel-size-local", 1, "--data-parallel-address", "10.77.0.1"]
ENGINES += ["--data-parallel-rpc-port", 13345, "--readiness-timeout", 5]


def assert_headless_end(follower: Server) -> None:
    """A supervisor sees a failure, with its reason."""
    assert follower.process.wait(60) == 1
    assert follower.tail().splitlines()[-1] == f"tokenformer: error: {HEADLESS_END}"


@pytest.fixture(scope="module")
def ranks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """A model that is divided among two machines, a rank on each."""
    root = tmp_path_factory.mktemp("ranks")
    roles = ["--node-rank", 0], ["--node-rank", 1]
    with spread(converted(CASE, root), root, [*FLAGS, *RANKS], *roles) as (leader, follower):
        leader.wait_until_ready()
        yield leader, follower


def test_a_model_divided_among_machines_answers_as_golden(ranks: tuple[Server, Server]) -> None:
    assert_every_answer_is_golden_and_counted(ranks[0])


def test_a_rank_killed_on_the_other_machine_ends_the_stream_and_the_server(ranks: tuple[Server, Server]) -> None:
    leader, follower = ranks
    assert_dies_of(leader, rank_process(follower, "Worker_TP1"))
    assert_headless_end(follower)


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, Server]]:
    """An engine with the whole model on each of two machines, behind the API of the first."""
    root = tmp_path_factory.mktemp("engines")
    roles = ["--api-server-count", 1], ["--data-parallel-start-rank", 1]
    with spread(converted(CASE, root), root, [*FLAGS, *ENGINES], *roles) as (leader, follower):
        leader.wait_until_ready()
        yield leader, follower


def test_engines_on_two_machines_answer_as_golden(engines: tuple[Server, Server]) -> None:
    assert_every_answer_is_golden_and_counted(engines[0])


def test_an_engine_that_hangs_on_the_other_machine_makes_the_server_unready(engines: tuple[Server, Server]) -> None:
    leader, follower = engines
    rank = rank_process(follower, "EngineCore_DP1")
    rank.suspend()
    with leader.http() as client:
        wait_for(lambda: client.get("/readyz").status_code == 503)
        assert client.get("/readyz").json()["reason"] == "an engine made no token within 5 s"
        rank.resume()
        wait_for(lambda: client.get("/readyz").status_code == 200)


def test_an_engine_killed_on_the_other_machine_ends_the_streams_and_the_server(engines: tuple[Server, Server]) -> None:
    leader, follower = engines
    assert_dies_of(leader, rank_process(follower, "EngineCore_DP1"))
    assert_headless_end(follower)
