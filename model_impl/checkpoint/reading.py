"""Reading a checkpoint: a directory in the Hugging Face layout, its tensors under their official names.

    config.json              one TokenformerConfig, with `model_type`, `architectures` and `dtype`
    model.safetensors        or model-0000x-of-0000y.safetensors with model.safetensors.index.json
    generation_config.json   the end-of-text id
    tokenizer.json, tokenizer_config.json, chat_template.jinja

Every check here raises `CheckpointError` with one line that names the file, the key or the tensor.
"""

from __future__ import annotations

import json
import math
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, fields
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from safetensors import SafetensorError, safe_open

from model_impl.config import DTYPES, TokenformerConfig
from model_impl.one_line_error import OneLineError

if TYPE_CHECKING:
    import torch  # its import takes a second, which reading headers does not need

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
MODULES = {
    "query": "attention.query",
    "key": "attention.key",
    "value": "attention.value",
    "output": "attention.proj",
    "ffn": "mlp",
}
"""Official module name of each projection inside a block."""

DTYPE_CODES = {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}
"""The dtypes that a checkpoint may store, by the name safetensors gives them."""

MAX_JSON_BYTES = 100_000_000
"""The limit of a JSON file. safetensors has the same limit for a header."""

Shapes = Mapping[str, tuple[int, ...]]


class CheckpointError(OneLineError):
    """A checkpoint that cannot be read or written; the message is one line."""


@dataclass(frozen=True)
class StoredTensor:
    """The place of a tensor: bytes `start <= i < stop` of `file`."""

    file: Path
    dtype: str
    shape: tuple[int, ...]
    start: int
    stop: int


def load_config(path: str | Path) -> TokenformerConfig:
    """The configuration of the checkpoint directory `path`."""
    path = Path(path)
    if not path.is_dir():
        raise CheckpointError(f"{path}: no such checkpoint directory")
    file = path / "config.json"
    entries = read_json(file)
    if entries.get("model_type") != TokenformerConfig.model_type:
        found = entries.get("model_type")
        raise CheckpointError(f"{file}: model_type is {found!r}, not 'tokenformer' (use `tokenformer convert` first)")
    if "torch_dtype" in entries:  # what transformers before version 5 wrote
        entries.setdefault("dtype", entries["torch_dtype"])
    _check_types(file, entries)
    try:
        known = {field.name for field in fields(TokenformerConfig)}
        return TokenformerConfig(**{name: value for name, value in entries.items() if name in known})
    except Exception as error:  # whatever the checks raise for a value: the file is at fault, not the program
        raise CheckpointError(f"{file}: {one_line(error)}") from error


def _check_types(file: Path, entries: Mapping[str, Any]) -> None:
    """Raise CheckpointError for a value of another type: the configuration computes before it checks its values."""
    kinds: dict[Any, tuple[type, ...]] = {"int": (int,), "float": (int, float), "bool": (bool,), "str": (str,)}
    for field in fields(TokenformerConfig):
        name, annotation = field.name, field.type
        value: Any = entries.get(name)
        kind = kinds.get(annotation)
        if name not in entries or kind is None:
            continue
        if not isinstance(value, kind) or (isinstance(value, bool) and bool not in kind):
            raise CheckpointError(f"{file}: {name} is {value!r}, which is no {annotation}")
        if annotation == "int" and entries[name] < 1:
            raise CheckpointError(f"{file}: {name} is {value}, but must be at least 1")


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in `file`."""
    return parse_json(file, read_bytes(file))


def parse_json(file: Path, content: bytes) -> dict[str, Any]:
    """The JSON object that was read from `file`."""
    try:
        entries = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: not JSON ({one_line(error)})") from error
    if not isinstance(entries, dict):
        raise CheckpointError(f"{file}: not a JSON object")
    return entries


def open_regular(file: Path) -> BinaryIO:
    """Open a file that has an end: a FIFO would wait for a writer, and a device may go on for ever."""
    try:
        stream = os.fdopen(os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC), "rb")
    except (OSError, ValueError) as error:  # ValueError: a path with a zero byte
        raise CheckpointError(f"{file}: {getattr(error, 'strerror', None) or error}") from error
    if not stat.S_ISREG(os.fstat(stream.fileno()).st_mode):
        stream.close()
        raise CheckpointError(f"{file}: not a regular file")
    return stream


def read_bytes(file: Path, limit: int = MAX_JSON_BYTES) -> bytes:
    """The content of a regular file of at most `limit` bytes."""
    with open_regular(file) as stream:
        if os.fstat(stream.fileno()).st_size > limit:
            raise CheckpointError(f"{file}: larger than {limit:,} bytes")
        try:
            return stream.read(limit)
        except OSError as error:
            raise CheckpointError(f"{file}: {error.strerror}") from error


def one_line(error: Exception) -> str:
    """The first line of an error's message, or its kind if it has none."""
    lines = str(error).strip().splitlines()
    return lines[0].strip() if lines else type(error).__name__


