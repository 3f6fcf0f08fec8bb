"""`tokenformer calibrate`: accepted labels, and refusals before any engine starts."""

import hashlib
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from model_impl.checkpoint.writing import write_checkpoint
from model_impl.json_lines import LinesError
from server.__main__ import main
from server.calibrate.labels import Label, read_labels
from server.process.early_signals import EarlySignals
from server.process.serve import main as serve
from tests.support.paths import ROOT
from tests.support.tiny import tiny_config, tiny_weights

CHAT = [{"role": "user", "content": "Who?"}]


def write_lines(path: Path, *entries: Any) -> Path:
    path.write_text("\n".join(json.dumps(entry) for entry in entries) + "\n\n")
    return path


def test_the_kinds_of_labels(tmp_path: Path) -> None:
    data = write_lines(
        tmp_path / "labels.jsonl",
        {"prompt": "A b", "answer": " c", "correct": False, "topic": "letters"},
        {"messages": CHAT, "answer": "Me.", "expected": ["You.", "Me."]},
        {"prompt": None, "messages": CHAT, "answer": "generate", "expected": "You and me.", "group": "us"},
        {"prompt": "A b", "answer": " c. D.", "sentences": [True, False]},
    )
    found = read_labels(data)
    labels = found.labels
    assert labels == [
        Label(1, "A b", " c", False, topic="letters"),
        Label(2, CHAT, "Me.", None, ("You.", "Me.")),
        Label(3, CHAT, None, None, ("You and me.",), "us"),
        Label(4, "A b", " c. D.", True, sentence=0),
        Label(4, "A b", " c. D.", False, sentence=1),
    ]
    assert found.sha256 == hashlib.sha256(data.read_bytes()).hexdigest()
    assert not labels[0].is_correct(" c")
    assert labels[1].is_correct("Me.")
    assert labels[2].is_correct(" You  and me.\n")
    assert not labels[2].is_correct("You and me")


GOOD = '{"prompt": "a", "answer": "b", "correct": true}'


SENTENCES = '{{"prompt": "a", "answer": "She is. He is.", "sentences": {}}}'


def with_field(field: str) -> str:
    return GOOD[:-1] + f", {field}}}"


