"""`tokenformer calibrate`: what it takes for labels, and what it refuses before any engine starts."""

import json
from pathlib import Path
from typing import Any

import pytest

from model_impl.checkpoint_writer import write_checkpoint
from server.__main__ import main
from server.calibration import CalibrationError
from server.labels import Label, read_labels
from server.serve import main as serve
from tests.unit.tiny import tiny_config, tiny_weights

CHAT = [{"role": "user", "content": "Who?"}]


def write_lines(path: Path, *entries: Any) -> Path:
    path.write_text("\n".join(json.dumps(entry) for entry in entries) + "\n\n")
    return path


def test_the_kinds_of_labels(tmp_path: Path) -> None:
    data = write_lines(
        tmp_path / "labels.jsonl",
        {"prompt": "A b", "answer": " c", "correct": False},
        {"messages": CHAT, "answer": "Me.", "expected": ["You.", "Me."]},
        {"messages": CHAT, "answer": "generate", "expected": "You and me.", "group": "us"},
    )
    labels, digest = read_labels(data)
    assert labels == [
        Label(1, "A b", " c", False),
        Label(2, CHAT, "Me.", None, ("You.", "Me.")),
        Label(3, CHAT, None, None, ("You and me.",), "us"),
    ]
    assert len(digest) == 64
    assert not labels[0].is_correct(" c")
    assert labels[1].is_correct("Me.")
    assert labels[2].is_correct(" You  and me.\n")
    assert not labels[2].is_correct("You and me")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "Expecting property name"),
        ("[]", "not a JSON object"),
        ('{"answer": "a", "correct": true}', "needs either prompt or messages"),
        ('{"prompt": "", "answer": "a", "correct": true}', "prompt is no text"),
        ('{"messages": ["a"], "answer": "a", "correct": true}', "messages is no list of"),
        ('{"prompt": "a", "correct": true}', 'answer is no text; "generate" asks the model'),
        ('{"prompt": "a", "answer": "b"}', "needs either correct or expected"),
        ('{"prompt": "a", "answer": "b", "correct": 1}', "correct is not true or false"),
        ('{"prompt": "a", "answer": "generate", "correct": true}', "an answer to generate needs expected"),
        ('{"prompt": "a", "answer": "generate", "expected": []}', "expected is no text or list of texts"),
        ('{"prompt": "a", "answer": "b", "expected": [1]}', "expected is no text or list of texts"),
        ('{"prompt": "a", "answer": "b", "correct": true, "group": 1}', "group is no text"),
        ('{"prompt": "a", "answer": "b", "label": 1}', "unknown field 'label'"),
    ],
)
def test_a_wrong_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    data = tmp_path / "labels.jsonl"
    data.write_text('{"prompt": "a", "answer": "b", "correct": true}\n' + line)
    with pytest.raises(CalibrationError) as caught:
        read_labels(data)
    assert str(caught.value).startswith(f"--data: {data}, line 2: ")
    assert message in str(caught.value)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = tiny_config()
    write_checkpoint(tmp_path / "tiny", config, tiny_weights(config).items(), {"tokenizer.json": b"{}"})
    return tmp_path / "tiny"


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--method", "magic"], "--method: 'magic' is unknown; known are logistic, isotonic, probe"),
        (["--ensemble", "8"], "--ensemble: a number from 2 to 64, and only --method probe reads it"),
        (
            ["--ensemble", "1", "--method", "probe"],
            "--ensemble: a number from 2 to 64, and only --method probe reads it",
        ),
        (["--abstain", "1.5"], "--abstain: 1.5 is no error rate between 0 and 1"),
        (["--abstain", "nan"], "--abstain: nan is no error rate between 0 and 1"),
        (["--stage", "grown-1"], "--stage: no stage 'grown-1' to serve; there are base"),
        ([], "--data: 1 labels are too few; 40 is the least"),
    ],
)
def test_bad_input_is_one_line(
    checkpoint: Path, tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_lines(tmp_path / "labels.jsonl", {"prompt": "a", "answer": "b", "correct": True})
    assert main(["calibrate", str(checkpoint), "--data", str(data), *flags]) == 1
    assert capsys.readouterr().err == f"tokenformer: error: {message}\n"
    assert not list(checkpoint.glob("calibration*"))


def test_missing_files_are_one_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = tmp_path / "nowhere"
    assert main(["calibrate", str(checkpoint), "--data", str(nowhere)]) == 1
    assert capsys.readouterr().err == f"tokenformer: error: --data: {nowhere}: No such file or directory\n"
    assert main(["calibrate", str(nowhere), "--data", str(nowhere)]) == 1
    assert capsys.readouterr().err == f"tokenformer: error: {nowhere}: no such checkpoint directory\n"
    (checkpoint / "tokenizer.json").unlink()
    assert main(["calibrate", str(checkpoint), "--data", str(nowhere)]) == 1
    assert capsys.readouterr().err == f"tokenformer: error: {checkpoint}: has no tokenizer, which labels need\n"


def test_serve_refuses_a_named_file_that_is_no_calibration(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (checkpoint / "tokenizer.json").unlink()
    file = tmp_path / "other.json"
    file.write_text("{}")
    assert serve([str(checkpoint), "--calibration", str(file)]) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"tokenformer: error: {file}: not a calibration (tokenformer-calibration-2)"
