"""One server for all tests of this folder."""

from __future__ import annotations

import json
import random
import subprocess
from collections.abc import Iterator
from pathlib import Path
from string import ascii_letters
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from server.uncertainty.calibration import load_calibration
from tests.stock.served import Stock
from tests.support.servers import command_line, started
from tests.support.stock import write_stock_model


def labels(model: PreTrainedModel, words: PreTrainedTokenizerFast) -> Iterator[dict[str, Any]]:
    """Prompts whose likeliest answer, of letters, is right and whose random answer is wrong."""
    draw, letters = random.Random(1), words.encode(ascii_letters)
    for _ in range(60):
        prompt = "".join(draw.choices(ascii_letters, k=draw.randrange(4, 20)))
        length, ids = draw.randrange(2, 6), words.encode(prompt)
        for _ in range(length):
            logits = model(torch.tensor([ids])).logits[0, -1]
            ids.append(max(letters, key=lambda i: float(logits[i])))
        likeliest = words.decode(ids)[len(prompt) :]
        yield {"prompt": prompt, "answer": likeliest, "correct": True}
        yield {"prompt": prompt, "answer": "".join(draw.choices(ascii_letters, k=length)), "correct": False}


@pytest.fixture(scope="package")
def stock(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stock]:
    root: Path = tmp_path_factory.mktemp("stock")
    model = write_stock_model(root / "llama", "llama")
    words = PreTrainedTokenizerFast.from_pretrained(root / "llama")
    (root / "labels.jsonl").write_text("".join(f"{json.dumps(label)}\n" for label in labels(model, words)))
    command = command_line("calibrate", root / "llama", "--data", root / "labels.jsonl", "--method", "probe")
    calibrated = subprocess.run(command, capture_output=True, text=True)
    assert calibrated.returncode == 0, calibrated.stderr[-4000:]
    flags = ["--served-model-name", "stock", "--dtype", "float32"]
    with started(root / "llama", root / "log", flags, "stock") as server:
        made = load_calibration(root / "llama" / "calibration.json")
        yield Stock(server, model, words, made, calibrated.stdout + calibrated.stderr)
