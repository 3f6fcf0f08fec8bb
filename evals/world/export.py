"""Write a finished run as a checkpoint directory that vLLM and transformers load."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from pathlib import Path

from evals.world.training import Run
from model_impl.checkpoint.writing import as_json, write_checkpoint
from model_impl.training.tokenizer import ENDS, tokenizer_files

GENERATION = {
    **ENDS,
    # The model answers greedily unless a request asks for samples.
    "do_sample": False,
    "temperature": 0.0,
}


def export(run: Run, texts: Mapping[str, str], directory: Path) -> None:
    """Replace `directory` by the run's checkpoint; `texts` are further files, by name."""
    new = directory.with_name(directory.name + ".new")
    shutil.rmtree(new, ignore_errors=True)
    files = tokenizer_files(run.tokenizer) | {"generation_config.json": as_json(GENERATION)}
    files |= {name: text.encode() for name, text in texts.items()}
    write_checkpoint(new, run.model.config, run.model.state_dict().items(), files)
    shutil.rmtree(directory, ignore_errors=True)
    new.rename(directory)
