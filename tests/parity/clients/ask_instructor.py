"""instructor: the classes come back as instances, by tools and by JSON schemas."""

from __future__ import annotations

import sys

import instructor
from openai import OpenAI
from people import QUESTION, Person

MODES = (instructor.Mode.TOOLS, instructor.Mode.TOOLS_STRICT, instructor.Mode.JSON_SCHEMA)

for mode in MODES:
    client = instructor.from_openai(OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0), mode=mode)
    asked = {"model": "demo", "messages": [{"role": "user", "content": QUESTION}], "response_model": Person}
    found = client.chat.completions.create(**asked, max_retries=0, max_tokens=150)
    assert isinstance(found, Person), found
    *_, last = client.chat.completions.create_partial(**asked, max_retries=0, max_tokens=150)
    assert last.model_dump().keys() == Person.model_fields.keys(), last
    print(mode.name)
