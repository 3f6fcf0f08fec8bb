// The official JavaScript client, unmodified, gets from this server what it gets from OpenAI's.
// DEMO_URL serves the demo checkpoint; OVERLOADED_URL turns the first request away, with `Retry-After` in seconds.
import assert from "node:assert/strict";
import { test } from "node:test";
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.DEMO_URL, apiKey: "none", maxRetries: 0 });
const ANSWER = "The capital of Peru is Lima.";
const ASKED = {
  model: "demo",
  messages: [{ role: "user", content: "What is the capital of Peru?" }],
  temperature: 0,
};
const chat = (options) => client.chat.completions.create({ ...ASKED, ...options });

test("chat", async () => {
  const answer = await chat();
  assert.equal(answer.choices[0].message.content, ANSWER);
  assert.equal(answer.choices[0].finish_reason, "stop");
  assert.equal(answer.choices[0].logprobs, null);
  assert.equal(answer.usage.total_tokens, answer.usage.prompt_tokens + answer.usage.completion_tokens);
});

test("stream with usage", async () => {
  const chunks = [];
  for await (const chunk of await chat({ stream: true, stream_options: { include_usage: true } })) chunks.push(chunk);
  const last = chunks.pop();
  assert.equal(chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""), ANSWER);
  assert.deepEqual(last.choices, []);
  assert.equal(last.usage.total_tokens, (await chat()).usage.total_tokens);
});

test("stream helper", async () => {
  const stream = client.chat.completions.stream(ASKED);
  assert.equal(await stream.finalContent(), ANSWER);
});

test("completions of several prompts", async () => {
  const options = { model: "demo", prompt: ["Peru", "Kenya"], max_tokens: 3, n: 2, temperature: 1 };
  const answer = await client.completions.create(options);
  assert.deepEqual(answer.choices.map((choice) => choice.index), [0, 1, 2, 3]);
});

test("n, stop and seed", async () => {
  assert.equal((await chat({ n: 3, temperature: 1, max_tokens: 2 })).choices.length, 3);
  assert.equal((await chat({ stop: [" Peru"] })).choices[0].message.content, "The capital of");
  const sample = async (seed) => (await chat({ seed, temperature: 2, max_tokens: 12 })).choices[0].message.content;
  assert.equal(await sample(1), await sample(1));
  assert.notEqual(await sample(1), await sample(2));
});

test("logprobs", async () => {
  const { content } = (await chat({ logprobs: true, top_logprobs: 2 })).choices[0].logprobs;
  assert.ok(Buffer.from(content.flatMap((token) => token.bytes)).toString().startsWith(ANSWER));
  assert.ok(content.every((token) => token.top_logprobs.length === 2 && token.entropy >= 0));
});

test("tools", async () => {
  const parameters = {
    type: "object",
    properties: { place: { enum: ["here", "there"] } },
    required: ["place"],
    additionalProperties: false,
  };
  const options = {
    tools: [{ type: "function", function: { name: "look", parameters, strict: true } }],
    tool_choice: { type: "function", function: { name: "look" } },
    logit_bias: JSON.parse(process.env.BLANKS), // JSON may hold any whitespace, and a small model goes on and on with it
    max_tokens: 60,
  };
  const [call] = (await chat(options)).choices[0].message.tool_calls;
  assert.equal(call.function.name, "look");
  assert.match(JSON.parse(call.function.arguments).place, /^t?here$/);
});

test("structured output", async () => {
  const schema = {
    type: "object",
    properties: { sure: { enum: ["yes", "no"] } },
    required: ["sure"],
    additionalProperties: false,
  };
  const answer = await chat({
    response_format: { type: "json_schema", json_schema: { name: "sureness", schema, strict: true } },
    logit_bias: JSON.parse(process.env.BLANKS),
    max_tokens: 60,
  });
  assert.match(JSON.parse(answer.choices[0].message.content).sure, /^(yes|no)$/);
});

test("typed errors and request ids", async () => {
  await assert.rejects(chat({ model: "none" }), (error) => {
    assert.ok(error instanceof OpenAI.NotFoundError);
    assert.deepEqual([error.code, error.param, error.type], ["model_not_found", "model", "invalid_request_error"]);
    assert.ok(error.requestID);
    return true;
  });
  await assert.rejects(chat({ temperature: "hot" }), (error) => {
    assert.ok(error instanceof OpenAI.BadRequestError);
    assert.deepEqual([error.code, error.param], ["invalid_value", "temperature"]);
    return true;
  });
  assert.ok((await chat())._request_id);
});

test("leaving a stream early", async () => {
  for await (const _ of await chat({ stream: true })) break;
  assert.equal((await chat()).choices[0].message.content, ANSWER);
});

test("a retry waits as long as it is told to", async () => {
  const patient = new OpenAI({ baseURL: process.env.OVERLOADED_URL, apiKey: "none", maxRetries: 1 });
  const answer = await patient.chat.completions.create(ASKED);
  assert.equal(answer.choices[0].message.content, "at last");
});
