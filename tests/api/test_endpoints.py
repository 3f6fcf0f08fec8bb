"""vLLM's other endpoints still work, and the documents about ours are true."""

import json
from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

import httpx
import pytest
from openai import OpenAI
from prometheus_client.parser import text_string_to_metric_families
from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionResponse
from vllm.entrypoints.openai.completion.protocol import CompletionResponse

from tests.support.servers import Server

pytestmark = pytest.mark.server

MESSAGES = [{"role": "user", "content": "Who are you?"}]
ENTROPY, VARIANCE = "tokenformer_token_entropy_nats", "tokenformer_token_variance_nats2"


@pytest.fixture(scope="module")
def http(demo: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=demo.url, timeout=60) as opened:
        yield opened


def post(http: httpx.Client, path: str, **body: Any) -> Any:
    response = http.post(path, json={"model": "demo"} | body)
    assert response.status_code == 200, response.text
    return response.json()


def test_the_model_is_listed_ahead_of_its_stages(client: OpenAI) -> None:
    names = [model.id for model in client.models.list()]
    assert names[0] == "demo"  # then its growth stages
    assert all(name.startswith("demo:") for name in names[1:])


def test_tokenize_and_detokenize(http: httpx.Client) -> None:
    tokens = post(http, "/tokenize", prompt="Who are you?")["tokens"]
    assert post(http, "/detokenize", tokens=tokens)["prompt"] == "Who are you?"
    assert post(http, "/tokenize", messages=MESSAGES)["count"] > len(tokens)


def test_unscored_answers_are_stock_vllm(http: httpx.Client) -> None:
    """With `uncertainty` false, answers have the fields of vLLM's own response classes and no others."""
    chat = post(http, "/v1/chat/completions", messages=MESSAGES, max_tokens=4, uncertainty=False)
    assert chat == ChatCompletionResponse.model_validate(chat).model_dump()
    text = post(http, "/v1/completions", prompt="Hi", max_tokens=4, uncertainty=False)
    assert text == CompletionResponse.model_validate(text).model_dump()


def test_scored_answers_add_one_field(http: httpx.Client) -> None:
    for path, body in (("/v1/chat/completions", {"messages": MESSAGES}), ("/v1/completions", {"prompt": "Hi"})):
        with_it = post(http, path, max_tokens=4, **body)
        without = post(http, path, max_tokens=4, uncertainty=False, **body)
        assert with_it.keys() == without.keys()
        assert with_it["choices"][0].keys() - without["choices"][0].keys() == {"uncertainty"}


def test_null_fields_of_ours_are_left_out_on_request(http: httpx.Client) -> None:
    """The summary, its spans and its sentences lose them, plain and streamed; OpenAI's null fields stay."""
    wish = {"include_null": False, "spans": True, "sentences": True}
    for path, body in (("/v1/chat/completions", {"messages": MESSAGES}), ("/v1/completions", {"prompt": "Hi"})):
        full = post(http, path, max_tokens=4, uncertainty=wish | {"include_null": True}, **body)
        brief = post(http, path, max_tokens=4, uncertainty=wish, **body)
        assert without_nulls(full["choices"][0]["uncertainty"]) == brief["choices"][0]["uncertainty"]
        assert full["choices"][0]["uncertainty"] != brief["choices"][0]["uncertainty"]
        assert brief["choices"][0]["logprobs"] is None
        streamed = http.post(
            path, json={"model": "demo", "max_tokens": 4, "stream": True, "uncertainty": wish, **body}
        ).text
        chunks = [json.loads(line[6:]) for line in streamed.splitlines() if line.startswith("data: {")]
        (summary,) = [found for chunk in chunks if (found := chunk["choices"][0].get("uncertainty"))]
        assert summary.keys() == brief["choices"][0]["uncertainty"].keys()
    given = {"messages": MESSAGES, "completion": "I am"}
    full = post(http, "/v1/uncertainty", **given)["choices"][0]
    brief = post(http, "/v1/uncertainty", uncertainty={"include_null": False}, **given)["choices"][0]
    assert brief == without_nulls(full) != full


def without_nulls(value: Any) -> Any:
    """The null fields of objects are left out; lists of numbers keep their nulls."""
    if isinstance(value, dict):
        return {name: without_nulls(part) for name, part in value.items() if part is not None}
    return [without_nulls(part) for part in value] if isinstance(value, list) else value


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/responses", {"input": "Hi", "max_output_tokens": 2}),
        ("/v1/messages", {"messages": MESSAGES, "max_tokens": 2}),
        ("/v1/chat/completions/batch", {"messages": [MESSAGES], "max_tokens": 2}),
    ],
)
def test_a_route_without_uncertainty_refuses_to_be_asked_for_it(
    http: httpx.Client, path: str, body: dict[str, Any]
) -> None:
    for wish in (True, {"tokens": True}):
        refused = http.post(path, json={"model": "demo", "uncertainty": wish, **body})
        assert refused.status_code == 400
        assert refused.json()["error"]["param"] == "uncertainty"
        assert "/v1/chat/completions" in refused.json()["error"]["message"]
    for wish in (False, None):
        post(http, path, uncertainty=wish, **body)
    operation = http.get("/openapi.json").json()["paths"][path]["post"]
    assert operation["description"].endswith("Answers carry no `uncertainty`.")


