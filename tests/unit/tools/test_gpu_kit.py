"""The kit for a machine with a GPU, and its check there."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripts.gpu import check, packages
from scripts.gpu.check import Step, run, with_kit
from scripts.gpu.fatbin import MACHINE_CODE, MAGIC, containers, keep_only
from scripts.gpu.kit import LIMIT, pack, tree_bytes

PTX = 1


def entry(kind: int, architecture: int, code: bytes) -> bytes:
    head = bytearray(64)
    struct.pack_into("<HHIQ", head, 0, kind, 0x101, len(head), len(code))
    struct.pack_into("<I", head, 28, architecture)
    return bytes(head) + code


def container(*entries: bytes) -> bytes:
    body = b"".join(entries)
    return struct.pack("<IHHQ", MAGIC, 1, 16, len(body)) + body


def library(*parts: bytes) -> bytes:
    """A 64-bit ELF file with a section of GPU code."""
    code, names = b"".join(parts), b"\0.nv_fatbin\0.names\0"
    start = 64 + len(code)
    head = bytearray(64)
    struct.pack_into("<Q", head, 0x28, start + len(names))
    struct.pack_into("<HHH", head, 0x3A, 64, 3, 2)
    sections = b""
    for name, offset, size in ((0, 0, 0), (1, 64, len(code)), (12, start, len(names))):
        section = bytearray(64)
        struct.pack_into("<I", section, 0, name)
        struct.pack_into("<QQ", section, 0x18, offset, size)
        sections += section
    return bytes(head) + code + names + sections


def left(made: bytes) -> list[list[tuple[int, int]]]:
    """Kind and architecture of the code that is not cleared."""
    return [
        [(code.kind, code.architecture) for code in found if any(made[code.start : code.stop])]
        for found in containers(made)
    ]


def test_only_machine_code_of_one_architecture_is_kept_and_nothing_moves() -> None:
    several = container(*(entry(MACHINE_CODE, each, b"x" * 16) for each in (80, 90, 120)), entry(PTX, 90, b"y" * 8))
    whole = library(several, bytes(24), container(entry(MACHINE_CODE, 90, b"z" * 8)))
    kept = keep_only(whole, 90, b"unwanted")
    assert len(kept) == len(whole)
    assert left(whole)[0] == [(MACHINE_CODE, 80), (MACHINE_CODE, 90), (MACHINE_CODE, 120), (PTX, 90)]
    assert left(kept) == [[(MACHINE_CODE, 90)], [(MACHINE_CODE, 90)]]


def test_kernels_that_are_not_wanted_are_cleared() -> None:
    whole = library(container(entry(MACHINE_CODE, 90, b"unwanted"), entry(MACHINE_CODE, 90, b"wanted  ")))
    assert [len(found) for found in left(keep_only(whole, 90, b"unwanted"))] == [1]


def test_what_the_machine_has_is_not_brought_unless_it_may_be_too_old() -> None:
    there, brought = packages.present(), {line.partition("==")[0] for line in packages.brought()}
    names = {packages.canonical(name) for name in brought}
    assert names & there.keys() == packages.NEWER & names
    assert {"fastapi", "openai", "pydantic", "xgrammar"} <= names and "playwright" not in names
    assert all("--hash=sha256:" in line for line in packages.brought())


def test_every_exception_is_a_package_of_the_lock_and_the_machines_versions_do() -> None:
    locked = packages.locked().keys()
    for names in (packages.NEWER, packages.UNREACHED, packages.UNUSED):
        assert names <= locked, names - locked
    assert packages.present().keys() >= packages.NEWER
    assert "transformers==5.17.0" in packages.taken() and packages.requirement("vllm").startswith("vllm==0.32.0")


def test_steps_stay_below_the_limit_together() -> None:
    assert sum(step.seconds for step in check.STEPS) <= check.LIMIT - 20  # which the kit takes to be unpacked
    assert check.LIMIT <= 540


def ran(tmp_path: Path, program: str, seconds: float = 30) -> tuple[dict[str, object], str]:
    with (tmp_path / "log").open("w+") as log:
        step = Step("one", 30, ("-c", program, "{out}"))
        result = run(step, seconds, False, tmp_path, dict(os.environ), log.fileno())
        log.seek(0)
        return result, log.read()


def test_a_step_is_told_where_its_figures_go(tmp_path: Path) -> None:
    result, output = ran(tmp_path, "import sys; print(sys.argv[1])")
    assert result["exit"] == 0 and output.strip() == str(tmp_path)


@pytest.fixture
def interrupt_ignored() -> Iterator[None]:
    """SIGINT is ignored, as in a background job of a shell."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interrupt_ignored")
def test_a_step_that_is_late_is_asked_to_end_and_cleans_up(tmp_path: Path) -> None:
    program = "import time\ntry: time.sleep(60)\nfinally: print('cleaned up')"
    result, output = ran(tmp_path, program, 8)  # long enough for a busy machine to start Python
    assert result["exit"] is None and "cleaned up" in output


def test_a_later_step_runs_although_an_earlier_one_failed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    seen = ("-c", f"import os; print('stand-ins', os.environ.get({check.STAND_INS!r}))")
    steps = (Step("operators", 30, ("-c", "raise SystemExit(3)")), Step("kernels", 30, seen))
    monkeypatch.setattr(check, "STEPS", steps)
    monkeypatch.setattr(sys, "argv", ["check", "--kit", str(kit(tmp_path))])
    monkeypatch.setenv("OUT", str(tmp_path / "out"))
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    assert check.main() == 1
    summary = json.loads((tmp_path / "out" / "summary.json").read_text())
    assert [(step["step"], step["exit"]) for step in summary] == [("operators", 3), ("kernels", 0)]
    assert "stand-ins 1" in (tmp_path / "out" / "log.txt").read_text()


def kit(tmp_path: Path) -> Path:
    """One of a single module."""
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "of_the_kit.py").write_text("NAME = 'kit'\n")
    (tmp_path / "kit").mkdir()
    pack(tmp_path / "site", tmp_path / "kit" / "site.tar.xz")
    return tmp_path / "kit"


def test_the_kit_is_found_behind_the_tree(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    environment = with_kit(kit(tmp_path))
    command = [sys.executable, "-c", "import of_the_kit, model_impl; print(of_the_kit.NAME, model_impl.__file__)"]
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["kit", str(check.ROOT / "model_impl" / "__init__.py")]


def test_without_a_kit_the_check_says_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match="make gpu-kit"):
        with_kit(tmp_path)


def test_the_tree_leaves_room_for_an_archive() -> None:
    """The larger one has 22 MiB."""
    assert tree_bytes() < LIMIT - (26 << 20)
