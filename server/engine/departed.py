"""Engines that leave. vLLM notices the death of the engines that the same process has started. It does not notice it in
the other API processes, nor on other machines: there requests would wait for answers that nobody makes."""

from __future__ import annotations

from typing import cast

import zmq
import zmq.asyncio
from vllm.v1.engine.async_llm import AsyncLLM
from vllm.v1.engine.core_client import AsyncMPClient
from vllm.v1.engine.exceptions import EngineDeadError


async def fail_when_an_engine_leaves(client: AsyncLLM) -> None:
    """Let all running and later requests fail, as after any death of an engine, when one closes its connection: the
    kernel does so for a process that dies, but not for a machine that vanishes."""
    core: AsyncMPClient = client.engine_core
    watched = core.resources.engine_manager is not None and len(core.core_engines) == 1
    if watched or client.vllm_config.parallel_config.enable_elastic_ep:  # which lets engines come and go
        return
    monitor = cast(zmq.asyncio.Socket, core.input_socket.get_monitor_socket(zmq.EVENT_DISCONNECTED))
    await monitor.recv_multipart()
    core.resources.engine_dead = True
    core.outputs_queue.put_nowait(EngineDeadError())
