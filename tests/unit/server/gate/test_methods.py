"""Methods and paths that HTTP APIs do not use."""

from __future__ import annotations

import pytest
from starlette.testclient import TestClient


@pytest.mark.parametrize("method", ["PROPFIND", "CONNECT", "XYZZY"])
def test_made_up_methods_are_refused(local: TestClient, method: str) -> None:
    answer = local.request(method, "/version")
    assert answer.status_code == 501
    assert answer.json()["error"]["code"] == "unknown_method"


def test_no_redirect_is_made_from_what_a_client_sent(local: TestClient) -> None:
    for path in ("/version/", "/playground/", "/livez/"):
        assert local.get(path, follow_redirects=False).status_code == 404