def tensor_files(path: str | Path) -> list[Path]:
    """The safetensors files of a checkpoint directory, or `path` itself if it is a file."""
    path = Path(path)
    if path.is_file():
        return [path]
    if (path / WEIGHTS).is_file():
        return [path / WEIGHTS]
    if not (path / INDEX).is_file():
        raise CheckpointError(f"{path}: holds neither {WEIGHTS} nor {INDEX}")
    weight_map = read_json(path / INDEX).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{path / INDEX}: weight_map is missing")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if Path(name).name != name or not (path / name).is_file():
            raise CheckpointError(f"{path / INDEX}: names {name!r}, which is not in the directory")
    return [path / name for name in names]


def stored_tensors(path: str | Path) -> dict[str, StoredTensor]:
    """Every tensor of a checkpoint directory or safetensors file, from the headers alone."""
    tensors: dict[str, StoredTensor] = {}
    for file in tensor_files(path):
        for name, tensor in _header_of(file).items():
            if name in tensors:
                raise CheckpointError(f"{file}: {name} is also in {tensors[name].file.name}")
            tensors[name] = tensor
    return tensors


def tensor_shapes(path: str | Path) -> dict[str, tuple[int, ...]]:
    """Shape of every tensor of a checkpoint directory or safetensors file, from the headers alone."""
    return {name: tensor.shape for name, tensor in stored_tensors(path).items()}


def iterate_tensors(path: str | Path) -> Iterator[tuple[str, torch.Tensor]]:
    """(name, tensor) of a checkpoint directory or safetensors file; the tensors are views of the mapped files."""
    for file in tensor_files(path):
        names = list(_header_of(file))
        try:
            with safe_open(str(file), framework="pt") as opened:
                for name in names:
                    yield name, opened.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise CheckpointError(f"{file}: damaged safetensors file ({one_line(error)})") from error


def _header_of(file: Path) -> dict[str, StoredTensor]:
    with open_regular(file) as stream:
        return read_header(file, stream, os.fstat(stream.fileno()).st_size)


def read_header(file: Path, stream: BinaryIO, size: int) -> dict[str, StoredTensor]:
    """A safetensors file is 8 bytes of header length (little endian), a JSON header, and the tensors' bytes."""
    try:
        data = 8 + int.from_bytes(stream.read(8), "little")
        if data > size:
            raise ValueError("the header is cut off")
        if data > MAX_JSON_BYTES:
            raise ValueError(f"the header is larger than {MAX_JSON_BYTES:,} bytes")
        entries = json.loads(stream.read(data - 8))
        entries.pop("__metadata__", None)
        tensors = {name: _stored(file, data, name, entry) for name, entry in entries.items()}
        if any(t.stop - t.start != math.prod(t.shape) * DTYPES[t.dtype] for t in tensors.values()):
            raise ValueError("the header contradicts itself")
        spans = [(data, data), *sorted((tensor.start, tensor.stop) for tensor in tensors.values())]
        if any(stop != start for (_, stop), (start, _) in pairwise(spans)):
            raise ValueError("the tensors do not follow one another")
        if spans[-1][1] != size:
            raise ValueError(f"{size} bytes long, but its header describes {spans[-1][1]}")
    except OSError as error:
        raise CheckpointError(f"{file}: {error.strerror}") from error
    except CheckpointError as error:
        raise CheckpointError(f"{file}: {error}") from error
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError) as error:
        raise CheckpointError(f"{file}: damaged safetensors file ({one_line(error)})") from error
    return tensors


