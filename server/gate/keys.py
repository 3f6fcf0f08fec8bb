"""API keys: their sources, and the digests that are kept."""

from __future__ import annotations

import hashlib
import os
import re
import secrets
import stat
from collections.abc import Iterable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path

from model_impl.one_line_error import OneLineError

KEYS_VARIABLE = "TOKENFORMER_API_KEYS"
"""Keys separated by commas or line ends."""

VLLM_VARIABLE = "VLLM_API_KEY"
"""One key. vLLM's own check guards only a few prefixes of paths, so ours replaces it."""

VARIABLES = (KEYS_VARIABLE, VLLM_VARIABLE)

VISIBLE_ASCII = re.compile(r"[!-~]+")
"""Characters that pass an HTTP header unchanged."""


class ApiKeyError(OneLineError):
    """Keys that cannot be used; the message is one line, and shows none of them."""


@dataclass(frozen=True)
class ApiKeys:
    """SHA-256 digests of the accepted keys; the keys themselves are not kept."""

    salts: dict[bytes, str] = field(repr=False)
    """Digest -> random salt of the cache blocks of that key's requests."""

    @classmethod
    def of(cls, keys: Iterable[str]) -> ApiKeys:
        return cls({_digest(key): secrets.token_hex(16) for key in keys})

    def salt(self, key: str) -> str | None:
        """The cache salt of `key`, or None if it is not accepted. The time depends on the length of `key` only."""
        digest, found = _digest(key), None
        for known, salt in self.salts.items():
            if secrets.compare_digest(known, digest):
                found = salt  # no early return: the time must not tell which one it was
        return found


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


def take_keys(file: Path | None, environment: MutableMapping[str, str]) -> ApiKeys | None:
    """The keys of `file` and of the environment; the latter are removed, so that no child process inherits them.

    None without any source. Raises ApiKeyError for a source without keys, which would leave the server open against
    its operator's intention.
    """
    sources: list[tuple[str, list[str]]] = []
    if file is not None:
        sources.append((str(file), _lines(file)))
    if (listed := environment.pop(KEYS_VARIABLE, None)) is not None:
        sources.append((KEYS_VARIABLE, re.split(r"[,\n]", listed)))
    if (single := environment.pop(VLLM_VARIABLE, None)) is not None:
        sources.append((VLLM_VARIABLE, [single]))
    keys = [key for source, entries in sources for key in _keys(source, entries)]
    return ApiKeys.of(keys) if keys else None


def _keys(source: str, entries: Iterable[str]) -> Iterator[str]:
    """The entries that are keys; raises ApiKeyError if there is none, or one that no client could send."""
    found = False
    for number, entry in enumerate(entries, 1):
        key = entry.strip()
        if not key or key.startswith("#"):
            continue
        if not VISIBLE_ASCII.fullmatch(key):
            raise ApiKeyError(f"{source}: entry {number} is no API key, which has visible ASCII characters only")
        found = True
        yield key
    if not found:
        raise ApiKeyError(f"{source}: holds no API key")


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="utf-8").splitlines()
    except OSError as error:
        raise ApiKeyError(f"{file}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ApiKeyError(f"{file}: not a text file") from error


def readable_by_all(file: Path) -> bool:
    """Whether any user of the machine can read the keys, as is common for secrets mounted into containers."""
    return bool(os.stat(file).st_mode & stat.S_IROTH)
