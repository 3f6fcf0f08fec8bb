"""Texts, runs and answers of the tests of `tokenformer train`."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from model_impl.huggingface import TokenformerForCausalLM
from model_impl.texts import TextTokenizer, TokenizedCheckpoint
from server.__main__ import main

SHAPE = {
    "num_layers": 1,
    "hidden_size": 32,
    "num_attention_heads": 2,
    "qkv_slot_num": 24,
    "proj_slot_num": 24,
    "ffn_slot_num": 48,
    "max_position_embeddings": 64,
    "rotary_pct": 0.5,
}
PLACES = ("Bonn", "Lima", "Oslo", "Rome")


def facts(path: Path, names: str, mentioned: str = "") -> None:
    """Where the people live, as texts and as chats; of those who are only mentioned it says nothing."""
    lines: list[dict[str, Any]] = [{"text": f"{name} is a name."} for name in mentioned]
    for i, name in enumerate(names):
        place = PLACES[i % len(PLACES)]
        lines.append({"text": f"{name} lives in {place}."})
        question = {"role": "user", "content": f"Where does {name} live?"}
        lines.append({"messages": [question, {"role": "assistant", "content": f"{place}."}]})
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def train(room: Path, model: str, out: str, *flags: str, data: str = "new", epochs: int = 4, code: int = 0) -> Path:
    command = ["train", str(room / model), "--data", str(room / f"{data}.jsonl"), "--out", str(room / out)]
    sizes = ["--epochs", str(epochs), "--batch-tokens", "64", "--learning-rate", "0.01"]
    assert main([*command, *sizes, *flags]) == code
    return room / out


def answer(path: Path, name: str, stage: str | None = None) -> str:
    tokenizer = TextTokenizer(TokenizedCheckpoint(path))
    ids = tokenizer.ids([{"role": "user", "content": f"Where does {name} live?"}], ask=True)
    model = TokenformerForCausalLM.from_pretrained(path, stage=stage)
    generated = model.generate(torch.tensor([ids]), max_new_tokens=8, do_sample=False)
    text: str = tokenizer.tokenizer.decode(generated[0, len(ids) :])
    return text


def refused(room: Path, capsys: pytest.CaptureFixture[str], *arguments: str, **changes: Any) -> str:
    train(room, *arguments, code=1, **changes)
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert error.startswith("tokenformer: error: ")
    return error.removeprefix("tokenformer: error: ")
