"""Malicious files: each is refused in one printable line, before it costs memory or time."""

from __future__ import annotations

import json
import os
import resource
import signal
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from model_impl.checkpoint.convert import convert
from model_impl.checkpoint.delta import DESCRIPTION, TENSORS, load_delta, split
from model_impl.checkpoint.fingerprint import fingerprint
from model_impl.checkpoint.reading import (
    MAX_JSON_BYTES,
    WEIGHTS,
    CheckpointError,
    check_tensors,
    load_config,
    read_bytes,
    tensor_shapes,
)
from model_impl.checkpoint.writing import write_checkpoint
from model_impl.config import ConfigError
from server.engine.fitted import calibrations_of
from server.served.opening import open_model
from server.uncertainty.calibration import CalibrationError, load_calibration
from tests.support import calibrated
from tests.support.tiny import tiny_config, tiny_weights

DEEP = "[" * 200_000
HUGE = "1" + "0" * 400
SECONDS = 20
MORE_BYTES = 1 << 30


@pytest.fixture(autouse=True)
def bounded() -> Iterator[None]:
    """A file that is read without end fails its test instead of stopping all."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    limits = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + MORE_BYTES, limits[1]))

    def give_up(*_: Any) -> None:
        raise TimeoutError

    before = signal.signal(signal.SIGALRM, give_up)
    signal.alarm(SECONDS)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
        resource.setrlimit(resource.RLIMIT_AS, limits)


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = tiny_config()
    write_checkpoint(tmp_path / "model", config, tiny_weights(config).items(), {})
    return tmp_path / "model"


def line(error: Exception) -> str:
    assert str(error).isprintable()
    assert len(str(error)) < 1100
    return str(error)


def write(text: str) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        file.write_text(text)

    return change


def entries(**changes: Any) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def stage(**changes: Any) -> Callable[[Path], None]:
    def change(file: Path) -> None:
        content = json.loads(file.read_text())
        content["growth_stages"][0] |= changes
        file.write_text(json.dumps(content))

    return change


def fifo(file: Path) -> None:
    file.unlink(missing_ok=True)
    os.mkfifo(file)


def device(file: Path) -> None:
    file.unlink(missing_ok=True)
    file.symlink_to("/dev/zero")


def sparse(file: Path) -> None:
    with file.open("wb") as stream:
        stream.write((3 << 30).to_bytes(8, "little"))
        stream.truncate((3 << 30) + 8)


NOT_FILES = [fifo, device]
BAD_JSON = [write(DEEP), write('{"a":' * 200_000), sparse, *NOT_FILES]


@pytest.mark.parametrize(
    "change",
    [
        *BAD_JSON,
        entries(num_hidden_layers=10**7),
        entries(hidden_size=10**400),
        entries(rope_theta=10**400),
        entries(layer_norm_eps=float("nan")),
        entries(growth_stages=5),
        entries(growth_stages=[5]),
        entries(growth_stages=[{"\x1b[31m\n": 1}]),
        stage(name=5),
        stage(name="\x1b[31mred"),
        stage(name="two\nlines"),
        stage(name=""),
        stage(name="n" * 1000),
        stage(tau=dict.fromkeys(("query", "key", "value", "output", "ffn"), 10**400)),
        stage(tokens=dict.fromkeys(("query", "key", "value", "output", "ffn"), 10**12)),
        stage(norm_group=0.5),
    ],
)
def test_a_malformed_configuration_is_one_line(checkpoint: Path, change: Callable[[Path], None]) -> None:
    change(checkpoint / "config.json")
    with pytest.raises(CheckpointError) as error:
        load_config(checkpoint)
    assert "config.json" in line(error.value)


def header(**changes: Any) -> Callable[[Path], None]:
    """A safetensors file with one tensor of 16 bytes, whose entry has `changes`."""

    def change(file: Path) -> None:
        entry = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} | changes
        _write_header(file, json.dumps({"\x1b[31m\nname": entry}).encode())

    return change


def _write_header(file: Path, content: bytes) -> None:
    file.write_bytes(len(content).to_bytes(8, "little") + content + bytes(16))


BAD_HEADERS = [
    sparse,
    lambda file: _write_header(file, DEEP.encode()),
    lambda file: _write_header(file, b'{"a": ' + HUGE.encode() + b"}"),
    lambda file: _write_header(
        file, json.dumps({name: {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} for name in "ab"}).encode()
    ),
    header(data_offsets=[0.0, 16.0]),
    header(data_offsets=[16, 0]),
    header(data_offsets=[-16, 0]),
    header(data_offsets=[10**400, 10**400 + 16]),
    header(data_offsets=16),
    header(shape=[4.0]),
    header(shape=[-2, -2]),
    header(shape=[True, 4]),
    header(dtype=["F32"]),
    header(dtype="\x1b[31m"),
]


@pytest.mark.parametrize("change", BAD_HEADERS)
def test_a_malformed_header_is_one_line(checkpoint: Path, change: Callable[[Path], None]) -> None:
    change(checkpoint / WEIGHTS)
    for read in (tensor_shapes, fingerprint):
        with pytest.raises(CheckpointError) as error:
            read(checkpoint)
        assert WEIGHTS in line(error.value)


def test_names_in_a_header_cannot_reach_the_terminal(checkpoint: Path) -> None:
    header()(checkpoint / WEIGHTS)
    shapes = dict(tensor_shapes(checkpoint))
    expected = {name: shape for name, shape in shapes.items() if name.startswith("\x1b")}
    assert expected
    with pytest.raises(CheckpointError) as error:
        check_tensors(load_config(checkpoint), {**_shapes(), **expected})
    assert "\\x1b" in line(error.value)


def _shapes() -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in tiny_weights(tiny_config()).items()}


@pytest.mark.parametrize("change", NOT_FILES)
def test_weights_are_a_regular_file(checkpoint: Path, change: Callable[[Path], None]) -> None:
    change(checkpoint / WEIGHTS)
    with pytest.raises(CheckpointError) as error:
        tensor_shapes(checkpoint)
    line(error.value)


def test_a_file_has_a_largest_size(tmp_path: Path) -> None:
    with (tmp_path / "large").open("wb") as stream:
        stream.truncate(MAX_JSON_BYTES + 1)
    with pytest.raises(CheckpointError, match="larger than"):
        read_bytes(tmp_path / "large")


@pytest.fixture(scope="module")
def grown(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("grown")
    calibrated.checkpoint(root / "grown", 3)
    return root / "grown"


@pytest.mark.parametrize("name", [DESCRIPTION, TENSORS])
@pytest.mark.parametrize("change", [write(DEEP), sparse, *NOT_FILES])
def test_a_malformed_delta_is_one_line(grown: Path, tmp_path: Path, name: str, change: Callable[[Path], None]) -> None:
    split(grown, tmp_path / "delta")
    change(tmp_path / "delta" / name)
    with pytest.raises(CheckpointError) as error:
        load_delta(tmp_path / "delta")
    assert name in line(error.value)


@pytest.mark.parametrize("changes", [{"num_hidden_layers": 10**7}, {"hidden_size": 10**400}], ids=str)
def test_the_sizes_of_a_delta_are_bounded(grown: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    split(grown, tmp_path / "delta")
    entries(**changes)(tmp_path / "delta" / DESCRIPTION)
    with pytest.raises(CheckpointError, match="must be an integer"):
        load_delta(tmp_path / "delta")


def bombs(levels: int = 40) -> str:
    """YAML that doubles at every level."""
    return "a0: &a0 [x, x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, levels))


@pytest.mark.parametrize(
    ("name", "change"),
    [
        *(("config.json", change) for change in BAD_JSON),
        *(("config.yml", change) for change in (write(DEEP[:50_000]), sparse, *NOT_FILES)),
        ("config.yml", write(bombs() + "attention_config: *a39\n")),
        ("config.json", write('{"num_layers": ' + HUGE + ', "pos_emb": "rotary"}')),
        ("config.json", write('{"num_layers": 1e999, "pos_emb": "rotary"}')),
        ("config.json", write('{"num_layers": 10000000, "pos_emb": "rotary"}')),
        ("config.json", write('{"pos_emb": "rotary", "attention_config": ' + "[" * 900 + "]" * 900 + "}")),
    ],
)
def test_a_malformed_official_config_is_one_line(tmp_path: Path, name: str, change: Callable[[Path], None]) -> None:
    torch.save({"sequential.0.word_embeddings.weight": torch.zeros(2, 2)}, tmp_path / "pytorch_model.bin")
    change(tmp_path / name)
    with pytest.raises((CheckpointError, ConfigError)) as error:
        convert(tmp_path / "pytorch_model.bin", tmp_path / "out", tmp_path / name)
    line(error.value)


def compressed(file: Path) -> None:
    """A file as torch writes it, but deflated: a gigabyte of zeros in one megabyte."""
    with (
        zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("archive/data.pkl", "w", force_zip64=True) as member,
    ):
        for _ in range(64):
            member.write(bytes(1 << 24))


def strided(file: Path) -> None:
    torch.save({"sequential.0.word_embeddings.weight": torch.zeros(1).expand(1 << 20, 1 << 20)}, file)


@pytest.mark.parametrize("change", [compressed, strided, fifo, device])
def test_weights_that_are_more_than_their_file_are_refused(tmp_path: Path, change: Callable[[Path], None]) -> None:
    file = tmp_path / "pytorch_model.bin"
    change(file)
    (tmp_path / "config.json").write_text('{"num_layers": 1}')
    with pytest.raises(CheckpointError) as error:
        convert(file, tmp_path / "out")
    assert file.name in line(error.value)


CALIBRATIONS = [
    *BAD_JSON,
    write('{"format": "tokenformer-calibration-2", "method": []}'),
    write('{"format": "tokenformer-calibration-2", "\x1b[31m": 1}'.replace("\x1b", "\\u001b")),
    write(
        '{"format": "tokenformer-calibration-2", "method": "logistic", "checkpoint": "", "stage": "", "features": [], '
        f'"intercept": {HUGE}}}'
    ),
    write(
        '{"format": "tokenformer-calibration-2", "method": "logistic", "checkpoint": "", "stage": "", "features": [], '
        '"abstain": 5}'
    ),
]


@pytest.mark.parametrize("change", CALIBRATIONS)
def test_a_malformed_calibration_is_one_line(tmp_path: Path, change: Callable[[Path], None]) -> None:
    change(tmp_path / "calibration.json")
    with pytest.raises(CalibrationError) as error:
        load_calibration(tmp_path / "calibration.json")
    line(error.value)


@pytest.mark.parametrize("change", CALIBRATIONS)
def test_a_malformed_calibration_beside_the_weights_is_left_out(
    checkpoint: Path, change: Callable[[Path], None], capsys: pytest.CaptureFixture[str]
) -> None:
    change(checkpoint / "calibration.json")
    assert calibrations_of(open_model(str(checkpoint)), None) == []
    for said in capsys.readouterr().err.splitlines():
        assert "is not used" in said