def _stored(file: Path, data: int, name: str, entry: Mapping[str, Any]) -> StoredTensor:
    """One entry of a header; `data` is where the tensors' bytes begin."""
    (start, stop), shape = entry["data_offsets"], entry["shape"]
    if not all(type(number) is int and number >= 0 for number in (start, stop, *shape)):
        raise ValueError("a shape or an offset is no whole number")
    if entry["dtype"] not in DTYPE_CODES:
        raise CheckpointError(f"{name} is stored as {entry['dtype']}; a checkpoint holds {', '.join(DTYPE_CODES)}")
    return StoredTensor(file, DTYPE_CODES[entry["dtype"]], tuple(shape), data + start, data + stop)


def expected_tensors(config: TokenformerConfig) -> dict[str, tuple[int, ...]]:
    """Official name and shape of every tensor that a model of this configuration has, in model order."""
    width, layers = config.hidden_size, config.num_hidden_layers
    shapes: dict[str, tuple[int, ...]] = {"sequential.0.word_embeddings.weight": (config.padded_vocab_size, width)}
    for block in (f"sequential.{i + 2}" for i in range(layers)):
        if config.affine_block_norms:
            shapes |= {f"{block}.input_layernorm.{kind}": (width,) for kind in ("weight", "bias")}
        for projection, module in MODULES.items():
            tokens = (config.token_count(projection), width)
            shapes |= {f"{block}.{module}.{kind}_param_tokens": tokens for kind in ("key", "value")}
        if config.affine_block_norms:
            shapes |= {f"{block}.post_attention_layernorm.{kind}": (width,) for kind in ("weight", "bias")}
    shapes |= {f"sequential.{layers + 3}.norm.{kind}": (width,) for kind in ("weight", "bias")}
    if not config.tie_word_embeddings:
        shapes[f"sequential.{layers + 4}.final_linear.weight"] = (config.padded_vocab_size, width)
    return shapes


def check_tensors(config: TokenformerConfig, shapes: Shapes) -> None:
    """Raise CheckpointError for the first tensor that is missing, surplus or wrongly shaped."""
    expected = expected_tensors(config)
    for name, shape in expected.items():
        if name not in shapes:
            raise CheckpointError(f"tensor {name} is missing")
        if tuple(shapes[name]) != shape:
            raise CheckpointError(f"tensor {name} has shape {list(shapes[name])}, not {list(shape)} as configured")
    for name in shapes:
        if name not in expected:
            raise CheckpointError(f"tensor {name} is surplus: the config describes no such tensor")


def check_values(config: TokenformerConfig, name: str, tensor: torch.Tensor) -> None:
    """Raise CheckpointError for values that no model can compute with; `name` and `tensor` are any of the checkpoint.

    These are NaN and infinities, and, with an L2 norm, a normalisation group whose key tokens are all zero: it would
    divide zero by zero.
    """
    check_finite(name, tensor)
    if config.norm_activation_type == "softmax" or not name.endswith(".key_param_tokens"):
        return
    projection = next(projection for projection, module in MODULES.items() if f".{module}.key_param_tokens" in name)
    for group in config.norm_groups(projection):
        if is_zero(tensor[group.start : group.stop]):
            raise CheckpointError(
                f"tensor {name}: key tokens {group.start} to {group.stop - 1} are all zero, "
                f"so {config.norm_activation_type} would divide zero by zero"
            )


def check_finite(name: str, tensor: torch.Tensor) -> None:
    """Raise CheckpointError for NaN and infinities."""
    if not all(map(math.isfinite, _bounds(tensor))):
        raise CheckpointError(f"tensor {name} holds NaN or infinities: the weights are damaged")


def is_zero(tensor: torch.Tensor) -> bool:
    """Whether all rows are zero; in most tensors the first one shows that they are not."""
    return not any(_bounds(tensor[:1])) and not any(_bounds(tensor))


def _bounds(tensor: torch.Tensor) -> tuple[float, float]:
    """Least and greatest value, NaN if there is one. `aminmax` reads gigabytes a second; `isfinite` does not."""
    if not tensor.numel():
        return 0.0, 0.0
    least, greatest = tensor.aminmax()
    return least.item(), greatest.item()
