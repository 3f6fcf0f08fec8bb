"""`make image-test`: the image, built from the Dockerfile, serves from a read-only root as nobody.

Not among the tests of `make test`: it needs root, podman and debootstrap, several GB and some minutes.
"""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.deploy.container import IMAGE, ROOT, build, hardened, lacking, podman

NAME = "tokenformer-image-test"
KEY = "key-of-the-image-test"
COMMAND = ("serve", "/models/tokenformer-demo", "--host", "0.0.0.0", "--api-key-file", "/run/secrets/api-keys")
START_SECONDS = 300

ASK = """
import json, sys, urllib.error, urllib.request
path, key, body = json.load(sys.stdin)
headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
data = json.dumps(body).encode() if body else None
try:
    answer = urllib.request.urlopen(urllib.request.Request(f"http://127.0.0.1:8000{path}", data, headers), timeout=60)
except urllib.error.HTTPError as error:
    answer = error
print(json.dumps([answer.status, answer.read().decode()]))
"""


@pytest.fixture(scope="module")
def image() -> str:
    if reason := lacking():
        pytest.fail(reason)
    build()
    return IMAGE


@pytest.fixture(scope="module")
def container(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """A container that is ready."""
    keys = tmp_path_factory.mktemp("secrets") / "api-keys"
    keys.write_text(f"{KEY}\n")
    keys.parent.chmod(0o755)
    podman("rm", "--force", "--ignore", NAME)
    podman("run", "--detach", *hardened(NAME, volumes=[f"{keys}:/run/secrets/api-keys:ro"]), image, *COMMAND)
    try:
        deadline = time.monotonic() + START_SECONDS
        while not healthy():
            assert time.monotonic() < deadline, log()
            assert podman("container", "inspect", NAME, "--format", "{{.State.Running}}").stdout == "true\n", log()
            time.sleep(1)
        yield NAME
    finally:
        podman("rm", "--force", "--ignore", NAME)


def healthy() -> bool:
    """By the image's own health check."""
    return podman("healthcheck", "run", NAME, check=False).returncode == 0


def log() -> str:
    done = podman("logs", NAME, check=False)
    return (done.stdout + done.stderr)[-6000:]


def inside(*command: str, given: str = "") -> str:
    """Standard output of a command in the container; raises RuntimeError if it fails."""
    feed = ("--interactive",) if given else ()
    return podman("exec", *feed, NAME, *command, given=given).stdout


def ask(path: str, body: Any = None, key: str | None = KEY) -> tuple[int, str]:
    """Status and text of the server's answer, asked from within, as there is no network."""
    status, text = json.loads(inside("python3", "-c", ASK, given=json.dumps([path, key, body])))
    return status, text


def test_it_answers_a_question_with_a_calibrated_risk(container: str) -> None:
    status, text = ask(
        "/v1/chat/completions", {"messages": [{"role": "user", "content": "What is the capital of Peru?"}]}
    )
    assert status == 200, text
    (choice,) = json.loads(text)["choices"]
    assert "Lima" in choice["message"]["content"]
    assert 0 <= choice["uncertainty"]["risk"] < 0.5


def test_ensembles_logprobs_and_top_k_need_no_compiler(container: str) -> None:
    """vLLM or torch would compile for these at run time, if for anything."""
    body = {"messages": [{"role": "user", "content": "Who are you?"}], "logprobs": True, "top_logprobs": 3}
    body |= {"temperature": 1, "top_k": 5, "seed": 1, "uncertainty": {"ensemble": 4}}
    status, text = ask("/v1/chat/completions", body)
    assert status == 200, text
    assert json.loads(text)["choices"][0]["uncertainty"]["mean_epistemic"] >= 0


def test_probes_are_open_and_everything_else_needs_the_key(container: str) -> None:
    assert [ask(path, key=None)[0] for path in ("/livez", "/readyz", "/metrics", "/v1/models")] == [200, 200, 401, 401]
    assert [ask(path)[0] for path in ("/metrics", "/v1/models")] == [200, 200]


def test_it_runs_as_nobody_on_a_root_that_it_cannot_write(container: str) -> None:
    status = dict(line.split(":\t", 1) for line in inside("cat", "/proc/1/status").splitlines())
    assert status["Uid"].split() == ["10001"] * 4
    assert status["Gid"].split() == ["10001"] * 4
    assert int(status["CapEff"], 16) == 0
    for directory in ("/", "/models", "/opt/tokenformer", "/var/tmp"):
        with pytest.raises(RuntimeError, match="Read-only file system"):
            inside("touch", f"{directory}/written")


def test_it_holds_no_build_tool_and_no_development_package(container: str) -> None:
    tools = "gcc cc g++ c++ clang make cmake ninja git pytest ruff mypy"
    assert inside("sh", "-c", f"for tool in {tools}; do command -v $tool; done; true") == ""


def test_its_files_belong_to_root_and_are_writable_by_nobody_else(container: str) -> None:
    found = inside(
        "find", "/opt/tokenformer", "/models", "(", "!", "-user", "root", "-o", "-perm", "/022", ")", "!", "-type", "l"
    )
    assert found == ""


def test_the_key_is_in_no_log_environment_or_command_line(container: str) -> None:
    processes = inside("sh", "-c", "cat /proc/[0-9]*/cmdline /proc/[0-9]*/environ 2>/dev/null | tr '\\0' '\\n'")
    assert "serve" in processes
    assert KEY not in processes
    assert KEY not in log()


def test_its_checkpoint_is_the_repositorys(container: str) -> None:
    found = inside("sha256sum", "tokenformer-demo/model.safetensors").split()[0]
    assert found == hashlib.sha256((ROOT / "demo" / "checkpoint" / "model.safetensors").read_bytes()).hexdigest()


def test_without_a_key_it_does_not_start(image: str) -> None:
    name = f"{NAME}-open"
    podman("rm", "--force", "--ignore", name)
    done = podman("run", "--rm", *hardened(name), image, check=False)
    assert done.returncode != 0
    assert "key" in done.stderr.splitlines()[-1], done.stderr


def test_it_ends_in_good_order_when_it_is_told_to(container: str) -> None:
    """The last test: the container is gone afterwards."""
    podman("stop", "--time", 60, NAME)
    assert podman("container", "inspect", NAME, "--format", "{{.State.ExitCode}}").stdout == "0\n", log()
