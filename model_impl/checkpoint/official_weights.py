"""The weights of an official checkpoint, mapped from disk, under their plain official names.

Three kinds of file: `pytorch_model.bin` (a torch pickle, as the released models have), DeepSpeed's
`mp_rank_00_model_states.pt` (the weights are under the key `module`) and safetensors, single or sharded.
"""

from __future__ import annotations

import pickle
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import ZIP_STORED, ZipFile

import numpy as np
import torch

from model_impl.checkpoint.reading import (
    INDEX,
    WEIGHTS,
    CheckpointError,
    iterate_tensors,
    one_line,
    open_regular,
)
from model_impl.config import DTYPES

PICKLES = ("pytorch_model.bin", "mp_rank_00_model_states.pt")
MODEL_STATES = re.compile(r"mp_rank_(\d+)_model_states\.pt")
"""The weights of one model-parallel rank, as DeepSpeed names them."""

IGNORED_SUFFIX = ".attention.rotary_emb.inv_freq"
"""A buffer the official code may store; it follows from the configuration."""


def open_weights(source: Path) -> dict[str, torch.Tensor]:
    """Official name -> tensor of the weight file `source`, or of the one found in the directory `source`.

    The tensors are views of the mapped file: reading one costs its pages, which the system may drop again.
    Raises CheckpointError if there is no such file, or if it is damaged, holds code or holds anything but weights.
    """
    tensors: dict[str, torch.Tensor] = {}
    for stored_name, value in _read(_weight_file(source)).items():
        name = _plain_name(str(stored_name))
        if name.endswith(IGNORED_SUFFIX):
            continue
        if not isinstance(value, torch.Tensor):
            raise CheckpointError(f"{source}: {stored_name} is no tensor but {type(value).__name__}")
        if str(value.dtype).removeprefix("torch.") not in DTYPES:
            raise CheckpointError(f"{source}: {stored_name} is {value.dtype}; float32, float16 or bfloat16 is needed")
        if value.layout != torch.strided or value.is_meta or value.untyped_storage().nbytes() < value.nbytes:
            raise CheckpointError(f"{source}: {stored_name} does not hold all of its numbers")
        if name in tensors:
            raise CheckpointError(f"{source}: {name} is there twice, under different prefixes")
        tensors[name] = value
    if not tensors:
        raise CheckpointError(f"{source}: holds no tensors")
    return tensors


def _weight_file(source: Path) -> Path:
    """The file to read; a directory of safetensors shards stands for itself."""
    if source.is_file():
        return source
    if not source.is_dir():
        raise CheckpointError(f"{source}: no such file or directory")
    if (source / WEIGHTS).is_file() or (source / INDEX).is_file():
        return source
    for name in PICKLES:
        if (source / name).is_file():
            return source / name
    raise CheckpointError(f"{source}: holds none of {', '.join((WEIGHTS, INDEX, *PICKLES))}")


def _read(file: Path) -> Mapping[Any, Any]:
    if file.is_dir() or file.suffix == ".safetensors":
        return dict(iterate_tensors(file))
    if "zero_pp_rank_" in file.name:
        raise CheckpointError(f"{file}: one of several ZeRO parts; merge them first, with DeepSpeed's zero_to_fp32.py")
    content = _unpickle(file)
    _refuse_part(file, content.get("mp_world_size") if isinstance(content, Mapping) else None)
    if isinstance(content, Mapping) and "module" in content:
        content = content["module"]
        if content is None:
            raise CheckpointError(f"{file}: its `module` is empty: a pipeline-parallel checkpoint, merge it first")
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{file}: holds no state dict but {type(content).__name__}")
    return content


def _refuse_part(file: Path, parts: object) -> None:
    """Raise CheckpointError for a part of a model; `parts` says how many there are, where it is a number."""
    count, missing = parts if isinstance(parts, int) else 1, ""
    if MODEL_STATES.fullmatch(file.name):
        ranks = _ranks(file.parent)
        count = max(count, max(ranks) + 1)
        lost = count - len(ranks)
        if lost:
            first = f"mp_rank_{next(rank for rank in range(count) if rank not in ranks):02d}_model_states.pt"
            missing = f", of which {first} is missing" if lost == 1 else f", of which {lost} are missing, first {first}"
    if count > 1:
        raise CheckpointError(f"{file}: one of {count} model-parallel parts{missing}; merge them first")


def _ranks(directory: Path) -> dict[int, str]:
    """The model-parallel ranks whose weights lie in `directory`, with their files' names."""
    ranks: dict[int, str] = {}
    for name in sorted(file.name for file in directory.iterdir()):
        if match := MODEL_STATES.fullmatch(name):
            rank = int(match[1])
            if rank in ranks:
                raise CheckpointError(f"{directory}: {ranks[rank]} and {name} are the same model-parallel part")
            ranks[rank] = name
    return ranks


def _unpickle(file: Path) -> Any:
    """torch.load that runs no code from the file; only zip archives, which every torch since 1.6 writes, are mapped."""
    with open_regular(file) as stream:
        is_zip = stream.read(4) == b"PK\x03\x04"
    try:
        if is_zip:
            _check_archive(file)
        with torch.serialization.safe_globals(_numpy_data()):
            return torch.load(file, map_location="cpu", weights_only=True, mmap=is_zip)
    except pickle.UnpicklingError as error:
        named = re.search(r"GLOBAL (\S+)", str(error))
        why = f"it asks for {named[1]}" if named else "it is no torch file, or damaged"
        raise CheckpointError(f"{file}: refused, not a file of plain weights ({why})") from error
    except Exception as error:  # a damaged file fails anywhere inside torch.load
        raise CheckpointError(f"{file}: damaged torch file ({one_line(error)})") from error


def _check_archive(file: Path) -> None:
    """Raise ValueError for members that would take more memory than the file: torch compresses nothing."""
    with ZipFile(file) as archive:
        members = archive.infolist()
    if any(member.compress_type != ZIP_STORED for member in members):
        raise ValueError("a member is compressed")
    if sum(member.file_size for member in members) > file.stat().st_size:
        raise ValueError("its members overlap")


def _numpy_data() -> list[Any]:
    """The classes and functions of a pickled numpy array, by their names before and since numpy 2.

    DeepSpeed files of the official training code carry numpy's random state; arrays of numbers run no code.
    """
    builders: list[Any] = [np.empty(0).__reduce__()[0], np.float32(0).__reduce__()[0]]
    modules = ("numpy.core.multiarray", "numpy._core.multiarray")
    functions = [(builder, f"{module}.{builder.__name__}") for builder in builders for module in modules]
    return [*functions, np.ndarray, np.dtype, *(type(np.dtype(code)) for code in ("u4", "i8", "f4", "f8"))]


def _plain_name(name: str) -> str:
    """The name without the prefixes of wrappers, such as `module.`."""
    start = re.search(r"(?:^|\.)(sequential\..*)", name)
    return start[1] if start else name
