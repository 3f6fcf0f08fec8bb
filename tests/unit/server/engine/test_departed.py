"""The death of an engine that this process has not started."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
import zmq
import zmq.asyncio
from vllm.v1.engine.exceptions import EngineDeadError

from server.engine.departed import fail_when_an_engine_leaves


def client(socket: zmq.asyncio.Socket, *, engines: int = 2, started: bool = False, elastic: bool = False) -> Any:
    core = SimpleNamespace(
        input_socket=socket,
        core_engines=range(engines),
        outputs_queue=asyncio.Queue(),
        resources=SimpleNamespace(engine_dead=False, engine_manager=object() if started else None),
    )
    parallel = SimpleNamespace(enable_elastic_ep=elastic)
    return SimpleNamespace(engine_core=core, vllm_config=SimpleNamespace(parallel_config=parallel))


def test_a_closed_connection_is_a_dead_engine() -> None:
    async def run() -> None:
        with zmq.asyncio.Context() as context, context.socket(zmq.ROUTER) as socket:
            port = socket.bind_to_random_port("tcp://127.0.0.1")
            found = client(socket)
            watch = asyncio.create_task(fail_when_an_engine_leaves(found))
            await asyncio.sleep(0)  # it watches: the lines below may find all that they await there already
            with context.socket(zmq.DEALER) as engine:
                engine.connect(f"tcp://127.0.0.1:{port}")
                await engine.send(b"ready")
                await socket.recv_multipart()
                assert not (watch.done() or found.engine_core.resources.engine_dead)
            await asyncio.wait_for(watch, 10)
            assert found.engine_core.resources.engine_dead
            assert isinstance(found.engine_core.outputs_queue.get_nowait(), EngineDeadError)

    asyncio.run(run())


@pytest.mark.parametrize("watched", [{"engines": 1, "started": True}, {"elastic": True}])
def test_engines_that_vllm_watches_or_lets_go_are_left_to_it(watched: dict[str, Any]) -> None:
    async def run() -> None:
        with zmq.asyncio.Context() as context, context.socket(zmq.ROUTER) as socket:
            await asyncio.wait_for(fail_when_an_engine_leaves(client(socket, **watched)), 10)

    asyncio.run(run())
