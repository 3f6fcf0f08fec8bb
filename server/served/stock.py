"""Any other text model of vLLM: a directory in the Hugging Face layout, or an id of the Hugging Face Hub."""

from __future__ import annotations

import hashlib
import json
import math
from argparse import Namespace
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch

from model_impl.checkpoint.reading import CheckpointError, one_line, open_regular, read_json
from model_impl.faults import refusal
from model_impl.plugin import ARCHITECTURE
from model_impl.stock import reports_epistemic
from server.served.model import BASE, Capabilities, ServedModel

if TYPE_CHECKING:
    from vllm.config import ModelConfig

LONGEST = ("max_position_embeddings", "n_positions", "max_sequence_length", "seq_length")
"""Keys of a configuration that hold the largest number of tokens."""

UNKNOWN_LONGEST = 2048
"""vLLM's default where there is none of them."""

TOKENIZERS = ("*token*", "vocab*", "*.model", "tekken*")
"""Names of the files from which the library transformers, or vLLM, loads some tokenizer."""

PASSING = ("transformers_version", "torch_dtype", "dtype")
"""Keys of a configuration that do not change what is computed."""


class StockModel(ServedModel):
    stages = (BASE,)
    parameters = math.inf

    def __init__(self, name: str, config: Path, revision: str | None = None) -> None:
        """`config` is the config.json. That of a Hub id lies in the cache, below the commit of `revision`."""
        super().__init__(name)
        self.config, self.revision = config, revision
        self.directory = config.parent if Path(name).is_dir() else None
        self.entries = read_json(config)
        self.longest = next((own for key in LONGEST if isinstance(own := self.entries.get(key), int)), UNKNOWN_LONGEST)
        self.architectures = [str(own) for own in self.entries.get("architectures") or ()]
        self.capabilities = Capabilities(
            stages=False,
            deltas=False,
            growth=False,
            ensemble=False,
            trace=False,
            epistemic=reports_epistemic(self.architectures),
        )
        if ARCHITECTURE in self.architectures:
            raise CheckpointError(f"{config}: model_type is {self.entries.get('model_type')!r}, not 'tokenformer'")
        if self.directory is not None and not any(self.directory.glob("*.safetensors")):
            raise CheckpointError(f"{name}: has no *.safetensors; weights in other formats are not loaded")

    @property
    def served_name(self) -> str:
        return self.name if self.directory is None else self.directory.resolve().name

    @property
    def stored_dtype(self) -> str | None:
        return self.entries.get("dtype") or self.entries.get("torch_dtype")

    def check_tokenizer(self) -> None:
        if self.directory is not None and not any(any(self.directory.glob(name)) for name in TOKENIZERS):
            raise CheckpointError(
                f"{self.name}: tokenizer.json is missing; copy the tokenizer's files there, or name their directory by "
                "--tokenizer"
            )

    def check(self, args: Namespace) -> None:
        found = self._model_config(args)
        if found.runner_type != "generate" or found.is_encoder_decoder:
            raise CheckpointError(f"{self.name}: {self._architecture} does not generate text")
        if not args.skip_tokenizer_init and found.tokenizer_mode == "auto":
            self.tokenizer(args.tokenizer)
        reported = reports_epistemic(found.architectures) and args.pipeline_parallel_size == 1
        epistemic = reported and not args.speculative_config
        self.capabilities = replace(self.capabilities, epistemic=epistemic)

    @property
    def _architecture(self) -> str:
        return ", ".join(self.architectures) or "a model without `architectures`"

    def _model_config(self, args: Namespace) -> ModelConfig:
        """vLLM's configuration of the model; its refusals as CheckpointError."""
        from vllm.engine.arg_utils import EngineArgs

        try:
            found: ModelConfig = EngineArgs.from_cli_args(args).create_model_config()
            return found
        except Exception as error:  # vLLM and transformers raise many kinds
            reason = refusal(error)
            if "trust_remote_code" in reason or "custom code" in reason:
                reason = f"{self._architecture} needs code that lies beside the weights, which this server does not run"
            raise CheckpointError(f"{self.name}: {reason}") from error

    def cpu_dtype(self) -> str:
        """Products with quantised weights are computed in 16 bits."""
        return "bfloat16" if self.entries.get("quantization_config") else super().cpu_dtype()

    def settings(self, *, cpu: bool) -> dict[str, object]:
        """Texts alone are served: vLLM would fetch the images that a request names. On CPU, a context that does not fit
        into the KV cache is shortened."""
        return {"language_model_only": True} | ({"max_model_len": -1} if cpu else {})

    def weight_bytes(self, args: Namespace) -> int:
        """The weights of a directory count in the dtype that they are served in, those of the Hub as 0."""
        if self.directory is None:
            return 0
        stored = sum(file.stat().st_size for file in self.directory.glob("*.safetensors"))
        return 2 * stored if self.stored_dtype in ("bfloat16", "float16") and args.dtype == "float32" else stored

    def fingerprint(self, stage: int = -1) -> str:
        """SHA-256 (hex) of the configuration and the weight files; id and commit of a model on the Hub."""
        if self.directory is None:
            return f"{self.name}@{self.config.parent.name}"
        computing = {
            key: value for key, value in self.entries.items() if not key.startswith("_") and key not in PASSING
        }
        digest = hashlib.sha256(json.dumps(computing, sort_keys=True).encode())
        for file in sorted(self.directory.glob("*.safetensors")):
            digest.update(f"\n{file.name}\n".encode())
            with open_regular(file) as stream:
                hashlib.file_digest(cast(Any, stream), lambda: digest)  # whose type lacks a method
        return digest.hexdigest()

    def tokenizer(self, other: str | None = None) -> Any:
        """The model's own, or the one of the directory or Hub id `other`."""
        from transformers import AutoTokenizer

        revision = self.revision if other is None else None
        try:
            return AutoTokenizer.from_pretrained(other or self.name, revision=revision, trust_remote_code=False)
        except Exception as error:  # the tokenizers library raises plain Exception
            raise CheckpointError(f"{other or self.name}: has no tokenizer to load ({one_line(error)})") from error

    def cached_bytes(self, args: Namespace) -> int:
        found = self._model_config(args)
        heads = found.get_total_num_kv_heads() * found.get_head_size()
        dtype = cast(torch.dtype, found.dtype)
        return 2 * found.get_total_num_hidden_layers() * heads * dtype.itemsize
