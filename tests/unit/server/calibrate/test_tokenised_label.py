"""Faults of labels that only a tokenizer and a chat template show are reported before any engine starts."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from model_impl.checkpoint.writing import write_checkpoint
from model_impl.json_lines import LinesError
from model_impl.texts import TextTokenizer
from server.__main__ import main
from server.calibrate.labels import Label, LabelFile
from server.calibrate.tokenised_label import TokenisedLabel, tokenised_label
from server.served.opening import open_model
from tests.support.grown import word_tokenizer
from tests.support.tiny import tiny_config, tiny_weights

LIMIT = 10
TURNS = (
    "{% for message in messages %}{% if loop.previtem and loop.previtem.role == message.role %}"
    "{{ raise_exception('roles must alternate\nbut do not') }}{% endif %}{{ message.content }} {% endfor %}"
)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """Every word is a token, of which the model takes 10; w9 ends an answer; roles of messages must alternate."""
    config = tiny_config(vocab_size=100, padded_vocab_size=128, max_position_embeddings=LIMIT)
    files = word_tokenizer() | {"chat_template.jinja": TURNS.encode()}
    settings = json.loads(files["tokenizer_config.json"]) | {"eos_token": "w9"}
    files["tokenizer_config.json"] = json.dumps(settings).encode()
    write_checkpoint(tmp_path / "m", config, tiny_weights(config).items(), files)
    return tmp_path / "m"


def user(*contents: str) -> list[dict[str, str]]:
    return [{"role": "user", "content": content} for content in contents]


GOOD = [{"prompt": f"w{i}", "answer": "w1", "correct": i % 2 == 0} for i in range(80)]


def run(checkpoint: Path, line: dict[str, Any], monkeypatch: pytest.MonkeyPatch, *flags: object) -> int:
    """The command on labels with `line` as the third; an engine cannot start."""
    monkeypatch.setitem(sys.modules, "server.calibrate.scoring", None)
    data = checkpoint.parent / "labels.jsonl"
    data.write_text("".join(json.dumps(entry) + "\n" for entry in (*GOOD[:2], line, *GOOD[2:])))
    return main(["calibrate", str(checkpoint), "--data", str(data), *map(str, flags)])


def words(count: int) -> str:
    return " ".join(["w1"] * count)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        (
            {"messages": user("w1", "w2"), "answer": "w3"},
            "messages: the chat template refuses them: roles must alternate",
        ),
        ({"prompt": " ", "answer": "w3"}, "prompt: the tokenizer makes no token of it"),
        ({"messages": user(""), "answer": "w3"}, "messages: the tokenizer makes no token of it"),
        ({"prompt": "w1", "answer": " "}, "answer: the tokenizer makes no token of it"),
        (
            {"prompt": words(5), "answer": words(5)},
            "prompt and answer: too long with 5 and 5 tokens: both and one token more must fit into 10",
        ),
        (
            {"messages": user(words(5)), "answer": words(4)},
            "messages and answer: too long with 5 and 5 tokens: both and one token more must fit into 10",
        ),
    ],
)
def test_a_label_that_the_model_cannot_read_is_named(
    line: dict[str, Any],
    message: str,
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert run(checkpoint, line | {"correct": True}, monkeypatch) == 1
    data = checkpoint.parent / "labels.jsonl"
    assert capsys.readouterr().err == f"tokenformer: error: --data: {data}, line 3: {message}\n"
    assert not list(checkpoint.glob("calibration*"))


def test_a_tokenizer_that_takes_less_than_the_model_sets_the_limit(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    file = checkpoint / "tokenizer_config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"model_max_length": 3}))
    assert run(checkpoint, {"prompt": "w1 w2", "answer": "w3", "correct": True}, monkeypatch) == 1
    assert capsys.readouterr().err.endswith("both and one token more must fit into 3\n")


def test_a_broken_tokenizer_and_a_place_that_is_no_directory_are_one_line(
    checkpoint: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    data = checkpoint.parent / "labels.jsonl"
    assert run(checkpoint, GOOD[0], monkeypatch, "--out", data) == 1
    assert capsys.readouterr().err == f"tokenformer: error: [Errno 17] File exists: '{data}'\n"
    (checkpoint / "tokenizer.json").write_text("{}")
    assert run(checkpoint, GOOD[0], monkeypatch) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"tokenformer: error: {checkpoint / 'tokenizer.json'}: cannot be loaded (")
    assert said.count("\n") == 1


def test_labels_become_what_the_engine_is_asked(checkpoint: Path) -> None:
    """An answer of a chat ends with the end-of-text token; one to generate has what the others leave as room."""
    tokenizer = TextTokenizer(open_model(str(checkpoint)))
    plain, chat = Label(1, "w1 w2", "w3", True), Label(2, user("w4"), "w5", True)
    asking = Label(3, "w6", None, None, ("w7",))
    file = LabelFile(Path("labels"), [plain, chat, asking], "0")
    assert [tokenised_label(file, label, tokenizer, LIMIT) for label in file.labels] == [
        TokenisedLabel(plain, [1, 2], [3], 7),
        TokenisedLabel(chat, [4], [5, 9], 7),
        TokenisedLabel(asking, [6], [], 9),
    ]
    with pytest.raises(LinesError, match="prompt and answer: too long with 9 and 1 tokens"):
        tokenised_label(file, Label(4, words(9), "w1", True), tokenizer, LIMIT)
    assert tokenised_label(file, Label(4, words(9), None, None, ("w1",)), tokenizer, LIMIT).room == 1
