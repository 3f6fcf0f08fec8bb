"""Wrong values of `uncertainty` get OpenAI-shaped errors."""

from typing import Any

import pytest
from openai import BadRequestError, OpenAI

pytestmark = pytest.mark.server

WRONG = ["yes", 3, 0, 1.5, [], [True], {"tokens": 1}, {"tokens": "true"}, {"tokens": None}, {"nope": True}]


def refuse(client: OpenAI, endpoint: str, uncertainty: Any, stream: bool) -> BadRequestError:
    content: Any = {"messages": [{"role": "user", "content": "Hi"}]} if endpoint == "chat" else {"prompt": "Hi"}
    create: Any = client.chat.completions.create if endpoint == "chat" else client.completions.create
    with pytest.raises(BadRequestError) as refused:
        create(model="demo", stream=stream, extra_body={"uncertainty": uncertainty}, **content)
    return refused.value


@pytest.mark.parametrize("endpoint", ["chat", "completions"])
@pytest.mark.parametrize("value", WRONG, ids=repr)
def test_a_wrong_value_is_refused_in_one_line_that_names_it(client: OpenAI, endpoint: str, value: Any) -> None:
    error = refuse(client, endpoint, value, stream=False)
    assert error.status_code == 400
    assert error.param == ("uncertainty.tokens" if isinstance(value, dict) and "tokens" in value else "uncertainty")
    assert error.type == "invalid_request_error"
    assert "uncertainty" in error.body["message"]  # type: ignore[index]
    assert "\n" not in error.body["message"]  # type: ignore[index]


def test_wrong_value_in_a_stream(client: OpenAI) -> None:
    assert refuse(client, "chat", "yes", stream=True).param == "uncertainty"


def test_null_is_the_default(client: OpenAI) -> None:
    answer = client.completions.create(model="demo", prompt="Hi", max_tokens=2, extra_body={"uncertainty": None})
    assert answer.choices[0].uncertainty["tokens"] > 0
