"""Settings that `tokenformer serve` refuses: they would open the server, or run code from a checkpoint."""

from __future__ import annotations

import socket
from argparse import Namespace
from collections.abc import Mapping
from ipaddress import ip_address

from model_impl.one_line_error import OneLineError
from server.gate.keys import KEYS_VARIABLE

SAFE_FORMATS = ("safetensors", "fastsafetensors", "instanttensor", "runai_streamer", "dummy")
"""Values of --load-format that read safetensors files or none. The others may read pickles, which are programs, or
files that have not been checked."""


class UnsafeError(OneLineError):
    """A refused setting. The message is one line, and says what to do instead."""


def check_settings(args: Namespace, environment: Mapping[str, str]) -> None:
    """Raises UnsafeError for the first refused setting. `args.api_keys` must have been set."""
    if args.api_key:
        raise UnsafeError(
            f"--api-key would show the key to everyone on this machine; use --api-key-file or {KEYS_VARIABLE}"
        )
    if args.trust_remote_code:
        raise UnsafeError("--trust-remote-code would run programs that lie beside the weights")
    if args.load_format not in SAFE_FORMATS:
        raise UnsafeError(f"--load-format {args.load_format} is not among {', '.join(SAFE_FORMATS)}")
    if args.grpc or environment.get("VLLM_USE_RUST_FRONTEND", "0") not in ("", "0"):
        raise UnsafeError("vLLM's gRPC and Rust front ends have neither keys nor limits; use the HTTP server")
    if args.isolate_keys and args.api_keys is None:
        raise UnsafeError("--isolate-keys needs API keys (--api-key-file)")
    if not (args.api_keys or args.allow_public_without_key or args.headless or args.uds or is_loopback(args.host)):
        raise UnsafeError(
            f"{args.host or 'every address'} can be reached from outside, and there is no API key: use --api-key-file "
            f"or {KEYS_VARIABLE}, or --allow-public-without-key where something else guards it"
        )


def is_loopback(host: str | None) -> bool:
    """Whether `host` has only loopback addresses. No host means every address."""
    if not host:
        return False
    try:
        found = socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)
    except OSError:
        return False
    return all(ip_address(address[0]).is_loopback for *_, address in found)
