"""The assumptions of our code about vLLM's API process and its uvicorn.

The files that rely on it lie in server/{process,system,engine,gate}.
"""

from __future__ import annotations

import asyncio
import dataclasses
import inspect
import re
import socket
from multiprocessing import popen_fork

import pytest
import uvicorn
import uvloop

from tests.contract.symbols import find

SIGNATURES = {
    # server/process/serve.py
    "vllm.entrypoints.cli.serve:ServeSubcommand.cmd": ("args",),
    # server/gate/admission.py, server/process/lifecycle.py, server/process/health.py
    "vllm.v1.engine.async_llm:AsyncLLM.get_num_unfinished_requests": ("self",),
    "vllm.v1.engine.async_llm:AsyncLLM.get_num_queued_tokens": ("self",),
    "vllm.v1.engine.async_llm:AsyncLLM.generate": ("self", "prompt", "sampling_params", "request_id"),
    "vllm.exceptions:GracefulHTTPError": ("message", "http_status"),
    # server/engine/statistics.py: WatchedOutputs and end_all
    "vllm.v1.engine.output_processor:OutputProcessor.add_request": ("self", "request"),
    "vllm.v1.engine.output_processor:OutputProcessor.process_outputs": ("self", "engine_core_outputs"),
    "vllm.v1.engine.output_processor:OutputProcessor.propagate_error": ("self", "e"),
    "vllm.v1.engine.core_client:AsyncMPClient.abort_requests_async": ("self", "request_ids"),
    # server/gate/connection/protocol.py
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.connection_made": ("self", "transport"),
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.connection_lost": ("self", "exc"),
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.data_received": ("self", "data"),
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.on_message_begin": ("self",),
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.on_headers_complete": ("self",),
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.on_header": ("self", "name", "value"),
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.on_response_complete": ("self",),
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol._should_upgrade_to_ws": ("self",),
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol._unsupported_upgrade_warning": ("self",),
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.on_body": ("self", "body"),
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.on_message_complete": ("self",),
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.pause_writing": ("self",),
    "uvicorn.protocols.http.httptools_impl:HttpToolsProtocol.resume_writing": ("self",),
}
"""Where a callable lives -> the parameters that it starts with."""


@pytest.mark.parametrize("symbol", SIGNATURES)
def test_a_callable_starts_with_the_assumed_parameters(symbol: str) -> None:
    expected = SIGNATURES[symbol]
    assert tuple(inspect.signature(find(symbol)).parameters)[: len(expected)] == expected


def test_one_api_process_is_this_process() -> None:
    """`server.process.early_signals.is_alone` decides as vLLM does."""
    source = inspect.getsource(find("vllm.entrypoints.cli.serve:ServeSubcommand.cmd"))
    assert "args.api_server_count = args.data_parallel_size\n" in source
    assert "uvloop.run(run_server(args))" in source


def test_the_address_is_bound_but_not_listened_on_until_the_engine_is_there() -> None:
    """Until then the kernel refuses connections, so nobody waits in a backlog."""
    source = inspect.getsource(find("vllm.entrypoints.launchers.api_server.entry:run_server"))
    assert source.index("setup_server(args, reuse_port=False)") < source.index("run_server_worker(")
    for symbol in ("setup_server", "create_server_socket", "create_server_unix_socket"):
        assert ".listen(" not in inspect.getsource(find(f"vllm.entrypoints.launchers.launcher:{symbol}"))


def test_uvloop_has_no_socket_where_it_could_not_listen() -> None:
    """And raises nothing, so `Lifecycle` looks."""

    def bound(port: int) -> socket.socket:
        listener = socket.socket()
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(("127.0.0.1", port))
        return listener

    async def listen() -> list[bool]:
        loop = asyncio.get_running_loop()
        with bound(0) as first, bound(first.getsockname()[1]) as second:
            servers = [await loop.create_server(asyncio.Protocol, sock=each) for each in (first, second)]
            return [all(server.sockets) for server in servers]

    assert uvloop.run(listen()) == [True, False]
    assert "self.servers.append(server)" in inspect.getsource(uvicorn.Server.startup)


def test_what_the_engines_process_is_started_by() -> None:
    """`server/process/head_start.py` puts its own context there, which is asked for in the module, when the engine
    starts."""
    manager = find("vllm.v1.engine.utils:CoreEngineProcManager")
    assert "context = get_mp_context()" in inspect.getsource(manager.__init__)
    assert "context.Process(" in inspect.getsource(manager.__init__)
    assert callable(find("vllm.v1.engine.utils:get_mp_context"))


@pytest.mark.parametrize(
    "symbol",
    [
        "vllm.v1.engine.core:EngineCoreProc.run_engine_core",
        "vllm.v1.executor.multiproc_executor:WorkerProc.worker_main",
    ],
)
def test_child_processes_install_handlers_that_are_redirected(symbol: str) -> None:
    """`server/system/child_process.py` replaces `signal.signal`, by which they install them."""
    source = inspect.getsource(find(symbol))
    assert "signal.signal(signal.SIGTERM, signal_handler)" in source
    assert "signal.signal(signal.SIGINT, signal_handler)" in source


