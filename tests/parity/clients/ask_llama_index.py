"""llama-index: function calling, and classes that come back as instances."""

from __future__ import annotations

import sys

from llama_index.core.llms import ChatMessage
from llama_index.core.prompts import PromptTemplate
from llama_index.core.tools import FunctionTool
from llama_index.llms.openai_like import OpenAILike
from people import QUESTION, Home, Person

asked: list[tuple[str, int]] = []


def move(name: str, year: int) -> str:
    """Note where somebody moves."""
    asked.append((name, year))
    return "noted"


model = OpenAILike(
    model="demo",
    api_base=sys.argv[1],
    api_key="none",
    is_chat_model=True,
    is_function_calling_model=True,
    context_window=512,
    max_tokens=150,
    max_retries=0,
)
tool = FunctionTool.from_defaults(fn=move)

answer = model.chat_with_tools([tool], user_msg=QUESTION, tool_required=True)
(call,) = model.get_tool_calls_from_response(answer)
assert (call.tool_name, call.tool_kwargs.keys()) == ("move", {"name", "year"}), call
print("chat_with_tools")

done = model.predict_and_call([tool], user_msg=QUESTION, tool_required=True)
assert str(done) == "noted" and len(asked) == 1, (done, asked)
print("predict_and_call")

found = model.structured_predict(Person, PromptTemplate("{question}"), question=QUESTION)
assert isinstance(found, Person), found
print("structured_predict")

home = model.as_structured_llm(Home).chat([ChatMessage(role="user", content=QUESTION)]).raw
assert isinstance(home, Home), home
print("as_structured_llm")
