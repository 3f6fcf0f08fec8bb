"""`tokenformer serve`: vLLM's own `serve` with our model, worker and routes, and defaults that suit a Tokenformer."""

from __future__ import annotations

import importlib.metadata
import math
import os
import time
from argparse import Namespace
from collections.abc import Sequence
from pathlib import Path

import torch
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
from model_impl.checkpoint.tokenizer import DEFAULT_CHAT_TEMPLATE, TOKENIZER
from model_impl.config import TokenformerConfig
from model_impl.plugin import SCHEDULER_CLASS, WORKER_CLASS
from server.gate import MIDDLEWARE
from server.gate.keys import VARIABLES as KEY_VARIABLES
from server.gate.keys import ApiKeyError, readable_by_all, take_keys
from server.process.flags import add_flags
from server.process.head_start import give_head_start, is_worthwhile, use_head_start
from server.process.safety import UnsafeError, check_settings, is_loopback
from server.system.child_process import protect_children
from server.system.cores import prepare_openmp, use_cores
from server.system.memory import available_bytes
from server.system.stderr import say
from server.texts import TextError, TextTokenizer, read_texts, tokenised
from server.uncertainty.calibration import Calibration, CalibrationError, find_calibrations, load_calibration
from server.uncertainty.profile import Profile, ProfileError, find_profiles, load_profile

LARGEST_KV_SHARE = 0.5
"""Of the free memory on CPU: the rest is for weights, activations and everything else on the machine."""


GRACE_SECONDS = 30
"""For running requests, when the server is told to end; Kubernetes gives as much before it kills."""


def main(argv: Sequence[str]) -> int:
    """Serve CHECKPOINT (the first positional argument) until interrupted; all other flags are vLLM's."""
    prepare_environment()
    try:
        if argv and not argv[0].startswith("-"):
            # A wrong path or a damaged file should not cost the ten seconds of importing vLLM.
            check_tensors(load_config(argv[0]), tensor_shapes(argv[0]))
        say("importing vLLM")
        early = is_worthwhile()
        if early:
            prepare_openmp()
            give_head_start(without=KEY_VARIABLES)
        args = parse(argv)
        protect_children()
        if early:
            use_head_start()
    except (ApiKeyError, CalibrationError, CheckpointError, TextError, UnsafeError) as error:
        say(f"error: {error}")
        return 1
    say(f"starting the engine for {args.model}: {args.dtype}, {describe_memory(args)}")
    return run(args)


def prepare_environment() -> None:
    """Settings that vLLM reads from the environment when it is imported; what the user has set stays."""
    # V2 needs Triton and has not run on a GPU with our model yet.
    os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # How a server ends whose engine has died is for `server.process.lifecycle` to say, which exits with an error.
    os.environ.setdefault("VLLM_KEEP_ALIVE_ON_ENGINE_DEATH", "1")
    # A library of vLLM's would run a checkpoint's model.py, if the checkpoint lies where SageMaker puts one.
    os.environ.setdefault("CUSTOM_SCRIPT_FILENAME", "")
    # Endpoint plugins load only when named here, and naming one shuts out all others: keep what was loaded anyway.
    allowed = os.environ.get("VLLM_PLUGINS")
    general = [plugin.name for plugin in importlib.metadata.entry_points(group="vllm.general_plugins")]
    names = general if allowed is None else allowed.split(",")
    os.environ["VLLM_PLUGINS"] = ",".join(dict.fromkeys([*names, "tokenformer"]))


