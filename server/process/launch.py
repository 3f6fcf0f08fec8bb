"""Starts vLLM's API server: in this process, with the socket answering from the beginning, where one process does."""

from __future__ import annotations

import os
import signal
import sys
from argparse import Namespace
from types import FrameType

import uvloop
from vllm import envs
from vllm.entrypoints.cli.serve import ServeSubcommand
from vllm.entrypoints.launchers.api_server.entry import run_server_worker
from vllm.entrypoints.launchers.launcher import setup_server

from server.process.waiting_room import WaitingRoom
from server.system.log_writer import flush_output


def launch(args: Namespace) -> None:
    """Serve until told to end. Raises what vLLM raises, and OSError if the address cannot be had."""
    if is_alone(args):
        uvloop.run(serve_alone(args))
    else:
        ServeSubcommand.cmd(args)


def is_alone(args: Namespace) -> bool:
    """Whether there is one API process, and nothing but it serves the socket."""
    several = (args.api_server_count or 1) > 1 or args.data_parallel_size > 1 or args.data_parallel_rank is not None
    return not (several or args.headless or getattr(args, "grpc", False) or envs.VLLM_USE_RUST_FRONTEND)


def leave(number: int, frame: FrameType | None) -> None:
    """End a start at once; the kernel ends the child processes. An exception would pass through vLLM's start, which
    may swallow it, or end with an error that hides it."""
    os.write(sys.stderr.fileno(), b"tokenformer: told to stop before it was ready\n")  # the stream may be in use
    flush_output()
    os._exit(128 + number)


async def serve_alone(args: Namespace) -> None:
    """As vLLM's `run_server`, but visitors are told how far the start is until uvicorn answers."""

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, leave)  # until the server has handlers of its own
    address, listener = setup_server(args, reuse_port=False)
    if args.ssl_keyfile is not None:  # the waiting room speaks plain HTTP only
        await run_server_worker(address, listener, args)
        return
    with WaitingRoom(listener) as room:

        async def started() -> None:
            room.close()

        await run_server_worker(address, listener, args, callback_notify=started)
