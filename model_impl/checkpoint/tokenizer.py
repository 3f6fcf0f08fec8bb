"""The tokenizer files of a checkpoint, such that `AutoTokenizer` and vLLM load them.

A base model has no chat template, yet chat clients need one. Where the source has none, the checkpoint gets
`templates/default_chat_template.jinja`: system text first, then `User: ...` and `Assistant: ...` lines, and
`Assistant:` to continue. A base model does not know when its turn ends and writes the user's next one, so its
generation configuration gets `DEFAULT_STOP`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from model_impl.checkpoint.reading import CheckpointError, one_line, read_bytes, read_json
from model_impl.checkpoint.writing import as_json

TOKENIZER = "tokenizer.json"
TOKENIZER_CONFIG = "tokenizer_config.json"
CHAT_TEMPLATE = "chat_template.jinja"
DEFAULT_CHAT_TEMPLATE = Path(__file__).parent / "templates" / "default_chat_template.jinja"
DEFAULT_STOP = ["\nUser:"]
"""Where an answer after the default chat template ends, for a model that was trained on texts alone."""
NEOX_END_OF_TEXT = "<|endoftext|>"
"""End-of-text token of the GPT-NeoX-20B tokenizer, whose tokenizer.json does not say which token that is."""


@dataclass(frozen=True)
class TokenizerFiles:
    """`files` by name; `size` counts ids, the highest id plus one; `eos_token_id` is None where none is known; `stop`
    has the texts at which answers by the chat template end."""

    files: dict[str, bytes]
    size: int
    eos_token_id: int | None
    stop: Sequence[str] = ()


def find_tokenizer(source: Path) -> Path | None:
    """tokenizer.json beside the weights, if there is one."""
    file = (source if source.is_dir() else source.parent) / TOKENIZER
    return file if file.is_file() else None


def read_tokenizer(path: Path) -> TokenizerFiles:
    """The tokenizer at `path`, a tokenizer.json or a directory that holds one, with the settings beside it."""
    file = path / TOKENIZER if path.is_dir() else path
    content = read_bytes(file)
    try:
        tokenizer = Tokenizer.from_buffer(content)
    except Exception as error:  # the tokenizers library raises plain Exception
        raise CheckpointError(f"{file}: not a tokenizer.json ({one_line(error)})") from error
    beside = file.parent
    settings = _settings(beside, tokenizer)
    files = {TOKENIZER: content, TOKENIZER_CONFIG: as_json(settings)}
    stop: Sequence[str] = ()
    if (beside / CHAT_TEMPLATE).is_file():
        files[CHAT_TEMPLATE] = read_bytes(beside / CHAT_TEMPLATE)
    elif "chat_template" not in settings:
        files[CHAT_TEMPLATE], stop = DEFAULT_CHAT_TEMPLATE.read_bytes(), DEFAULT_STOP
    eos = settings.get("eos_token")
    size = max(tokenizer.get_vocab(with_added_tokens=True).values(), default=-1) + 1
    return TokenizerFiles(files, size, None if eos is None else tokenizer.token_to_id(_text(eos)), stop)


def _settings(directory: Path, tokenizer: Tokenizer) -> dict[str, Any]:
    """tokenizer_config.json of the source, completed; the generic class reads any tokenizer.json as it is."""
    settings: dict[str, Any] = {"tokenizer_class": "PreTrainedTokenizerFast", "clean_up_tokenization_spaces": False}
    for name in ("special_tokens_map.json", TOKENIZER_CONFIG):
        if (directory / name).is_file():
            settings |= read_json(directory / name)
    if "eos_token" not in settings and tokenizer.token_to_id(NEOX_END_OF_TEXT) is not None:
        settings["eos_token"] = NEOX_END_OF_TEXT
    return settings


def _text(token: Any) -> str:
    """A special token is stored as text, or as an object with its text as `content`."""
    return str(token["content"] if isinstance(token, dict) else token)