def parse(argv: Sequence[str]) -> Namespace:
    """vLLM's flags with defaults for this checkpoint; raises CheckpointError or CalibrationError if they do not fit."""
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
    # Ours to enforce, earlier than vLLM would; it would count an ensemble's members against them, too.
    args.queue_limits = (args.max_num_queued_reqs, args.max_num_queued_tokens)
    args.max_num_queued_reqs = args.max_num_queued_tokens = None
    take_access(args)
    validate_parsed_serve_args(args)
    check_growth(args, Path(checkpoint), config)
    if args.growth_root is not None:
        os.environ["VLLM_ALLOW_RUNTIME_LORA_UPDATING"] = "1"  # vLLM then has the two routes
    args.calibrations = calibrations_of(Path(checkpoint), config, args.calibration)
    args.profiles = profiles_of(Path(checkpoint), config)
    if not ((Path(checkpoint) / TOKENIZER).is_file() or args.tokenizer or args.skip_tokenizer_init):
        raise CheckpointError(f"{checkpoint}: has no {TOKENIZER} (see `tokenformer convert --tokenizer`)")
    if args.trace_corpus is not None:
        if not args.trace:
            parser.error("--trace-corpus needs --trace")
        texts, _ = read_texts(args.trace_corpus)
        tokenised(args.trace_corpus, texts, TextTokenizer(Path(checkpoint)))  # so that faults show before the engine
    if current_platform.is_cpu():
        use_cores(args, sum(map(math.prod, tensor_shapes(checkpoint).values())))
    sized_by_user = args.kv_cache_memory_bytes or args.gpu_memory_utilization != parser.get_default(
        "gpu_memory_utilization"
    )
    if current_platform.is_cpu() and not sized_by_user:
        args.kv_cache_memory_bytes = cpu_kv_cache_bytes(args, config)
    return args


def take_access(args: Namespace) -> None:
    """Settle who may ask; raises ApiKeyError or UnsafeError."""
    args.api_keys = take_keys(args.api_key_file, os.environ)
    check_settings(args, os.environ)
    args.loopback_guards = args.api_keys is None and args.uds is None and is_loopback(args.host)
    if args.api_key_file is not None and readable_by_all(args.api_key_file):
        say(f"warning: every user of this machine can read the keys in {args.api_key_file}")


def check_growth(args: Namespace, checkpoint: Path, config: TokenformerConfig) -> None:
    """Raises CheckpointError for a delta that does not fit, before the engine starts."""
    base = fingerprint(checkpoint) if args.growth else ""
    for name, path in args.growth:
        try:
            check_delta(load_delta(path), config, base)
        except CheckpointError as error:
            raise CheckpointError(f"--growth {name}: {error}") from error


def calibrations_of(
    checkpoint: Path, config: TokenformerConfig, files: Sequence[Path] | None
) -> dict[str, Calibration]:
    """The calibrations by growth stage: those in `files`, or else those beside the weights.

    One that belongs to another checkpoint, and one beside the weights that cannot be read, is left out with a warning;
    a named file that cannot be read raises CalibrationError.
    """
    found: dict[str, Calibration] = {}
    for file in find_calibrations(checkpoint) if files is None else files:
        try:
            calibration = load_calibration(file)
        except CalibrationError as error:
            if files is not None:
                raise
            say(f"warning: {error}; it is not used")
            continue
        if not belongs(calibration, checkpoint, config):
            say(f"warning: {file} was made for another checkpoint or stage; it is not used")
        elif calibration.ensemble and any(
            calibration.ensemble[name] != getattr(config, f"ensemble_{name}") for name in ("rate", "projections")
        ):
            say(f"warning: {file} was made for an ensemble with other masks; it is not used")
        elif calibration.stage in found:
            say(f"warning: {file} is a second calibration of stage {calibration.stage}; it is not used")
        else:
            found[calibration.stage] = calibration
            say(f"stage {calibration.stage} is calibrated by {file}")
    return found


def profiles_of(checkpoint: Path, config: TokenformerConfig) -> dict[str, Profile]:
    """The profiles beside the weights, by growth stage; those that do not do are left out with a warning."""
    found: dict[str, Profile] = {}
    for file in find_profiles(checkpoint):
        try:
            profile = load_profile(file, config)
        except ProfileError as error:
            say(f"warning: {error}; it is not used")
            continue
        if belongs(profile, checkpoint, config):
            found[profile.stage] = profile
        else:
            say(f"warning: {file} was made for another checkpoint or stage; it is not used")
    return found


def belongs(made: Calibration | Profile, checkpoint: Path, config: TokenformerConfig) -> bool:
    """Whether it was made for the stage that it names, as this checkpoint has it."""
    index = next((i for i in config.servable_stages if config.stages[i].name == made.stage), None)
    return index is not None and fingerprint(checkpoint, index) == made.checkpoint


