"""A server that cannot start says why in one line, with a non-zero exit code and no traceback.

These are the ways out of the process; tests/unit/server/process/test_serve.py has the other reasons.
"""

import signal
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from model_impl.checkpoint.writing import write_checkpoint
from tests.faults.lasting import engine_processes, lines, wait_for
from tests.support.bytes_model import text_files
from tests.support.servers import command_line, serving, user_environment
from tests.support.tiny import tiny_config, tiny_weights

pytestmark = pytest.mark.server


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    config = tiny_config()
    write_checkpoint(tmp_path / "checkpoint", config, tiny_weights(config).items(), text_files())
    return tmp_path / "checkpoint"


def refusal(*arguments: object) -> str:
    """The one error line of a `tokenformer serve` that must fail."""
    command = command_line("serve", *arguments)
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, env=user_environment())
    assert result.returncode not in (0, None), result.stderr
    assert result.returncode > 0, f"killed by signal {-result.returncode}"
    assert "Traceback" not in result.stderr
    errors = [line for line in result.stderr.splitlines() if line.startswith("tokenformer: error:")]
    assert errors == result.stderr.splitlines()[-1:], result.stderr
    return errors[0]


def test_a_wrong_path_ends_the_start_with_one_line(tmp_path: Path) -> None:
    """The error comes before vLLM is imported, which takes ten seconds and more."""
    command = command_line("serve", tmp_path / "nowhere")
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=user_environment())
    assert result.returncode == 1
    assert result.stderr == f"tokenformer: error: {tmp_path / 'nowhere'}: no such checkpoint directory\n"


@pytest.fixture
def taken_port() -> Iterator[int]:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        yield listener.getsockname()[1]


def test_port_in_use(checkpoint: Path, taken_port: int) -> None:
    """The error comes before vLLM is imported."""
    command = command_line("serve", checkpoint, "--port", taken_port)
    result = subprocess.run(command, capture_output=True, text=True, timeout=120, env=user_environment())
    assert result.returncode == 1
    assert result.stderr == f"tokenformer: error: cannot listen on 127.0.0.1:{taken_port}: Address already in use\n"


def test_port_that_another_server_takes_during_the_start(checkpoint: Path, tmp_path: Path) -> None:
    """Both have bound it, and the other listens first."""
    flags = ["--kv-cache-memory-bytes", 16 << 20]
    with socket.socket() as other, serving(checkpoint, tmp_path / "log", flags) as server:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", urlsplit(server.url).port))
        wait_for(lambda: "EngineCore" in engine_processes(server), seconds=240)
        other.listen()
        assert server.process.wait(240) == 1
        assert [line for line in lines(server) if "error" in line] == [
            f"tokenformer: error: cannot listen on {urlsplit(server.url).netloc}: Address already in use"
        ]
        assert "is ready" not in server.log.read_text()


def test_an_engine_that_cannot_start(checkpoint: Path) -> None:
    """The cause is found in another process."""
    line = refusal(checkpoint, "--kv-cache-memory-bytes", 1 << 50)
    assert line.startswith("tokenformer: error: Available memory on node 0 (")


def test_a_verbose_start_shows_where_the_engine_failed(checkpoint: Path) -> None:
    command = command_line("serve", checkpoint, "--kv-cache-memory-bytes", 1 << 50, "--verbose")
    result = subprocess.run(command, capture_output=True, text=True, timeout=240, env=user_environment())
    assert result.returncode == 1
    assert "Traceback" in result.stderr
    assert result.stderr.splitlines()[-1].startswith("tokenformer: error: Available memory on node 0 (")


def test_what_vllm_refuses(checkpoint: Path) -> None:
    assert "max_model_len" in refusal(checkpoint, "--max-model-len", 64)  # of 32 positions


@pytest.mark.parametrize("said", ["importing vLLM", "starting the engine"])
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_start_that_is_told_to_stop_ends_at_once(
    checkpoint: Path, tmp_path: Path, number: signal.Signals, said: str
) -> None:
    log = tmp_path / "log"
    with serving(checkpoint, log, ["--kv-cache-memory-bytes", 16 << 20]) as server:
        wait_for(lambda: said in log.read_text(), seconds=240)
        server.process.send_signal(number)
        assert server.process.wait(10) == 128 + number
    end = log.read_text()
    assert end.splitlines()[-1] == "tokenformer: told to stop before it was ready"
    assert "tokenformer: error" not in end and "Traceback" not in end
