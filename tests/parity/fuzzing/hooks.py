"""Loaded by Schemathesis: without it nearly every request would end at the name of the model."""

from typing import Any

import schemathesis


@schemathesis.hook
def map_body(context: Any, body: Any) -> Any:
    if isinstance(body, dict) and isinstance(body.get("model"), str):
        body["model"] = "demo"
    return body
