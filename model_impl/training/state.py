"""The state of a run, in a directory beside its destination, until it has finished."""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from model_impl.checkpoint.fingerprint import fingerprint
from model_impl.checkpoint.reading import CheckpointError, read_bytes, read_json
from model_impl.checkpoint.tokenizer import TOKENIZER, find_tokenizer
from model_impl.checkpoint.writing import as_json, failures_named, write_bytes
from model_impl.texts import Text
from model_impl.training.recipe import Recipe, TrainingError
from model_impl.training.task import Task

SETTINGS = "settings.json"

TextFile = tuple[Sequence[Text], str]
"""Texts and the SHA-256 of their file."""


class RunState:
    """The directory `OUT.training`: the run's settings, a new model's first checkpoint, the Trainer's checkpoints."""

    def __init__(self, task: Task, recipe: Recipe, texts: TextFile, replay: TextFile | None) -> None:
        out = task.out.absolute()
        self.path = out.with_name(f"{out.name}.training")
        self.made = False
        self.start = self.path / "start"
        self.task, self.recipe, self.texts, self.replay = task, recipe, texts, replay

    @cached_property
    def record(self) -> dict[str, Any]:
        """The inputs that decide the run's result."""
        return {
            "source": identity(self.task),
            "tokenizer": tokenizer_digest(self.task),
            "stage": self.task.stage,
            "data": described(self.texts),
            "replay": described(self.replay) if self.replay else None,
            "recipe": asdict(self.recipe),
        }

    def open(self, resume: bool) -> None:
        """Make the directory, or find that of the same run; raises TrainingError for that of another."""
        found = self.path.exists()
        if found and not resume:
            raise TrainingError(f"{self.path}: is the state of an interrupted run; --resume continues it, or remove it")
        if resume and not found:
            raise TrainingError(f"--resume: there is no interrupted run in {self.path}")
        if found:
            if read_json(self.path / SETTINGS) != self.record:
                raise TrainingError(
                    f"--resume: {self.path} is the state of a run with another model, other settings or texts"
                )
            self._remove_unfinished()
            return
        self.path.mkdir(parents=True)
        self.made = True
        with failures_named(self.path):
            write_bytes(self.path / SETTINGS, as_json(self.record))

    @contextmanager
    def removed_if_useless(self) -> Iterator[None]:
        """A run that fails within the block, before it could be resumed, leaves nothing behind that it has made."""
        try:
            yield
        except BaseException:
            if self.made:
                self._remove_unfinished()
                if not self._saved():
                    shutil.rmtree(self.path, ignore_errors=True)
            raise

    def _saved(self) -> list[Path]:
        return list(self.path.glob(f"{PREFIX_CHECKPOINT_DIR}-*"))

    def _remove_unfinished(self) -> None:
        """An interruption during a save leaves a directory without the file that the Trainer writes last."""
        for saved in self._saved():
            try:
                read_json(saved / TRAINER_STATE_NAME)
            except CheckpointError:
                shutil.rmtree(saved, ignore_errors=True)


def identity(task: Task) -> dict[str, str]:
    """The source by its content: the fingerprint of a checkpoint, the SHA-256 of a shape file.

    Raises CheckpointError for a checkpoint that lacks a tensor, which the loader would make up.
    """
    return {"name": task.source.name, "sha256": digest(task.source) if task.new else fingerprint(task.source)}


def tokenizer_digest(task: Task) -> str | None:
    """The SHA-256 of the tokenizer.json that the run reads, if it reads one."""
    if task.tokenizer is None:
        file = None if task.new else find_tokenizer(task.source)
    else:
        file = task.tokenizer / TOKENIZER if task.tokenizer.is_dir() else task.tokenizer
    return None if file is None else digest(file)


def digest(file: Path) -> str:
    return hashlib.sha256(read_bytes(file)).hexdigest()


def described(texts: TextFile) -> dict[str, Any]:
    return {"sha256": texts[1], "texts": len(texts[0])}
