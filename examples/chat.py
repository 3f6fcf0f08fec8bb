"""Ask a question, and see how sure the model is of the answer and of every token."""

import os

from openai import OpenAI

client = OpenAI(base_url=os.environ.get("BASE_URL", "http://127.0.0.1:8000/v1"), api_key="none")
(choice,) = client.chat.completions.create(
    model=client.models.list().data[0].id,
    messages=[{"role": "user", "content": "What is the capital of Selkovia?"}],
    logprobs=True,
    extra_body={"uncertainty": {"spans": True}},
).choices
print(f"{choice.message.content}  risk {choice.uncertainty['risk']:.2f}")
for token in choice.logprobs.content:
    print(f"{token.entropy:6.2f} nats  {token.token!r}")
for span in choice.uncertainty["spans"]:
    print(f"doubtful: {span['text']} ({span['reason']})")
