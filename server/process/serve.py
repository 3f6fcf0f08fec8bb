"""`tokenformer serve`: vLLM's own `serve` with our models, worker and routes, and defaults that suit the model."""

from __future__ import annotations

import os
import re
import signal
import traceback
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

from model_impl.checkpoint.delta import GrowthDelta, check_delta, load_delta
from model_impl.checkpoint.reading import CheckpointError
from model_impl.one_line_error import OneLineError
from model_impl.texts import TextTokenizer, read_texts, tokenised
from server.engine.fitted import calibrations_of, warn_of_pipeline
from server.engine.settings import chat_template, cpu_kv_cache_bytes, defaults, describe_memory, prepare_environment
from server.gate import MIDDLEWARE
from server.gate.keys import VARIABLES as KEY_VARIABLES
from server.gate.keys import readable_by_all, take_keys
from server.process.early_signals import EarlySignals, is_alone
from server.process.flags import add_flags
from server.process.head_start import give_head_start, is_worthwhile, use_head_start
from server.process.listening import cannot_listen, check_port
from server.process.safety import check_settings, is_loopback
from server.served.model import ONLY_TOKENFORMERS, ServedModel
from server.served.opening import is_hub_id, open_model
from server.served.stock import StockModel
from server.served.tokenformer import TokenformerCheckpoint
from server.system.child_process import protect_children, root_cause
from server.system.cores import prepare_openmp, use_cores
from server.system.quiet import is_quiet
from server.system.stderr import say

REFERENCE = "See root cause above. "
"""In vLLM's error about a process that ended before it was ready, ahead of exit codes by process."""

OUT_OF_MEMORY = "the engine was killed while it started, most likely for lack of memory; see --kv-cache-memory-bytes"

HEADLESS_END = "a process of the engine died on this machine; start it again together with the server it belongs to"

OTHER_TOKENIZER = ("--tokenizer", "--skip-tokenizer-init", "--config")
"""Beginnings of flags by which a model may need no tokenizer of its own."""


def main(argv: Sequence[str], early: EarlySignals) -> int:
    """Serve MODEL (the first positional argument) until interrupted; all other flags are vLLM's."""
    prepare_environment()
    try:
        if argv and not argv[0].startswith("-") and not is_hub_id(argv[0]):
            # A wrong path or a damaged file should not cost the ten seconds of importing vLLM.
            served = open_model(argv[0])
            if not any(flag.replace("_", "-").startswith(OTHER_TOKENIZER) for flag in argv):
                served.check_tokenizer()
        check_port(argv)
        say("importing vLLM")
        head_start = is_worthwhile()
        if head_start:
            prepare_openmp()
            give_head_start(without=KEY_VARIABLES)
        args = parse(argv)
        protect_children()
        if head_start:
            use_head_start()
    except Exception as error:
        return failed(error)
    say(f"starting the engine for {args.model}: {args.dtype}, {describe_memory(args)}")
    return run(args, early)


