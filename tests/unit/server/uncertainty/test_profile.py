"""Profiles: statistics of the reference model's internals on texts, in a file that belongs to one checkpoint."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from model_impl.checkpoint.fingerprint import fingerprint
from model_impl.reference.internals import internals
from model_impl.wire import INTERNALS
from server.__main__ import main
from server.process.fitted import profiles_of
from server.uncertainty.profile import ProfileError, load_profile
from tests.support.grown import grown_checkpoint, word_tokenizer

TEXTS = ["w1 w2 w3 w4 w5", "w9 w8", "w7 w7 w7 w1 w0", "w50 w60 w70", "w4"]


def write_texts(path: Path, lines: list[Any]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_mean_and_spread_over_all_positions(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = grown_checkpoint(tmp_path / "m", 2, files=word_tokenizer())
    data = write_texts(tmp_path / "texts.jsonl", [{"text": text} for text in TEXTS])
    assert main(["profile", str(tmp_path / "m"), "--data", str(data), "--stage", "base"]) == 0
    file = tmp_path / "m" / "profile-base.json"
    assert capsys.readouterr().out == f"{file}: stage base, 16 tokens of 5 texts\n"
    made = load_profile(file, model.config)
    assert (made.stage, made.checkpoint) == ("base", fingerprint(tmp_path / "m", 0))
    ids = [[int(word[1:]) for word in text.split()] for text in TEXTS]
    rows = np.concatenate([internals(model, torch.tensor([row]), 0)[0, ..., : len(INTERNALS)] for row in ids])
    np.testing.assert_allclose(np.array(made.mean), rows.mean(axis=0), rtol=1e-5)
    np.testing.assert_allclose(np.array(made.std), rows.std(axis=0), rtol=1e-4, atol=1e-6)


def test_only_that_of_these_weights_is_used(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    model = grown_checkpoint(tmp_path / "m", 2, files=word_tokenizer())
    data = write_texts(tmp_path / "texts.jsonl", [{"messages": [{"role": "user", "content": "w1"}]}])
    assert main(["profile", str(tmp_path / "m"), "--data", str(data)]) == 0
    assert main(["profile", str(tmp_path / "m"), "--data", str(data), "--stage", "base"]) == 0
    assert set(profiles_of(tmp_path / "m", model.config)) == {"base", "grown-1"}
    file = tmp_path / "m" / "profile.json"
    file.write_text(file.read_text().replace(fingerprint(tmp_path / "m"), "0" * 64))
    (tmp_path / "m" / "profile-base.json").write_text("{")
    assert profiles_of(tmp_path / "m", model.config) == {}
    said = capsys.readouterr().err
    assert "profile.json was made for another checkpoint or stage; it is not used" in said
    assert "profile-base.json: not JSON" in said


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"format": "something"}, "not a profile"),
        ({"mean": [[1.0]]}, r"mean\[0\]\[0\]: should be a valid list"),
        ({"mean": []}, "mean: has 0 layers, and the model 2"),
        ({"mean": [[[1.0] * 4] * 4] * 2}, r"mean\[0\]: List should have at least 5 items"),
        ({"mean": [[[math.inf] * 4] * 5] * 2}, r"mean\[0\]\[0\]\[0\]: should be a finite number"),
        ({"std": None}, "std: should be a valid list"),
        ({"format": "tokenformer-profile-0"}, "which another version made; make it anew by `tokenformer profile`"),
        ({"more": 1}, "more"),
    ],
)
def test_a_file_that_is_no_profile(changes: dict[str, Any], message: str, tmp_path: Path) -> None:
    model = grown_checkpoint(tmp_path / "m", 1, files=word_tokenizer())
    data = write_texts(tmp_path / "texts.jsonl", [{"text": "w1 w2"}])
    assert main(["profile", str(tmp_path / "m"), "--data", str(data)]) == 0
    file = tmp_path / "m" / "profile.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))
    with pytest.raises(ProfileError, match=message):
        load_profile(file, model.config)


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ([], "has no texts"),
        ([{"text": "w1"}, {"texts": "w1"}], "line 2: 'texts': unknown field"),
        ([{"text": "w1", "messages": []}], "line 1: messages: List should have at least 1 item"),
        ([{}], "line 1: needs either text or messages"),
        ([{"text": ""}], "line 1: text: String should have at least 1 character"),
        ([{"messages": [{"role": "user"}]}], "line 1: messages[0].content: is missing"),
        ([{"messages": [{"role": "user", "content": "\ud800"}]}], "line 1: messages[0].content: half of a surrogate"),
    ],
)
def test_texts_that_do_not_do(lines: list[Any], message: str, tmp_path: Path, capsys: Any) -> None:
    grown_checkpoint(tmp_path / "m", 1, files=word_tokenizer())
    data = write_texts(tmp_path / "texts.jsonl", lines)
    assert main(["profile", str(tmp_path / "m"), "--data", str(data)]) == 1
    assert message in capsys.readouterr().err


def test_messages_that_the_chat_template_refuses_are_named(tmp_path: Path, capsys: Any) -> None:
    files = word_tokenizer() | {"chat_template.jinja": b"{{ raise_exception('no ' ~ messages[0].role ~ ' here') }}"}
    grown_checkpoint(tmp_path / "m", 1, files=files)
    data = write_texts(tmp_path / "texts.jsonl", [{"text": "w1"}, {"messages": [{"role": "tool", "content": "w1"}]}])
    assert main(["profile", str(tmp_path / "m"), "--data", str(data)]) == 1
    said = f"tokenformer: error: {data}, line 2: messages: the chat template refuses them: no tool here\n"
    assert capsys.readouterr().err == said


def test_a_stage_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    grown_checkpoint(tmp_path / "m", 2, files=word_tokenizer())
    data = write_texts(tmp_path / "texts.jsonl", [{"text": "w1 w2"}])
    assert main(["profile", str(tmp_path / "m"), "--data", str(data), "--stage", "late"]) == 1
    assert "--stage: no stage 'late' to serve; there are base, grown-1" in capsys.readouterr().err