def check_checkpoint(checkpoint: Path) -> TokenformerConfig:
    """Everything that would fail later, deep inside the engine: raises CheckpointError with one line."""
    config = load_config(checkpoint)
    check_tensors(config, tensor_shapes(checkpoint))
    for name, tensor in iterate_tensors(checkpoint):
        check_values(config, name, tensor)
    return config


def defaults(checkpoint: Path, config: TokenformerConfig, *, cpu: bool) -> dict[str, object]:
    """Values of vLLM's flags where the user gives none."""
    from vllm.config import StructuredOutputsConfig

    values: dict[str, object] = {
        "host": "127.0.0.1",
        "load_format": "safetensors",
        "disable_uvicorn_access_log": True,  # ours says more, see --access-log
        "served_model_name": [checkpoint.resolve().name],
        "worker_cls": WORKER_CLASS,
        "shutdown_timeout": GRACE_SECONDS,
        # See server.engine.grammars. Compact and closed: a small model that may put spaces between JSON's parts, or
        # invent properties that the schema does not name, does nothing else.
        "structured_outputs_config": StructuredOutputsConfig(
            backend="guidance", disable_any_whitespace=True, disable_additional_properties=True
        ),
    }
    if lacks_chat_template(checkpoint):
        values["chat_template"] = str(DEFAULT_CHAT_TEMPLATE)
    if cpu:
        # Compiling costs more time at start-up than it saves here; 32 is the attention kernel's block unit. Our
        # scheduler cannot work asynchronously, which vLLM's does not on CPU either.
        values |= {"dtype": cpu_dtype(config), "enforce_eager": True, "block_size": 32}
        values["scheduler_cls"] = SCHEDULER_CLASS
    return values


def lacks_chat_template(checkpoint: Path) -> bool:
    """Whether there is a tokenizer, as for every base model, that cannot render a chat."""
    from transformers import AutoTokenizer

    if not (checkpoint / TOKENIZER).is_file():
        return False
    return not AutoTokenizer.from_pretrained(checkpoint, trust_remote_code=False).chat_template


def cpu_dtype(config: TokenformerConfig) -> str:
    """bfloat16 where it was trained so and the processor multiplies it; otherwise float32, which is always exact.

    float16 checkpoints are not rounded to bfloat16: that moves logits about ten times as far as float16 itself does.
    """
    native = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bfloat16" if config.dtype == torch.bfloat16 and native else "float32"


def cpu_kv_cache_bytes(args: Namespace, config: TokenformerConfig) -> int:
    """Enough for every request at full length, and at most half of the free memory."""
    from model_impl.model.block import cached_head_dim

    length = config.max_position_embeddings
    if args.max_model_len is not None and args.max_model_len > 0:  # -1 is vLLM's "auto"
        length = args.max_model_len
    requests = (args.max_num_seqs or 256) + 1  # one more for blocks that are only partly used
    cached_width = config.num_attention_heads * cached_head_dim(config.head_dim)
    bytes_per_token = 2 * config.num_hidden_layers * cached_width * (2 if args.dtype == "bfloat16" else 4)
    replicas = args.data_parallel_size_local or args.data_parallel_size
    ranks = args.tensor_parallel_size * args.pipeline_parallel_size
    free = available_bytes()
    return int(min(requests * length * bytes_per_token, LARGEST_KV_SHARE * free / replicas) / ranks)


def describe_memory(args: Namespace) -> str:
    if args.kv_cache_memory_bytes is None:
        return "KV cache sized by vLLM"
    return f"KV cache {args.kv_cache_memory_bytes / 2**30:.2f} GiB"


def run(args: Namespace) -> int:
    """vLLM's `serve`; its failures become one line and exit code 1."""
    from server.process.launch import launch

    began = time.monotonic()
    try:
        launch(args)
    except KeyboardInterrupt:
        return 130
    except OSError as error:
        say(f"error: cannot listen on {args.host}:{args.port}: {error.strerror or error}")
        return 1
    except (RuntimeError, ValueError) as error:
        # vLLM's settings are checked by pydantic, whose first line only counts the errors.
        reason = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        say(f"error: {reason.splitlines()[0]} (after {time.monotonic() - began:.0f} s; details above)")
        return 1
    if args.outcome.failure:
        say(f"error: {args.outcome.failure}")
    return 1 if args.outcome.failure else 0
