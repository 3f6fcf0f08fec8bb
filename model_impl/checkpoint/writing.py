"""Writing a checkpoint directory: streamed, in shards, and all or nothing."""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import fields
from pathlib import Path
from typing import IO, Any

import torch
from tqdm import tqdm

from model_impl.checkpoint.reading import DTYPE_CODES, INDEX, WEIGHTS, CheckpointError, check_values, expected_tensors
from model_impl.config import DTYPES, TokenformerConfig

GENERATION = "generation_config.json"
WRITERS = ("(os error ", "PytorchStreamWriter")
"""Signs of failed writing in errors of libraries in Rust (safetensors, tokenizers), and of torch.save."""

SHARD_BYTES = 5 * 10**9
"""Weights above this size are split; the Hugging Face convention."""


def write_checkpoint(
    dest: str | Path,
    config: TokenformerConfig,
    tensors: Iterable[tuple[str, torch.Tensor]],
    files: Mapping[str, bytes],
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the model `config` describes to the directory `dest`, which must be new or empty.

    `tensors` gives (official name, tensor) in any order; each is written and released before the next is taken.
    `files` are the other files by name: tokenizer, chat template. Raises CheckpointError for a tensor that is
    missing, surplus, of another shape or dtype than `config` says, or has all-zero keys. `dest` appears complete
    or not at all.
    """
    dest = Path(dest)
    with all_or_nothing(dest) as partial:
        _write_tensors(partial, config, tensors, shard_bytes)
        texts = {"config.json": config_entries(config), GENERATION: generation_entries(config)}
        for name, entries in texts.items():
            write_bytes(partial / name, as_json(entries))
        for name, content in files.items():
            write_bytes(partial / name, content)


def check_destination(dest: Path) -> None:
    """Raise CheckpointError unless `dest` can be written without losing anything."""
    if dest.exists() and not dest.is_dir():
        raise CheckpointError(f"{dest}: exists and is not a directory")
    if dest.is_dir() and any(dest.iterdir()):
        raise CheckpointError(f"{dest}: is not empty; name a new or empty directory, or remove it")


def config_entries(config: TokenformerConfig) -> dict[str, Any]:
    """config.json with every field, also defaults, so that a reader needs no knowledge of ours."""
    return {
        "architectures": ["TokenformerForCausalLM"],
        "model_type": config.model_type,
        **{field.name: getattr(config, field.name) for field in fields(TokenformerConfig)},
        "growth_stages": [stage.to_dict() for stage in config.stages],
    }


def as_json(entries: Mapping[str, Any]) -> bytes:
    return (json.dumps(entries, indent=2, ensure_ascii=False) + "\n").encode()


def generation_entries(config: TokenformerConfig) -> dict[str, Any]:
    """generation_config.json of a model about which nothing else is known."""
    ids = {"bos_token_id": config.bos_token_id, "eos_token_id": config.eos_token_id}
    return {name: value for name, value in ids.items() if value is not None}


@contextmanager
def all_or_nothing(dest: Path) -> Iterator[Path]:
    """A sibling directory that becomes `dest` in one rename, or is removed. Only kill -9 can leave it behind."""
    check_destination(dest)
    parent = dest.absolute().parent
    parent.mkdir(parents=True, exist_ok=True)
    partial = Path(tempfile.mkdtemp(prefix=f".{dest.name}.partial-", dir=parent))
    try:
        with failures_named(dest):
            partial.chmod(0o755)  # mkdtemp gives 0700, but a checkpoint is no secret
            yield partial
            _sync_directory(partial)
            partial.rename(dest.absolute())
            _sync_directory(parent)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise


@contextmanager
def failures_named(path: Path) -> Iterator[None]:
    """A failure to write within the block names `path`: where a disk is full the system names no file, and libraries
    raise errors of their own."""
    try:
        yield
    except OSError as error:
        if error.errno and error.filename is None:
            error.filename = str(path)
        raise
    except CheckpointError:
        raise  # it has named its file
    except Exception as error:
        if any(sign in str(error) for sign in WRITERS):
            raise CheckpointError(f"{path}: cannot be written: {error}") from error
        raise


def _write_tensors(
    directory: Path, config: TokenformerConfig, tensors: Iterable[tuple[str, torch.Tensor]], shard_bytes: int
) -> None:
    shapes, dtype = expected_tensors(config), _dtype(config)
    sizes = {name: math.prod(shape) * dtype.itemsize for name, shape in shapes.items()}
    shards = _shards(sizes, shard_bytes)
    file_names = [WEIGHTS] if len(shards) == 1 else [_shard_name(i + 1, len(shards)) for i in range(len(shards))]
    with ExitStack() as stack, _progress(sum(sizes.values())) as progress:
        places: dict[str, tuple[IO[bytes], int]] = {}
        for file_name, names in zip(file_names, shards, strict=True):
            stream: IO[bytes] = stack.enter_context((directory / file_name).open("wb"))
            position = stream.write(_header({name: shapes[name] for name in names}, dtype))
            for name in names:
                places[name] = (stream, position)
                position += sizes[name]
        streams = [places[names[0]][0] for names in shards]
        for name, tensor in tensors:
            if name not in places:
                raise CheckpointError(f"tensor {name} is surplus or came twice")
            if tuple(tensor.shape) != shapes[name]:
                raise CheckpointError(f"tensor {name} has shape {list(tensor.shape)}, not {list(shapes[name])}")
            if tensor.dtype != dtype:
                raise CheckpointError(f"tensor {name} is {tensor.dtype}, but a checkpoint has one dtype, here {dtype}")
            check_values(config, name, tensor)
            stream, position = places.pop(name)
            stream.seek(position)
            stream.write(tensor.detach().contiguous().view(-1).view(torch.uint8).numpy().data)
            progress.update(sizes[name])
            del tensor  # the loop variable would hold it while the next one is made
        if places:
            raise CheckpointError(f"tensor {next(iter(places))} is missing")
        for stream in streams:
            stream.flush()
            os.fsync(stream.fileno())
    if len(shards) > 1:
        weight_map = {name: file for file, names in zip(file_names, shards, strict=True) for name in names}
        index = {"metadata": {"total_size": sum(sizes.values())}, "weight_map": weight_map}
        write_bytes(directory / INDEX, as_json(index))


def _dtype(config: TokenformerConfig) -> torch.dtype:
    if config.dtype not in DTYPES:
        raise CheckpointError(f"dtype {config.dtype}: a checkpoint holds {', '.join(DTYPES)}")
    dtype: torch.dtype = getattr(torch, config.dtype)
    return dtype


def _shards(sizes: Mapping[str, int], shard_bytes: int) -> list[list[str]]:
    """Names in model order, cut where the next tensor would pass `shard_bytes`."""
    shards: list[list[str]] = [[]]
    filled = 0
    for name, size in sizes.items():
        if shards[-1] and filled + size > shard_bytes:
            shards.append([])
            filled = 0
        shards[-1].append(name)
        filled += size
    return shards


def _shard_name(number: int, count: int) -> str:
    return f"model-{number:05d}-of-{count:05d}.safetensors"


def _header(shapes: Mapping[str, tuple[int, ...]], dtype: torch.dtype) -> bytes:
    """The safetensors header, by hand: the library's own writer wants every tensor of a file in memory at once."""
    code = next(code for code, name in DTYPE_CODES.items() if name == str(dtype).removeprefix("torch."))
    entries: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    position = 0
    for name, shape in shapes.items():
        size = math.prod(shape) * dtype.itemsize
        entries[name] = {"dtype": code, "shape": list(shape), "data_offsets": [position, position + size]}
        position += size
    text = json.dumps(entries, separators=(",", ":")).encode()
    text += b" " * (-len(text) % 8)  # so that the tensors start aligned
    return len(text).to_bytes(8, "little") + text


def _progress(total: int) -> tqdm[Any]:
    """A bar on a terminal, a line every five seconds elsewhere; nothing for work of a second."""
    interval = 0.1 if sys.stderr.isatty() else 5.0
    return tqdm(total=total, desc="writing", unit="B", unit_scale=True, mininterval=interval, delay=1, leave=False)


def write_bytes(file: Path, content: bytes) -> None:
    with file.open("wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())


def replace_file(file: Path, content: bytes) -> None:
    """Write `file` so that nobody ever reads half of it."""
    part = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with failures_named(file):
            write_bytes(part, content)
            part.replace(file)
    finally:
        part.unlink(missing_ok=True)


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