def parse(argv: Sequence[str]) -> Namespace:
    """vLLM's flags, with defaults for the checkpoint. Raises CheckpointError or CalibrationError if they do not fit."""
    from vllm.entrypoints.launchers.cli_args import make_arg_parser, validate_parsed_serve_args
    from vllm.entrypoints.serve.utils.api_utils import cli_env_setup
    from vllm.platforms import current_platform

    from server.process.flag_parser import FlagParser
    from server.process.lifecycle import Outcome

    cli_env_setup()
    parser = make_arg_parser(FlagParser(prog="tokenformer serve", usage="tokenformer serve MODEL [flags]"))
    add_flags(parser)
    named = parser.parse_args(list(argv))
    if named.model_tag is None:
        parser.error("name a model: a directory, or an id of the Hugging Face Hub")
    served = open_model(named.model_tag, named.revision, named.hf_token)
    parser.set_defaults(**defaults(served, cpu=current_platform.is_cpu()))
    if is_quiet():
        parser.set_defaults(use_tqdm_on_load=False, uvicorn_log_level="warning")
    args: Namespace = parser.parse_args(list(argv))
    if not args.disable_uvicorn_access_log and args.uvicorn_log_level == "warning":
        args.uvicorn_log_level = "info"  # the level of an access log
    args.subparser, args.model, args.served = "serve", named.model_tag, served
    if isinstance(served, StockModel):
        args.revision = served.revision  # the commit: the Hub's main may move until vLLM asks for it
    args.chat_template = args.chat_template or chat_template(served)
    args.middleware = [*args.middleware, *MIDDLEWARE]
    args.outcome = Outcome()
    # `AdmissionControl` enforces these before vLLM would, and does not count the members of ensembles.
    args.queue_limits = (args.max_num_queued_reqs, args.max_num_queued_tokens)
    args.max_num_queued_reqs = args.max_num_queued_tokens = None
    take_access(args)
    try:
        validate_parsed_serve_args(args)
    except (TypeError, ValueError) as error:
        parser.error(str(error).removeprefix("Error: "))
    for name in ("ssl_certfile", "ssl_keyfile", "ssl_ca_certs"):
        if (file := getattr(args, name)) and not Path(file).is_file():
            parser.error(f"--{name.replace('_', '-')}: {file} is no file")
    check_features(args, served)
    deltas = named_deltas(args, served) if isinstance(served, TokenformerCheckpoint) else {}
    if args.growth_root is not None:
        os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"  # vLLM then has the two routes
    args.calibrations = calibrations_of(served, args.calibration, deltas)
    if args.pipeline_parallel_size > 1:
        warn_of_pipeline(args.calibrations)
    served.check(args)
    if args.trace_corpus is not None:
        if not args.trace:
            parser.error("--trace-corpus needs --trace")
        texts, _ = read_texts(args.trace_corpus)
        tokenised(args.trace_corpus, texts, TextTokenizer(served))  # shows faults before the engine starts
    if current_platform.is_cpu():
        use_cores(args, served.parameters)
    sized_by_user = args.kv_cache_memory_bytes or args.gpu_memory_utilization != parser.get_default(
        "gpu_memory_utilization"
    )
    if current_platform.is_cpu() and not sized_by_user:
        args.kv_cache_memory_bytes = cpu_kv_cache_bytes(args, served)
    return args


def take_access(args: Namespace) -> None:
    """Read the API keys and check the access settings. Raises ApiKeyError or UnsafeError."""
    args.api_keys = take_keys(args.api_key_file, os.environ)
    check_settings(args, os.environ)
    args.loopback_guards = args.api_keys is None and args.uds is None and is_loopback(args.host)
    if args.api_key_file is not None and readable_by_all(args.api_key_file):
        say(f"warning: every user of this machine can read the keys in {args.api_key_file}")


def check_features(args: Namespace, served: ServedModel) -> None:
    """Raises CheckpointError for a flag of a feature that the model lacks."""
    wanted = {"--growth": "deltas", "--growth-root": "deltas", "--trace": "trace"}
    for flag, feature in wanted.items():
        given = getattr(args, flag.removeprefix("--").replace("-", "_"))
        if given and not served.capabilities.as_dict()[feature]:
            raise CheckpointError(f"{flag}: {ONLY_TOKENFORMERS[feature]}")


def named_deltas(args: Namespace, served: TokenformerCheckpoint) -> dict[str, GrowthDelta]:
    """The deltas of `--growth` by name. Raises CheckpointError for one that does not fit."""
    base = served.fingerprint() if args.growth else ""
    deltas = {}
    for name, path in args.growth:
        try:
            deltas[name] = load_delta(path)
            check_delta(deltas[name], served.config, base)
        except CheckpointError as error:
            raise CheckpointError(f"--growth {name}: {error}") from error
    return deltas


def run(args: Namespace, early: EarlySignals) -> int:
    """Run vLLM's `serve`. A failure becomes one line and exit code 1."""
    from vllm.entrypoints.cli.serve import ServeSubcommand

    args.early_signals = early if is_alone(args) else None
    if args.early_signals is None:
        early.stop()
    try:
        ServeSubcommand.cmd(args)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        if error.errno is None:  # not of the system: of libraries that look for a model
            return failed(error)
        say(f"error: {cannot_listen(args.uds or f'{args.host}:{args.port}', error)}")
        return 1
    except Exception as error:
        return failed(error)
    # Without an API vLLM returns when a process of the engine has ended; a signal raises SystemExit.
    failure = HEADLESS_END if args.headless else args.outcome.failure
    if failure:
        say(f"error: {failure}")
    return 1 if failure else 0


def failed(error: Exception) -> int:
    """The exit code after an error at the start, whose root cause is the last line."""
    if not is_quiet() and not isinstance(error, OneLineError):
        traceback.print_exception(error)
    cause = root_cause(error)
    if REFERENCE in cause:  # its process could tell nothing
        killed = re.search(rf": -{signal.SIGKILL}\b", cause)
        cause = OUT_OF_MEMORY if killed else cause.replace(REFERENCE, "")
    say(f"error: {cause}")
    return 1
