"""Settings of vLLM that the user has not given: flags and environment variables."""

from __future__ import annotations

import importlib.metadata
import os
from argparse import Namespace

from model_impl.checkpoint.reading import CheckpointError
from model_impl.plugin import SCHEDULER_CLASS, WORKER_CLASS
from server.served.model import ServedModel
from server.system.memory import available_bytes

LARGEST_KV_SHARE = 0.5
"""Share of the free memory on CPU. The rest is for weights, activations and everything else on the machine."""

HOST, PORT = "127.0.0.1", 8000
"""Where the server listens; the port is vLLM's own default."""

GRACE_SECONDS = 30
"""Grace period of running requests at shutdown, the same as in Kubernetes."""


def prepare_environment() -> None:
    """Set the variables that vLLM reads when it is imported. The user's own values stay."""
    # V2 needs Triton and has not run on a GPU with our model yet.
    os.environ.setdefault("VLLM_USE_V2_MODEL_RUNNER", "0")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    # `server.process.lifecycle` ends a server whose engine has died, with an error.
    os.environ.setdefault("VLLM_KEEP_ALIVE_ON_ENGINE_DEATH", "1")
    # A library of vLLM's would run a checkpoint's model.py in the directory that SageMaker uses.
    os.environ.setdefault("CUSTOM_SCRIPT_FILENAME", "")
    # Endpoint plugins load only when named here. Naming one excludes all others, so the general plugins are named too.
    allowed = os.environ.get("VLLM_PLUGINS")
    general = [plugin.name for plugin in importlib.metadata.entry_points(group="vllm.general_plugins")]
    names = general if allowed is None else allowed.split(",")
    os.environ["VLLM_PLUGINS"] = ",".join(dict.fromkeys([*names, "tokenformer"]))


def defaults(served: ServedModel, *, cpu: bool) -> dict[str, object]:
    """Values of vLLM's flags where the user gives none."""
    from vllm.config import StructuredOutputsConfig

    values: dict[str, object] = {
        "host": HOST,
        "load_format": "safetensors",
        "disable_uvicorn_access_log": True,  # --access-log replaces it
        "served_model_name": [served.served_name],
        "worker_cls": WORKER_CLASS,
        "shutdown_timeout": GRACE_SECONDS,
        # See server.engine.constraints.grammars. A small model that may write whitespace in JSON, or properties that
        # the schema does not name, writes nothing else.
        "structured_outputs_config": StructuredOutputsConfig(
            backend="guidance", disable_any_whitespace=True, disable_additional_properties=True
        ),
    }
    values |= served.settings(cpu=cpu)
    if cpu:
        # On CPU, compiling costs more time at the start than it saves. The attention kernel's block unit is 32. Our
        # scheduler is synchronous, like vLLM's on CPU.
        values |= {"dtype": served.cpu_dtype(), "enforce_eager": True, "block_size": 32}
        values["scheduler_cls"] = SCHEDULER_CLASS
    return values


def chat_template(served: ServedModel) -> str | None:
    """The file of the chat template for a model that has a tokenizer without one, as base models do."""
    if served.own_template is None:
        return None
    try:
        return None if served.tokenizer().chat_template else str(served.own_template)
    except CheckpointError:  # no tokenizer: `ServedModel.check` refuses it, unless it is not wanted
        return None


def cpu_kv_cache_bytes(args: Namespace, served: ServedModel) -> int:
    """Size of the KV cache: enough for all requests at full length, at most half of the free memory."""
    length = served.longest
    if args.max_model_len is not None and args.max_model_len > 0:  # -1 is vLLM's "auto"
        length = args.max_model_len
    free = max(available_bytes() - served.weight_bytes(args), 0)
    requests = (args.max_num_seqs or 256) + 1  # one more for blocks that are only partly used
    replicas = args.data_parallel_size_local or args.data_parallel_size
    ranks = args.tensor_parallel_size * args.pipeline_parallel_size
    return int(min(requests * length * served.cached_bytes(args), LARGEST_KV_SHARE * free / replicas) / ranks)


def describe_memory(args: Namespace) -> str:
    if args.kv_cache_memory_bytes is None:
        return "KV cache sized by vLLM"
    return f"KV cache {args.kv_cache_memory_bytes / 2**30:.2f} GiB"
