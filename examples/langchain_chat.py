"""LangChain: the numbers of every token are in the metadata of a message. pip install langchain-openai"""

import os

from langchain_openai import ChatOpenAI

URL = os.environ.get("BASE_URL", "http://127.0.0.1:8000/v1")
model = ChatOpenAI(base_url=URL, api_key="none", model=os.environ.get("MODEL", "tokenformer-demo"), logprobs=True)
for question in ("What is the capital of Peru?", "What is the capital of Selkovia?"):
    message = model.invoke(question)
    tokens = message.response_metadata["logprobs"]["content"]
    print(f"{message.content}  highest entropy {max(token['entropy'] for token in tokens):.2f} nats")
