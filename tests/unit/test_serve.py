"""Settings that `tokenformer serve` derives."""

import os

import pytest

from server.serve import bind_ranks

BINDING = "VLLM_CPU_OMP_THREADS_BIND"


@pytest.mark.parametrize(
    ("cores", "ranks", "binding"),
    [
        ({0, 1}, 2, "0|1"),
        ({0, 1, 2, 3, 6}, 2, "0,1|2,3,6"),
        ({4, 5, 6}, 3, "4|5|6"),
        ({0}, 2, "nobind"),
        ({0, 1}, 1, None),
    ],
)
def test_cores_are_divided_among_ranks(
    monkeypatch: pytest.MonkeyPatch, cores: set[int], ranks: int, binding: str | None
) -> None:
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: cores)
    monkeypatch.setenv(BINDING, "")
    monkeypatch.delenv(BINDING)
    bind_ranks(ranks)
    assert os.environ.get(BINDING) == binding


def test_what_the_user_has_set_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(BINDING, "7|8")
    bind_ranks(2)
    assert os.environ[BINDING] == "7|8"
