"""Without keys only this machine can ask, and it must not be a web page that asks."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient

from tests.support.gate_app import KEY, app_of


@pytest.mark.parametrize(
    ("host", "status"),
    [
        ("127.0.0.1:8000", 200),
        ("127.1.2.3", 200),
        ("localhost", 200),
        ("LOCALHOST.:8000", 200),
        ("[::1]:8000", 200),
        ("evil.example", 403),
        ("evil.example:8000", 403),
        ("127.0.0.1.evil.example", 403),
        ("localhost.evil.example", 403),
        ("10.0.0.1", 403),
        ("0.0.0.0", 403),
        ("[::1", 200),
        ("[::2]", 403),
        ("", 403),
    ],
)
def test_a_loopback_server_answers_to_its_own_names(local: TestClient, host: str, status: int) -> None:
    answer = local.get("/version", headers={"Host": host})
    assert answer.status_code == status
    if status == 403:
        assert answer.json()["error"]["code"] == "unknown_host"
        assert host not in answer.text or not host


def test_where_there_are_keys_or_others_may_ask_any_name_will_do(client: TestClient) -> None:
    assert client.get("/version", headers=KEY | {"Host": "evil.example"}).status_code == 200
    with pytest.MonkeyPatch.context() as patch:
        public = TestClient(app_of(patch, "--host", "0.0.0.0", "--allow-public-without-key", keys=None))
    assert public.get("/version", headers={"Host": "model.example"}).status_code == 200