def said_by(line: str) -> str:
    return '{"messages": [{"role": "user", ' + line + '}], "answer": "a", "correct": true}'


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{", "not JSON: Expecting property name enclosed in double quotes at column 2"),
        ("[]", "not a JSON object"),
        ("null", "not a JSON object"),
        ("[" * 9999, "not read: nested too deeply"),
        ('{"prompt": ' + '{"a":' * 9999 + "1" + "}" * 10000, "not read: nested too deeply"),
        ('{"answer": "a", "correct": true}', "needs either prompt or messages"),
        (with_field(f'"messages": {json.dumps(CHAT)}'), "needs either prompt or messages"),
        ('{"prompt": "", "answer": "a", "correct": true}', "prompt: String should have at least 1 character"),
        ('{"messages": [], "answer": "a", "correct": true}', "messages: List should have at least 1 item"),
        ('{"messages": ["a"], "answer": "a", "correct": true}', "messages[0]: should be a valid dictionary"),
        (said_by('"content": null'), "messages[0].content: should be a valid string"),
        (said_by('"content": [{"type": "text", "text": "a"}]'), "messages[0].content: should be a valid string"),
        (said_by('"text": "a"'), "messages[0].content: is missing"),
        (said_by('"content": "a", "name": "b"'), "messages[0].'name': unknown field"),
        (said_by('"content": "a \\ud83d b"'), "messages[0].content: half of a surrogate pair at character 2"),
        ('{"prompt": "a", "correct": true}', "answer: is missing"),
        ('{"prompt": "a", "answer": "", "correct": true}', "answer: String should have at least 1 character"),
        ('{"prompt": "a", "answer": null, "correct": true}', "answer: should be a valid string"),
        ('{"prompt": "a", "answer": "\\udc00", "correct": true}', "answer: should be a valid string, unable to parse"),
        ('{"prompt": "a", "answer": "b"}', "needs one of correct, expected and sentences"),
        ('{"prompt": "a", "answer": "b", "correct": 1}', "correct: should be a valid boolean"),
        ('{"prompt": "a", "answer": "b", "correct": "true"}', "correct: should be a valid boolean"),
        ('{"prompt": "a", "answer": "b", "correct": NaN}', "correct: should be a valid boolean"),
        ('{"prompt": "a", "answer": "b", "correct": -Infinity}', "correct: should be a valid boolean"),
        ('{"prompt": "a", "answer": "b", "correct": 1e999}', "correct: should be a valid boolean"),
        (f'{{"prompt": {"9" * 9999}, "answer": "b", "correct": true}}', "prompt: should be a valid string"),
        ('{"prompt": "a", "answer": "generate", "correct": true}', "an answer to generate needs expected"),
        ('{"prompt": "a", "answer": "generate", "expected": []}', "expected: Value should have at least 1 item"),
        ('{"prompt": "a", "answer": "b", "expected": [1]}', "expected[0]: should be a valid string"),
        ('{"prompt": "a", "answer": "b", "expected": ""}', "expected[0]: String should have at least 1 character"),
        ('{"prompt": "a", "answer": "b", "expected": {}}', "expected: should be a valid list"),
        (with_field('"expected": ["b"]'), "needs one of correct, expected and sentences"),
        (with_field('"sentences": [true]'), "needs one of correct, expected and sentences"),
        (SENTENCES.format("[]"), "sentences: there are 0, and the answer has 2"),
        (SENTENCES.format("[true, true, false]"), "sentences: there are 3, and the answer has 2"),
        (SENTENCES.format("[true, 0]"), "sentences[1]: should be a valid boolean"),
        ('{"prompt": "a", "answer": "generate", "sentences": [true]}', "an answer to generate needs expected"),
        (with_field('"group": 1'), "group: should be a valid string"),
        (with_field('"topic": ["a"]'), "topic: should be a valid string"),
        (with_field('"label": 1'), "'label': unknown field"),
        (with_field(f'"two\\nlines{"s" * 99}": 1'), "'two\\nlines" + "s" * 31 + "...': unknown field"),
        (with_field('"\\ud800": 1'), "should be a valid string, unable to parse"),
        (with_field('"correct": false'), "'correct': is there more than once"),
    ],
)
def test_a_wrong_line_is_named(line: str, message: str, tmp_path: Path) -> None:
    data = tmp_path / "labels.jsonl"
    data.write_text(f"{GOOD}\n\n{line}\n")
    with pytest.raises(LinesError) as caught:
        read_labels(data)
    assert str(caught.value).startswith(f"--data: {data}, line 3: {message}")
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (f"{GOOD}\n{GOOD} 1\n".encode(), ", line 2: not JSON: Extra data at column 49"),
        (b"\xef\xbb\xbf" + GOOD.encode() + b"\n\xe9\n", ", line 2: not UTF-8"),
        (GOOD.encode("utf-16"), ", line 1: not UTF-8"),
        (None, ": Is a directory"),
        (b"", "0 labels are too few; 40 is the least"),
        (GOOD.encode(), "1 labels are too few; 40 is the least"),
    ],
)
def test_a_fault_of_a_file_is_told_before_anything_heavy_is_loaded(
    content: bytes | None, message: str, tmp_path: Path
) -> None:
    """By the command itself, in a process of its own, whatever else is wrong."""
    data = tmp_path / "labels.jsonl"
    data.mkdir() if content is None else data.write_bytes(content)
    script = (
        "import sys; from server.__main__ import main; code = main(sys.argv[1:]);"
        "print(code, sorted({'torch', 'transformers', 'vllm', 'sklearn', 'numpy'} & sys.modules.keys()))"
    )
    command = [sys.executable, "-c", script, "calibrate", "nowhere", "--data", str(data)]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT)
    said = message if message.endswith("is the least") else f"{data}{message}"
    assert run.stderr == f"tokenformer: error: --data: {said}\n"
    assert run.stdout == "1 []\n"


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
        ([], "--data: all labels are of one group, or of one prompt; they are divided by these"),
    ],
)
def test_bad_input_is_one_line(
    checkpoint: Path, tmp_path: Path, flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    data = write_lines(tmp_path / "labels.jsonl", *[json.loads(GOOD)] * 40)
    assert main(["calibrate", str(checkpoint), "--data", str(data), *flags]) == 1
    said = capsys.readouterr().err
    assert said.startswith(f"tokenformer: error: {message}") and said.count("\n") == 1
    assert not list(checkpoint.glob("calibration*"))


def test_missing_files_are_one_line(checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    nowhere = tmp_path / "nowhere"
    assert main(["calibrate", str(checkpoint), "--data", str(nowhere)]) == 1
    assert capsys.readouterr().err == f"tokenformer: error: --data: {nowhere}: No such file or directory\n"
    labels = [json.loads(GOOD) | {"prompt": f"a{i}", "correct": i % 2 == 0} for i in range(80)]
    data = write_lines(tmp_path / "labels.jsonl", *labels)
    assert main(["calibrate", str(nowhere), "--data", str(data)]) == 1
    assert capsys.readouterr().err == f"tokenformer: error: {nowhere}: no such checkpoint directory\n"
    (checkpoint / "tokenizer.json").unlink()
    assert main(["calibrate", str(checkpoint), "--data", str(data)]) == 1
    assert capsys.readouterr().err == f"tokenformer: error: {checkpoint}: has no tokenizer.json\n"


def test_serve_refuses_a_named_file_that_is_no_calibration(
    checkpoint: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "other.json"
    file.write_text("{}")
    assert serve([str(checkpoint), "--skip-tokenizer-init", "--calibration", str(file)], EarlySignals()) == 1
    last = capsys.readouterr().err.splitlines()[-1]
    assert last == f"tokenformer: error: {file}: not a calibration (tokenformer-calibration-2)"
