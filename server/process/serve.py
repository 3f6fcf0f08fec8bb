"""`tokenformer serve`: vLLM's own `serve` with our model, worker and routes, and defaults that suit a Tokenformer."""

from __future__ import annotations

import math
import os
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from pydantic import ValidationError

from model_impl.checkpoint.delta import check_delta, load_delta
from model_impl.checkpoint.fingerprint import fingerprint
from model_impl.checkpoint.reading import (
    CheckpointError,
    check_tensors,
    check_values,
    iterate_tensors,
    load_config,
    tensor_shapes,
)
from model_impl.checkpoint.tokenizer import TOKENIZER
from model_impl.config import TokenformerConfig
from server.engine.settings import cpu_kv_cache_bytes, defaults, describe_memory, prepare_environment
from server.gate import MIDDLEWARE
from server.gate.keys import VARIABLES as KEY_VARIABLES
from server.gate.keys import ApiKeyError, readable_by_all, take_keys
from server.process.early_signals import EarlySignals, is_alone
from server.process.fitted import calibrations_of
from server.process.flags import add_flags
from server.process.head_start import give_head_start, is_worthwhile, use_head_start
from server.process.safety import UnsafeError, check_settings, is_loopback
from server.system.child_process import protect_children
from server.system.cores import prepare_openmp, use_cores
from server.system.stderr import say
from server.texts import TextError, TextTokenizer, read_texts, tokenised
from server.uncertainty.calibration import CalibrationError


def main(argv: Sequence[str], early: EarlySignals) -> int:
    """Serve CHECKPOINT (the first positional argument) until interrupted; all other flags are vLLM's."""
    prepare_environment()
    try:
        if argv and not argv[0].startswith("-"):
            # A wrong path or a damaged file should not cost the ten seconds of importing vLLM.
            check_tensors(load_config(argv[0]), tensor_shapes(argv[0]))
        say("importing vLLM")
        head_start = is_worthwhile()
        if head_start:
            prepare_openmp()
            give_head_start(without=KEY_VARIABLES)
        args = parse(argv)
        protect_children()
        if head_start:
            use_head_start()
    except (ApiKeyError, CalibrationError, CheckpointError, TextError, UnsafeError) as error:
        say(f"error: {error}")
        return 1
    say(f"starting the engine for {args.model}: {args.dtype}, {describe_memory(args)}")
    return run(args, early)


def parse(argv: Sequence[str]) -> Namespace:
    """vLLM's flags, with defaults for the checkpoint. Raises CheckpointError or CalibrationError if they do not fit."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.platforms import current_platform
    from vllm.utils.argparse_utils import FlexibleArgumentParser

    from server.process.lifecycle import Outcome

    cli_env_setup()
    parser = make_arg_parser(
        FlexibleArgumentParser(prog="tokenformer serve", usage="tokenformer serve CHECKPOINT [flags]")
    )
    add_flags(parser)
    checkpoint = parser.parse_args(list(argv)).model_tag
    if checkpoint is None:
        parser.error("name a checkpoint directory")
    config = check_checkpoint(Path(checkpoint))
    parser.set_defaults(**defaults(Path(checkpoint), config, cpu=current_platform.is_cpu()))
    args: Namespace = parser.parse_args(list(argv))
    args.subparser, args.model = "serve", checkpoint
    args.middleware = [*args.middleware, *MIDDLEWARE]
    args.outcome = Outcome()
    # `AdmissionControl` enforces these before vLLM would, and does not count the members of ensembles.
    args.queue_limits = (args.max_num_queued_reqs, args.max_num_queued_tokens)
    args.max_num_queued_reqs = args.max_num_queued_tokens = None
    take_access(args)
    validate_parsed_serve_args(args)
    check_growth(args, Path(checkpoint), config)
    if args.growth_root is not None:
        os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"  # vLLM then has the two routes
    args.calibrations = calibrations_of(Path(checkpoint), config, args.calibration)
    if not ((Path(checkpoint) / TOKENIZER).is_file() or args.tokenizer or args.skip_tokenizer_init):
        raise CheckpointError(f"{checkpoint}: has no {TOKENIZER} (see `tokenformer convert --tokenizer`)")
    if args.trace_corpus is not None:
        if not args.trace:
            parser.error("--trace-corpus needs --trace")
        texts, _ = read_texts(args.trace_corpus)
        tokenised(args.trace_corpus, texts, TextTokenizer(Path(checkpoint)))  # shows faults before the engine starts
    if current_platform.is_cpu():
        use_cores(args, sum(map(math.prod, tensor_shapes(checkpoint).values())))
    sized_by_user = args.kv_cache_memory_bytes or args.gpu_memory_utilization != parser.get_default(
        "gpu_memory_utilization"
    )
    if current_platform.is_cpu() and not sized_by_user:
        args.kv_cache_memory_bytes = cpu_kv_cache_bytes(args, config)
    return args


def take_access(args: Namespace) -> None:
    """Read the API keys and check the access settings. Raises ApiKeyError or UnsafeError."""
    args.api_keys = take_keys(args.api_key_file, os.environ)
    check_settings(args, os.environ)
    args.loopback_guards = args.api_keys is None and args.uds is None and is_loopback(args.host)
    if args.api_key_file is not None and readable_by_all(args.api_key_file):
        say(f"warning: every user of this machine can read the keys in {args.api_key_file}")


def check_growth(args: Namespace, checkpoint: Path, config: TokenformerConfig) -> None:
    """Raises CheckpointError for a delta of `--growth` that does not fit."""
    base = fingerprint(checkpoint) if args.growth else ""
    for name, path in args.growth:
        try:
            check_delta(load_delta(path), config, base)
        except CheckpointError as error:
            raise CheckpointError(f"--growth {name}: {error}") from error


def check_checkpoint(checkpoint: Path) -> TokenformerConfig:
    """Raises CheckpointError, in one line, for what would fail deep inside the engine."""
    config = load_config(checkpoint)
    check_tensors(config, tensor_shapes(checkpoint))
    for name, tensor in iterate_tensors(checkpoint):
        check_values(config, name, tensor)
    return config


def run(args: Namespace, early: EarlySignals) -> int:
    """Run vLLM's `serve`. A failure becomes one line and exit code 1."""
    from vllm.entrypoints.cli.serve import ServeSubcommand

    args.early_signals = early if is_alone(args) else None
    if args.early_signals is None:
        early.stop()
    began = time.monotonic()
    try:
        ServeSubcommand.cmd(args)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        say(f"error: cannot listen on {args.host}:{args.port}: {error.strerror or error}")
        return 1
    except (RuntimeError, ValueError) as error:
        # The first line of a pydantic error only counts the errors.
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        say(f"error: {reason.splitlines()[0]} (after {time.monotonic() - began:.0f} s; details above)")
        return 1
    if args.outcome.failure:
        say(f"error: {args.outcome.failure}")
    return 1 if args.outcome.failure else 0
