"""Earlier turns of the Responses API as clients send them back, and the chat that vLLM makes of them."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError
from vllm.entrypoints.openai.responses.utils import construct_input_messages
from vllm.exceptions import VLLMValidationError

from server.api.protocols.responses import ResponsesRequest

ASKED = {"role": "user", "content": [{"type": "input_text", "text": "What is the capital of Peru?"}]}
TEXT = {"type": "output_text", "text": "Lima."}
CALL = {"type": "function_call", "call_id": "c1", "name": "look", "arguments": '{"a": 1}'}
RESULT = {"type": "function_call_output", "call_id": "c1", "output": "Lima"}


def chat(*turns: dict[str, Any]) -> list[Any]:
    """The messages after the question."""
    request = ResponsesRequest(model="demo", input=[ASKED, *turns])
    return construct_input_messages(request_input=request.input)[1:]


@pytest.mark.parametrize(
    "message",
    [
        {"role": "assistant", "content": [TEXT]},
        {"role": "assistant", "content": [TEXT], "id": "msg_1"},
        {"role": "assistant", "content": [TEXT], "id": "msg_1", "phase": "final_answer"},
        {"role": "assistant", "content": "Lima."},
        {
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Li"}, {"type": "output_text", "text": "ma."}],
        },
        {"type": "message", "role": "assistant", "content": [TEXT | {"annotations": []}], "id": "msg_1"},
        {
            "type": "message",
            "role": "assistant",
            "content": [TEXT | {"annotations": [], "logprobs": None}],
            "id": "msg_1",
            "status": "completed",
            "phase": None,
        },
        {"type": "message", "role": "assistant", "content": [TEXT | {"annotations": None}], "id": None, "status": None},
        {"role": "assistant", "content": [{"type": "refusal", "refusal": "Lima."}]},
        {"type": "message", "role": "assistant", "content": [{"type": "refusal", "refusal": "Lima."}]},
    ],
    ids=str,
)
def test_what_the_assistant_said(message: dict[str, Any]) -> None:
    assert chat(message) == [{"role": "assistant", "content": "Lima."}]


def test_an_assistant_that_said_nothing() -> None:
    assert chat({"role": "assistant", "content": []}) == [{"role": "assistant", "content": ""}]


@pytest.mark.parametrize("more", [{}, {"id": "fc_1", "status": "completed"}, {"id": None, "status": None}], ids=str)
def test_a_call_and_its_result(more: dict[str, Any]) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "look", "arguments": '{"a": 1}'}}
    result = {"role": "tool", "content": "Lima", "tool_call_id": "c1"}
    assert chat(CALL | more, RESULT | more) == [{"role": "assistant", "tool_calls": [call]}, result]
    said = {"role": "assistant", "content": [TEXT]}
    assert chat(said, CALL | more, RESULT | more)[0] == {
        "role": "assistant",
        "content": "Lima.",
        "tool_calls": [call],
    }


@pytest.mark.parametrize(
    "reasoning",
    [
        {"id": "rs_1", "summary": [], "content": [{"type": "reasoning_text", "text": "Hm."}]},
        {
            "id": "rs_1",
            "summary": [],
            "content": [{"type": "reasoning_text", "text": "Hm."}],
            "encrypted_content": None,
        },
        {"id": "rs_1", "summary": [{"type": "summary_text", "text": "Hm."}]},
        {"id": None, "summary": None, "content": [{"type": "reasoning_text", "text": "Hm."}], "status": None},
        {"content": [{"type": "reasoning_text", "text": "Hm."}]},
    ],
    ids=str,
)
def test_what_the_assistant_thought(reasoning: dict[str, Any]) -> None:
    said = {"role": "assistant", "content": [TEXT]}
    expected = {"role": "assistant", "reasoning": "Hm.", "content": "Lima."}
    assert chat({"type": "reasoning"} | reasoning, said) == [expected]


@pytest.mark.parametrize("status", ["incomplete", "in_progress"])
def test_a_message_that_is_to_be_continued(status: str) -> None:
    message = {"role": "assistant", "content": [TEXT], "status": status}
    params = ResponsesRequest(input=[ASKED, message]).build_chat_params(None, "string")
    assert params.chat_template_kwargs["continue_final_message"] is True


@pytest.mark.parametrize(
    "content", [5, [5], [{"type": "output_text"}], [{"type": "output_text", "text": 5}], [{}]], ids=str
)
def test_a_message_that_is_wrong_is_left_to_be_refused(content: Any) -> None:
    with pytest.raises((ValidationError, VLLMValidationError)):
        chat({"role": "assistant", "content": content})
