// The same as chat.py in JavaScript: npm install openai, then node chat.mjs
import OpenAI from "openai";

const client = new OpenAI({ baseURL: process.env.BASE_URL ?? "http://127.0.0.1:8000/v1", apiKey: "none" });
const [model] = (await client.models.list()).data;
const { choices } = await client.chat.completions.create({
  model: model.id,
  messages: [{ role: "user", content: "What is the capital of Selkovia?" }],
  logprobs: true,
  uncertainty: { spans: true },
});
const [{ message, logprobs, uncertainty }] = choices;
console.log(`${message.content}  risk ${uncertainty.risk.toFixed(2)}`);
for (const { token, entropy } of logprobs.content) console.log(`${entropy.toFixed(2).padStart(6)} nats  '${token}'`);
for (const { text, reason } of uncertainty.spans) console.log(`doubtful: ${text} (${reason})`);