@pytest.mark.parametrize(
    "symbol",
    [
        "vllm.v1.executor.multiproc_executor:WorkerProc.make_worker_process",
        "vllm.v1.engine.coordinator:DPCoordinator.__init__",
        "vllm.v1.engine.utils:CoreEngineProcManager.__init__",
        "vllm.v1.utils:APIServerProcessManager.__init__",
    ],
)
def test_child_processes_come_from_the_spawn_context(symbol: str) -> None:
    """Whose `Process` is ours; a server's command line and the CPU platform choose that method."""
    source = inspect.getsource(find(symbol))
    assert re.search(r"context = (get_mp_context\(\)|multiprocessing.get_context\(\"spawn\"\))", source)
    assert "context.Process(" in source
    assert "multiprocessing.get_context(mp_method)" in inspect.getsource(find("vllm.utils.system_utils:get_mp_context"))
    spawn = 'os.environ["VLLM_WORKER_MULTIPROC_METHOD"] = "spawn"'
    assert spawn in inspect.getsource(find("vllm.entrypoints.serve.utils.api_utils:cli_env_setup"))
    assert spawn in inspect.getsource(find("vllm.platforms.cpu:CpuPlatform.check_and_update_config"))


def test_children_are_ended_by_terminate() -> None:
    """Which sends the signal of `server/system/child_process.py`."""
    assert "proc.terminate()" in inspect.getsource(find("vllm.v1.utils:shutdown"))
    executor = find("vllm.v1.executor.multiproc_executor:MultiprocExecutor")
    assert "p.terminate()" in inspect.getsource(executor._ensure_worker_termination)
    popen = inspect.getsource(popen_fork.Popen)
    assert "def terminate(self)" in popen
    assert "def _send_signal(self, sig)" in popen


def test_our_signal_handlers_come_after_vllms() -> None:
    """It installs them before the server has started, which `Lifecycle` waits for."""
    source = inspect.getsource(find("vllm.entrypoints.launchers.launcher:serve_http"))
    assert "app.state.server = server" in source
    assert source.index("add_signal_handler(signal.SIGTERM") < source.index("await server_task")
    # None of uvicorn's own.
    assert "capture_signals" in vars(find("vllm.entrypoints.launchers.launcher:NoSignalServer"))


def test_what_uvicorn_reads_while_it_runs() -> None:
    assert "config.http_protocol_class(" in inspect.getsource(uvicorn.Server.startup)
    assert "self.config.timeout_graceful_shutdown" in inspect.getsource(uvicorn.Server.shutdown)
    assert "self.should_exit" in inspect.getsource(uvicorn.Server.on_tick)


def test_uvicorn_listens_only_after_the_app_has_been_told_that_it_starts() -> None:
    """`server/gate/connection/carrier.py` chooses the class of connections then, in vLLM's server as well."""
    source = inspect.getsource(uvicorn.Server.startup)
    assert source.index("self.lifespan.startup()") < source.index("create_server(")
    source = inspect.getsource(find("vllm.entrypoints.launchers.launcher:NoSignalServer"))
    assert source.index("super().startup(sockets=[])") < source.index("sock.listen(")
    assert "config.http_protocol_class(" in source
    source = inspect.getsource(find("vllm.entrypoints.launchers.launcher:serve_http"))
    assert source.index("app.state.server = server") < source.index("server.serve(")


def test_what_uvicorns_connections_know_of_their_request() -> None:
    source = inspect.getsource(find("uvicorn.protocols.http.httptools_impl:HttpToolsProtocol"))
    assert "on_response=self.on_response_complete" in source
    assert '"state": self.app_state.copy()' in source
    assert "self.pipeline.appendleft((self.cycle, app))" in source
    assert source.index("except httptools.HttpParserUpgrade:") < source.index("self._unsupported_upgrade_warning()")
    cycle = inspect.getsource(find("uvicorn.protocols.http.httptools_impl:RequestResponseCycle"))
    assert all(f"self.{name} = " in cycle for name in ("response_complete", "more_body", "keep_alive"))
    assert "if self.flow.write_paused and not self.disconnected:\n            await self.flow.drain()" in cycle


def test_middleware_stands_in_front_of_everything() -> None:
    source = inspect.getsource(find("vllm.entrypoints.serve.middleware.register:init_entrypoints_middleware"))
    assert source.rindex("add_middleware(imported)") > source.rindex("AuthenticationMiddleware, tokens=tokens)")


def test_what_the_running_sequences_are() -> None:
    outputs = find("vllm.v1.engine.output_processor:OutputProcessor")
    assert "self.request_states" in inspect.getsource(outputs.__init__)
    assert "state.queue.put(e)" in inspect.getsource(outputs.propagate_error)
    state = find("vllm.v1.engine.output_processor:RequestState")
    assert "self.is_prefilling = True" in inspect.getsource(state)


def test_limits_and_grace_are_vllms_flags() -> None:
    flags = {field.name for field in dataclasses.fields(find("vllm.engine.arg_utils:EngineArgs"))}
    assert {"max_num_queued_reqs", "max_num_queued_tokens", "shutdown_timeout"} <= flags
    assert callable(find("vllm.v1.engine.async_llm:AsyncLLM.errored").fget)


def test_errors_of_flags_end_in_one_method() -> None:
    """`server.process.flag_parser` overrides it."""
    assert "super().error(message)" in inspect.getsource(find("vllm.utils.argparse_utils:FlexibleArgumentParser.error"))
