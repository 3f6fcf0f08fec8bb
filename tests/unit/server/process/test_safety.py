"""Unsafe settings are refused before anything starts, each in one line that says what to do."""

from __future__ import annotations

import os
import re
from argparse import Namespace
from pathlib import Path

import pytest

from server.engine.settings import defaults, prepare_environment
from server.gate.keys import KEYS_VARIABLE
from server.process.safety import SAFE_FORMATS, UnsafeError, is_loopback
from server.process.serve import parse
from server.served.opening import open_model
from tests.support.paths import ROOT

DEMO = ROOT / "demo" / "checkpoint"


def parsed(monkeypatch: pytest.MonkeyPatch, *flags: str, keys: str | None = None) -> Namespace:
    if keys is not None:
        monkeypatch.setenv(KEYS_VARIABLE, keys)
    return parse([str(DEMO), *flags])


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--api-key", "secret-1"], "--api-key-file or TOKENFORMER_API_KEYS"),
        (["--api-key", "secret-1", "secret-2"], "--api-key-file or TOKENFORMER_API_KEYS"),
        (["--trust-remote-code"], "--trust-remote-code"),
        (["--load-format", "pt"], "--load-format pt"),
        (["--load-format", "auto"], "--load-format auto"),
        (["--load-format", "npcache"], "--load-format npcache"),
        (["--load-format", "tensorizer"], "--load-format tensorizer"),
        (["--grpc"], "gRPC"),
        (["--isolate-keys"], "--isolate-keys needs API keys"),
    ],
)
def test_what_is_refused(monkeypatch: pytest.MonkeyPatch, flags: list[str], said: str) -> None:
    with pytest.raises(UnsafeError, match=re.escape(said)) as caught:
        parsed(monkeypatch, *flags)
    assert "\n" not in str(caught.value)
    assert "secret" not in str(caught.value)


def test_vllms_other_front_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VLLM_USE_RUST_FRONTEND", "1")
    with pytest.raises(UnsafeError, match="Rust"):
        parsed(monkeypatch)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.0.2.1", "no-such-host.invalid"])
def test_a_public_address_needs_a_key_or_a_wish(monkeypatch: pytest.MonkeyPatch, host: str) -> None:
    with pytest.raises(UnsafeError, match="can be reached from outside") as caught:
        parsed(monkeypatch, "--host", host)
    assert "--api-key-file" in str(caught.value)
    assert parsed(monkeypatch, "--host", host, "--allow-public-without-key").api_keys is None
    assert parsed(monkeypatch, "--host", host, keys="a").api_keys is not None


@pytest.mark.parametrize("flags", [[], ["--host", "127.0.0.1"], ["--host", "localhost"], ["--uds", "/tmp/s"]])
def test_this_machine_needs_none(monkeypatch: pytest.MonkeyPatch, flags: list[str]) -> None:
    args = parsed(monkeypatch, *flags)
    assert args.api_keys is None
    assert args.loopback_guards == ("--uds" not in flags)


def test_keys_guard_instead_of_the_loopback_address(monkeypatch: pytest.MonkeyPatch) -> None:
    assert not parsed(monkeypatch, keys="a").loopback_guards
    assert not parsed(monkeypatch, "--host", "0.0.0.0", "--allow-public-without-key").loopback_guards


@pytest.mark.parametrize(
    ("host", "loopback"),
    [("127.0.0.1", True), ("127.9.9.9", True), ("::1", True), ("localhost", True), (None, False), ("", False)]
    + [(name, False) for name in ("0.0.0.0", "::", "10.0.0.1", "128.0.0.1", "no-such-host.invalid")],
)
def test_a_host_is_loopback_only_where_all_its_addresses_are(host: str | None, loopback: bool) -> None:
    assert is_loopback(host) == loopback


def test_only_safetensors_are_loaded_unless_told_otherwise() -> None:
    values = defaults(open_model(str(DEMO)), cpu=True)
    assert values["load_format"] == "safetensors"
    assert "auto" not in SAFE_FORMATS, "which falls back to pickles"


def test_no_script_of_a_checkpoint_is_run(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A library of vLLM's loads a model.py where SageMaker puts checkpoints."""
    from model_hosting_container_standards.sagemaker.sagemaker_loader import SageMakerFunctionLoader

    (tmp_path / "model.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    for name in ("CUSTOM_SCRIPT_FILENAME", "VLLM_PLUGINS", "VLLM_KEEP_ALIVE_ON_ENGINE_DEATH"):
        monkeypatch.setenv(name, "")  # restored afterwards
        monkeypatch.delenv(name)
    SageMakerFunctionLoader._create_function_loader(str(tmp_path))
    assert (tmp_path / "ran").exists(), "the library no longer does it: this test and what it is for can go"
    (tmp_path / "ran").unlink()
    prepare_environment()
    SageMakerFunctionLoader._create_function_loader(str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_keys_leave_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    args = parsed(monkeypatch, keys="right")
    assert KEYS_VARIABLE not in os.environ
    assert "right" not in repr(args)


def test_a_key_file_that_all_can_read(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "keys"
    file.write_text("right\n")
    for mode, warned in ((0o600, False), (0o640, False), (0o644, True)):
        file.chmod(mode)
        assert parsed(monkeypatch, "--api-key-file", str(file)).api_keys.salt("right")
        assert ("warning: every user" in capsys.readouterr().err) == warned
