"""The text of the Dockerfile; `make image-test` builds it."""

from __future__ import annotations

import json
import platform
import re
import sys
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from scripts.lock import Package, Target
from scripts.surplus import BUILD_TOOLS, installed, surplus
from server.process.flags import KEYS_VARIABLE

ROOT = Path(__file__).parents[2]
TARGETS = ("cpu", "cuda")
TOOLS = re.compile(r"\b(gcc|g\+\+|clang|build-essential|make|cmake|ninja|nvcc|git|curl|wget|python3?-dev)\b")
SECRET = re.compile(r"(?i)(password|secret|token|api[-_]?key)s?=")

Stage = list[tuple[str, str]]
"""Instructions and their arguments, in order."""


def stages() -> dict[str, Stage]:
    """By name; the instruction FROM is the first of each."""
    text = re.sub(r"(?m)^\s*#.*\n", "", (ROOT / "Dockerfile").read_text()).replace("\\\n", " ")
    found: dict[str, Stage] = {}
    for line in filter(None, map(str.strip, text.splitlines())):
        instruction, arguments = line.split(maxsplit=1)
        if instruction == "FROM":
            stage = found[arguments.split(" AS ")[1]] = []
        elif not found:
            continue  # an ARG before the first stage
        stage.append((instruction, arguments))
    return found


def arguments(stage: Stage, instruction: str) -> list[str]:
    return [given for name, given in stage if name == instruction]


@pytest.mark.parametrize("target", TARGETS)
def test_a_target_is_built_on_the_image_that_was_asked_for(target: str) -> None:
    base = {"cpu": "python:3.11-slim-bookworm", "cuda": f"vllm/vllm-openai:v{vllm_version()}"}[target]
    assert arguments(stages()[target], "FROM") == [f"{base} AS {target}"]


def vllm_version() -> str:
    """The one that the project is pinned to."""
    (pin,) = (
        line for line in (ROOT / "requirements" / "cuda.txt").read_text().splitlines() if line.startswith("vllm==")
    )
    return pin.split()[0].removeprefix("vllm==")


@pytest.mark.parametrize("target", TARGETS)
def test_it_ends_as_a_user_who_is_not_root_by_number(target: str) -> None:
    *_, user = arguments(stages()[target], "USER")
    assert all(int(part) >= 10_000 for part in user.split(":"))  # Kubernetes' runAsNonRoot cannot judge a name
    last = [name for name, _ in stages()[target]].index("USER")
    assert not {"RUN", "COPY", "ADD"} & {name for name, _ in stages()[target][last:]}


@pytest.mark.parametrize("target", TARGETS)
def test_health_is_asked_with_what_the_image_has(target: str) -> None:
    (check,) = arguments(stages()[target], "HEALTHCHECK")
    program, flag, code = json.loads(check.split(" CMD ", 1)[1])
    assert (program, flag) == ("python3", "-c")
    compile(code, "health check", "exec")
    assert "http://127.0.0.1:8000/readyz" in code


@pytest.mark.parametrize("target", TARGETS)
def test_the_server_gets_signals_itself_and_serves_the_demo(target: str) -> None:
    assert arguments(stages()[target], "STOPSIGNAL") == ["SIGTERM"]
    assert json.loads(arguments(stages()[target], "ENTRYPOINT")[0]) == ["tokenformer"]
    command, checkpoint, *flags = json.loads(arguments(stages()[target], "CMD")[0])
    assert (command, flags) == ("serve", ["--host", "0.0.0.0"])
    assert f"demo/checkpoint {checkpoint}" in arguments(stages()[target], "COPY")


@pytest.mark.parametrize("target", TARGETS)
def test_caches_go_where_a_read_only_root_can_be_written(target: str) -> None:
    environment = " ".join(arguments(stages()[target], "ENV"))
    assert re.search(r"\bHOME=/tmp\b", environment)


@pytest.mark.parametrize("target", TARGETS)
def test_no_build_tool_is_put_into_the_final_stage(target: str) -> None:
    ran = " ".join(arguments(stages()[target], "RUN"))
    assert TOOLS.findall(ran) == []


def test_the_cpu_image_takes_nothing_from_the_building_stages_but_the_environment() -> None:
    copied = [given for given in arguments(stages()["cpu"], "COPY") if "--from" in given]
    assert copied == ["--from=packages /opt/tokenformer /opt/tokenformer"]


def test_what_is_installed_is_locked_by_hash() -> None:
    installs = [ran for ran in arguments(stages()["packages"], "RUN") if " install " in ran]
    hashed = [ran for ran in installs if "requirements/cpu.txt" in ran]
    assert len(hashed) == 1
    assert "--require-hashes" in hashed[0]
    assert all("--no-deps" in ran for ran in installs)


def test_no_secret_is_in_the_dockerfile_or_among_what_it_may_copy() -> None:
    text = (ROOT / "Dockerfile").read_text()
    assert not SECRET.search(text)
    assert KEYS_VARIABLE not in text
    first, *others = [
        line for line in (ROOT / ".dockerignore").read_text().splitlines() if line and not line.startswith("#")
    ]
    assert first == "*"
    let_in = {line.removeprefix("!") for line in others if line.startswith("!")}
    assert {"deploy", "tests", ".git", ".venv"}.isdisjoint({name.split("/")[0] for name in let_in})
    assert all((ROOT / name).exists() for name in let_in)


def test_everything_that_is_copied_is_let_into_the_build() -> None:
    let_in = [line[1:] for line in (ROOT / ".dockerignore").read_text().splitlines() if line.startswith("!")]
    copied = [source for stage in stages().values() for given in arguments(stage, "COPY") for source in sources(given)]
    assert copied
    for source in copied:
        assert any(name == source or name.startswith(f"{source}/") for name in let_in), source


def sources(copy: str) -> list[str]:
    """The paths that a COPY takes from the build context."""
    return [] if copy.startswith("--from") else copy.split()[:-1]


HERE = Target(f"{sys.version_info.major}.{sys.version_info.minor}", platform.machine())


def test_a_server_goes_without_what_is_for_development() -> None:
    extras = metadata.distribution("tokenformer-server").requires or []
    dev = {canonicalize_name(Requirement(line).name) for line in extras if 'extra == "dev"' in line}
    left = surplus(installed(), [Requirement("tokenformer-server")], HERE)
    assert {"pytest", "ruff", "mypy", "playwright", "hypothesis"} <= dev & set(left)
    assert set(left) >= BUILD_TOOLS & installed().keys()
    assert {"fastapi", "torch", "tokenizers", "prometheus-client", "tokenformer-server"}.isdisjoint(left)


def test_of_two_packages_of_a_name_the_first_on_the_path_counts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pydantic-0.1.dist-info").mkdir()
    (tmp_path / "pydantic-0.1.dist-info" / "METADATA").write_text(
        "Metadata-Version: 2.1\nName: pydantic\nVersion: 0.1\n"
    )
    monkeypatch.setattr(sys, "path", [*sys.path, str(tmp_path)])
    assert installed()["pydantic"].version == metadata.version("pydantic") != "0.1"


def test_a_missing_requirement_ends_the_build() -> None:
    packages = {"a": Package("a", "1", "", (Requirement("b"), Requirement("c; python_version < '3'")))}
    with pytest.raises(SystemExit, match="not installed: b"):
        surplus(packages, [Requirement("a")], HERE)
