"""The official (GPT-NeoX style) configuration, as a TokenformerConfig.

The official files name much that is not inference. A key that is left out has its official default. A value that this
implementation does not compute is refused. Token counts and embedding rows come from the tensors' shapes, because the
file has one number for query, key and value, and none for the padding.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml

from model_impl.checkpoint.reading import MAX_JSON_BYTES, MODULES, CheckpointError, Shapes, one_line, read_bytes
from model_impl.config import BOUNDS, PROJECTIONS, ConfigError, GrowthStage, TokenformerConfig

Number = TypeVar("Number", int, float)

MAX_YAML_BYTES = 1 << 20
"""The limit of a yml file: PyYAML reads a few hundred kilobytes a second."""

SUFFIXES = (".json", ".yml", ".yaml")

SUPPORTED: dict[str, tuple[object, ...]] = {
    "pos_emb": ("rotary",),
    "norm": ("layernorm", "layernorm_nonparam"),
    "final_norm": ("layernorm", None),
    "gpt_j_residual": (False, None),
    "use_bias_in_attn_linear": (False, None),
    "use_bias_in_norms": (True, None),
    "use_qk_layernorm": (False, None),
    "use_mup": (False, None),
    "apply_query_key_layer_scaling": (False, None),
    "sliding_window_width": (None,),
    "num_unique_layers": (None,),
}
"""Official keys that change what is computed, and the values this implementation computes; None: not in the file."""


class PlainLoader(yaml.SafeLoader):
    """YAML without aliases, by which a kilobyte can stand for more than fits in memory."""

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        if self.check_event(yaml.AliasEvent):
            raise yaml.YAMLError("aliases are not supported")
        return super().compose_node(parent, index)


def read_official_config(source: Path, given: Path | None = None) -> dict[str, Any]:
    """The official keys, dashes as underscores, of the file `given`, or of the one that lies beside the weights."""
    if given is not None:
        return _parse(given)
    directory = source if source.is_dir() else source.parent
    beside = [file for folder in (directory, directory / "configs") if folder.is_dir() for file in folder.iterdir()]
    configs = [file for file in sorted(beside) if file.suffix in SUFFIXES and file.stem != "tokenizer"]
    entries = {file: _parse(file) for file in configs}
    for file, values in entries.items():
        if values.get("model_type") == TokenformerConfig.model_type:
            raise CheckpointError(f"{file.parent}: is already a converted checkpoint")
    found = [file for file, values in entries.items() if "num_layers" in values]
    if len(found) != 1:
        names = ", ".join(file.name for file in found) or "none"
        raise CheckpointError(f"{directory}: one official config is needed, found {names}; name it with --config")
    return entries[found[0]]


def _parse(file: Path) -> dict[str, Any]:
    content = read_bytes(file, MAX_JSON_BYTES if file.suffix == ".json" else MAX_YAML_BYTES)
    try:
        values = json.loads(content) if file.suffix == ".json" else yaml.load(content, PlainLoader)
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise CheckpointError(f"{file}: neither yml nor json ({one_line(error)})") from error
    if not isinstance(values, dict):
        raise CheckpointError(f"{file}: holds no keys")
    return {str(key).replace("-", "_"): value for key, value in values.items()}


def config_from_official(
    official: Mapping[str, Any],
    shapes: Shapes,
    dtype: str,
    tokenizer_size: int | None = None,
    eos_token_id: int | None = None,
) -> TokenformerConfig:
    """The configuration of the official model with these keys and tensors.

    `tokenizer_size` is the number of ids the tokenizer has, used where the official keys have no `vocab_size`.
    Raises ConfigError for a key, CheckpointError for a tensor.
    """
    _check_supported(official)
    layers = _number(official, "num_layers", int)
    rows = _rows(shapes, "sequential.0.word_embeddings.weight")
    if official.get("padded_vocab_size", rows) != rows:
        raise ConfigError(f"padded_vocab_size: {official['padded_vocab_size']}, but the embedding has {rows} rows")
    seq_length = _number(official, "seq_length", int, 2048)
    return TokenformerConfig(
        vocab_size=_vocab_size(official, tokenizer_size, rows),
        padded_vocab_size=rows,
        hidden_size=_number(official, "hidden_size", int),
        num_hidden_layers=layers,
        num_attention_heads=_number(official, "num_attention_heads", int),
        max_position_embeddings=_number(official, "max_position_embeddings", int, seq_length),
        norm_activation_type=official.get("norm_activation_type", "l2_norm_gelu"),
        partial_rotary_factor=_number(official, "rotary_pct", float, 1.0),
        rope_theta=_number(official, "rotary_emb_base", float, 10000.0),
        layer_norm_eps=_number(official, "layernorm_epsilon", float, 1e-5),
        affine_block_norms=official.get("norm", "layernorm") == "layernorm",
        tie_word_embeddings=not official.get("no_weight_tying", False),
        eos_token_id=eos_token_id,
        growth_stages=[GrowthStage("base", _token_counts(shapes, layers)).to_dict()],
        dtype=dtype,
    )


SHAPE_DEFAULTS = {"pos_emb": "rotary", "rotary_pct": 0.25, "norm": "layernorm_nonparam"}
"""The keys of the released models that a shape may leave out, where the official defaults are others."""

SLOTS = {"query": "qkv", "key": "qkv", "value": "qkv", "output": "proj", "ffn": "ffn"}
"""Projection -> the beginning of the official key that counts its parameter tokens, `qkv_slot_num`."""

ROWS_MULTIPLE = 128
"""The embedding has a multiple of this many rows, as the official code pads it."""


def config_of_shape(official: Mapping[str, Any], tokenizer_size: int, eos_token_id: int | None) -> TokenformerConfig:
    """The configuration of a new model: token counts come from the official keys, as there are no tensors yet.

    The vocabulary is the tokenizer's, whatever the keys say of theirs.
    """
    official = SHAPE_DEFAULTS | {key: value for key, value in official.items() if "vocab_size" not in key}
    width, layers = (_number(official, key, int) for key in ("hidden_size", "num_layers"))
    counts = {MODULES[projection]: _number(official, f"{slot}_slot_num", int) for projection, slot in SLOTS.items()}
    if layers > BOUNDS["num_hidden_layers"]:
        raise ConfigError(f"num_layers: must be at most {BOUNDS['num_hidden_layers']}")
    rows = math.ceil(tokenizer_size / ROWS_MULTIPLE) * ROWS_MULTIPLE
    shapes = {"sequential.0.word_embeddings.weight": (rows, width)} | {
        f"sequential.{layer + 2}.{module}.key_param_tokens": (count, width)
        for layer in range(layers)
        for module, count in counts.items()
    }
    return config_from_official(official, shapes, "float32", tokenizer_size, eos_token_id)


def _check_supported(official: Mapping[str, Any]) -> None:
    absent = {"norm": "layernorm", "pos_emb": "learned"}  # the official defaults, where they matter
    for key, values in SUPPORTED.items():
        value = official.get(key, absent.get(key))
        if value not in values:
            known = " or ".join(str(known) for known in values if known is not None) or "left out"
            raise ConfigError(f"{key}: {value!r} is not supported, only {known}")
    heads = official.get("num_attention_heads")
    if official.get("num_kv_heads") not in (None, heads):
        raise ConfigError(f"num_kv_heads: only as many as num_attention_heads ({heads}) are supported")
    try:
        kinds = _flat(official.get("attention_config") or ["tokenformer"])
    except RecursionError as error:
        raise ConfigError("attention_config: is nested too deeply") from error
    if any(kind != "tokenformer" for kind in kinds if isinstance(kind, str)):
        raise ConfigError(f"attention_config: {official['attention_config']} names other layers than tokenformer")


def _flat(nested: Any) -> list[Any]:
    return [leaf for part in nested for leaf in _flat(part)] if isinstance(nested, list) else [nested]


def _number(official: Mapping[str, Any], key: str, kind: type[Number], default: Number | None = None) -> Number:
    value = official.get(key, default)
    if value is None:
        raise ConfigError(f"{key}: missing from the official config")
    try:
        number = kind(value)  # yml reads 1e-5 as text
        if number != float(value) or number <= 0:
            raise ValueError
    except (TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"{key}: {value!r} is no positive {kind.__name__}") from error
    return number


def _vocab_size(official: Mapping[str, Any], tokenizer_size: int | None, rows: int) -> int:
    """The number of the tokenizer's ids: the config's, else the tokenizer's; the other rows are padding."""
    if official.get("vocab_size") is None and tokenizer_size is None:
        raise ConfigError("vocab_size: not in the official config, so a tokenizer is needed; name it with --tokenizer")
    size = tokenizer_size if official.get("vocab_size") is None else _number(official, "vocab_size", int)
    assert size is not None
    if tokenizer_size is not None and tokenizer_size > size:
        raise ConfigError(f"vocab_size: {size}, but the tokenizer has {tokenizer_size} ids")
    if size > rows:
        raise ConfigError(f"vocab_size: {size} ids, but the embedding has {rows} rows")
    return size


def _token_counts(shapes: Shapes, layers: int) -> dict[str, int]:
    """Parameter tokens of each projection, which must be the same in every layer."""
    counts: dict[str, int] = {}
    for projection in PROJECTIONS:
        for layer in range(layers):
            count = _rows(shapes, f"sequential.{layer + 2}.{MODULES[projection]}.key_param_tokens")
            if count != counts.setdefault(projection, count):
                here = f"{counts[projection]} parameter tokens in layer 0, but {count} in layer {layer}"
                raise CheckpointError(f"{projection}: {here}")
    return counts


def _rows(shapes: Shapes, name: str) -> int:
    if name not in shapes:
        raise CheckpointError(f"tensor {name} is missing")
    if len(shapes[name]) != 2:
        raise CheckpointError(f"tensor {name} has shape {list(shapes[name])}, but is a matrix")
    return shapes[name][0]