def test_anthropics_messages_are_answered_and_streamed(http: httpx.Client) -> None:
    answer = post(http, "/v1/messages", messages=MESSAGES, max_tokens=8)
    assert answer["content"][0]["text"]
    events = http.post("/v1/messages", json={"model": "demo", "messages": MESSAGES, "max_tokens": 8, "stream": True})
    assert "message_stop" in events.text


def test_a_response_has_text(http: httpx.Client) -> None:
    answer = post(http, "/v1/responses", input="Who are you?", max_output_tokens=8)
    assert answer["output"][-1]["content"][0]["text"]


def test_invocations_answer_chats_and_prompts(http: httpx.Client) -> None:
    assert post(http, "/invocations", messages=MESSAGES, max_tokens=8)["choices"][0]["message"]["content"]
    assert post(http, "/invocations", prompt="Hi", max_tokens=8)["choices"][0]["text"]


def test_batch_of_chats(http: httpx.Client) -> None:
    answer = post(http, "/v1/chat/completions/batch", messages=[MESSAGES, MESSAGES], max_tokens=8)
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]


def histograms(http: httpx.Client) -> dict[str, float]:
    families = text_string_to_metric_families(http.get("/metrics").text)
    return {
        sample.name: sample.value
        for family in families
        for sample in family.samples
        if family.name in (ENTROPY, VARIANCE)
        and sample.labels["model_name"] == "demo"
        and not sample.name.endswith("_bucket")
    }


@pytest.mark.parametrize("stream", [False, True])
def test_metrics_count_what_clients_were_told(http: httpx.Client, client: OpenAI, stream: bool) -> None:
    client.completions.create(model="demo", prompt="Hi", max_tokens=1)  # so that there is something to add to
    before = histograms(http)
    answer: Any = client.chat.completions.create(
        model="demo", messages=MESSAGES, max_tokens=16, n=2, temperature=1, logprobs=True, stream=stream
    )
    parts = list(answer) if stream else [answer]
    tokens = [
        token for part in parts for choice in part.choices if choice.logprobs for token in choice.logprobs.content
    ]
    client.completions.create(model="demo", prompt="Hi", max_tokens=5, extra_body={"uncertainty": False})
    client.completions.create(model="demo", prompt="Hi", max_tokens=0, echo=True)
    after = histograms(http)
    change = {name: after[name] - before[name] for name in after if not name.endswith("_created")}
    assert change[f"{ENTROPY}_count"] == change[f"{VARIANCE}_count"] == len(tokens) > 0
    assert change[f"{ENTROPY}_sum"] == pytest.approx(sum(token.entropy for token in tokens))
    assert change[f"{VARIANCE}_sum"] == pytest.approx(sum(token.variance for token in tokens))
    assert "vllm:generation_tokens_total" in http.get("/metrics").text


def references(node: Any) -> Iterator[str]:
    if isinstance(node, dict):
        if isinstance(node.get("$ref"), str):
            yield node["$ref"]
        node = list(node.values())
    if isinstance(node, list):
        for part in node:
            yield from references(part)


def test_the_openapi_document_has_our_fields_and_no_broken_reference(http: httpx.Client) -> None:
    document = http.get("/openapi.json").json()
    schemas = document["components"]["schemas"]
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas, f"{reference} leads nowhere"
    for path, answer in (("/v1/chat/completions", "ScoredChatCompletion"), ("/v1/completions", "ScoredCompletion")):
        operation = document["paths"][path]["post"]
        body = operation["requestBody"]["content"]["application/json"]["schema"]["$ref"].rsplit("/", 1)[1]
        assert "uncertainty" in schemas[body]["properties"]
        content = operation["responses"]["200"]["content"]
        assert content["application/json"]["schema"]["$ref"].endswith(f"{answer}Response")
        assert content["text/event-stream"]["schema"]["$ref"].endswith(f"{answer}Chunk")
    for choice in ("ScoredChatChoice", "ScoredCompletionChoice", "ScoredChatStreamChoice"):
        assert "uncertainty" in schemas[choice]["properties"]
    assert document["info"]["title"] == "Tokenformer server"
    assert document["info"]["version"] == version("tokenformer-server")
    assert {"entropy", "variance", "rank", "margin"} <= schemas["ScoredToken"]["properties"].keys()
    assert {"mean_entropy", "max_entropy", "mean_variance", "risk"} <= schemas["Uncertainty"]["properties"].keys()
