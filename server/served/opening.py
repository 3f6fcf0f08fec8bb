"""From what the user names to the model."""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path

from model_impl.checkpoint.reading import CheckpointError, one_line, read_json
from model_impl.config import TokenformerConfig
from server.served.model import ServedModel
from server.served.stock import StockModel
from server.served.tokenformer import TokenformerCheckpoint

CONFIG = "config.json"
HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
PICKLES, YAMLS = (".bin", ".pt", ".pth"), (".yml", ".yaml")
"""How the files of an official Tokenformer checkpoint end."""


def open_model(name: str, revision: str | None = None, token: str | bool | None = None) -> ServedModel:
    """The model in a directory, or the one that the Hub has under an id, for which it may want a token.

    Raises CheckpointError.
    """
    path = Path(name)
    if path.is_dir():
        if (path / CONFIG).is_file() and read_json(path / CONFIG).get("model_type") != TokenformerConfig.model_type:
            return StockModel(name, path / CONFIG)
        if not (path / CONFIG).is_file() and is_official(file.name for file in path.iterdir()):
            raise CheckpointError(
                f"{name}: is an official Tokenformer checkpoint; convert it first: "
                f"tokenformer convert {name} {name.rstrip('/')}-converted"
            )
        return TokenformerCheckpoint(name)
    if not is_hub_id(name):
        raise CheckpointError(f"{name}: no such checkpoint directory")
    config = hub_config(name, revision, token)
    if read_json(config).get("model_type") == TokenformerConfig.model_type:
        local = name.partition("/")[2]
        raise CheckpointError(
            f"{name}: Tokenformers are served from a directory; fetch it first: hf download {name} --local-dir {local}"
        )
    return StockModel(name, config, config.parent.name)


def is_hub_id(name: str) -> bool:
    """Whether the name is an id of the Hub, and no path of this machine, as it is or mistyped."""
    path = Path(name)
    return HUB_ID.fullmatch(name) is not None and not (path.exists() or path.parent.exists())


def hub_config(name: str, revision: str | None, token: str | bool | None) -> Path:
    """The config.json of a Hub id, in the library's cache below its commit."""
    from huggingface_hub import hf_hub_download, list_repo_files
    from huggingface_hub.errors import RemoteEntryNotFoundError
    from huggingface_hub.utils.logging import set_verbosity_error

    set_verbosity_error()  # it warns of each of six attempts
    try:
        try:
            return Path(hf_hub_download(name, CONFIG, revision=revision, token=token))
        except RemoteEntryNotFoundError:
            if not is_official(list_repo_files(name, revision=revision, token=token)):
                raise
    except Exception as error:  # offline, unknown, gated, or whatever a network does
        reason = one_line(error)
        raise CheckpointError(f"{name}: no such directory, and not to be had from the Hub ({reason})") from error
    local = name.partition("/")[2]
    raise CheckpointError(
        f"{name}: is an official Tokenformer checkpoint; fetch and convert it first: "
        f"hf download {name} --local-dir {local} && tokenformer convert {local} {local}-converted"
    )


def is_official(files: Iterable[str]) -> bool:
    """Whether a directory with these files is an official Tokenformer checkpoint: a pickle and a yml configuration."""
    names = list(files)
    return any(name.endswith(PICKLES) for name in names) and any(name.endswith(YAMLS) for name in names)
