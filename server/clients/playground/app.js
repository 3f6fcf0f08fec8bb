// The page: pickers and settings, the conversation, and the question at the bottom.

import { Answer } from "./answer.js";
import { listModels, streamChat } from "./api.js";
import { hide } from "./detail.js";
import { byId, h } from "./dom.js";
import { MEASURES, legend } from "./scale.js";

const KEY = "tokenformer-api-key";
const [model, compare, question] = [byId("model"), byId("compare"), byId("question")];
const [key, ensemble, members, temperature] = [byId("key"), byId("ensemble"), byId("members"), byId("temperature")];

/** Cards of /v1/models by name. */
let cards = new Map();
/** {question, answers: [Answer, ...]}: one answer per model that was asked. */
let turns = [];
let measure = MEASURES.entropy;
let running = null;

async function loadModels() {
  try {
    cards = new Map((await listModels(key.value)).map((card) => [card.id, card]));
    byId("model-error")?.remove();
  } catch (error) {
    byId("model-error")?.remove();
    byId("welcome").after(h("p", { id: "model-error", class: "error", role: "alert" }, error.message));
    if (error.status === 401) byId("settings").open = true;
    return;
  }
  const options = (kept) => [...cards.keys()].map((id) => h("option", { value: id, selected: id === kept }, id));
  model.replaceChildren(...options(model.value));
  compare.replaceChildren(h("option", { value: "" }, "nothing"), ...options(compare.value));
  describeModels();
}

function describeModels() {
  for (const select of [model, compare]) {
    const card = cards.get(select.value);
    select.title = select.value; // its box may be too narrow for it
    byId(`${select.id}-card`).textContent = card ? describe(card) : "";
  }
}

function describe(card) {
  const tokens = Object.values(card.parameter_tokens ?? {}).reduce((sum, count) => sum + count, 0);
  const parts = [
    card.growth_stage && `stage ${card.growth_stage}`,
    tokens && `${tokens.toLocaleString("en")} tokens`,
    card.calibration ? "calibrated" : "not calibrated",
  ];
  return parts.filter(Boolean).join(" · ");
}

/** What column `index` is told: the questions so far and its own answers, or the first column's where it had none. */
function messages(index, asked) {
  const told = turns.flatMap(({ question, answers }) => {
    const text = (answers[index] ?? answers[0]).text;
    return text === null ? [] : [message("user", question), message("assistant", text)];
  });
  return [...told, message("user", asked)];
}

const message = (role, content) => ({ role, content });

function options(card) {
  const uncertainty = { tokens: true, spans: true };
  if (card?.calibration?.abstain) uncertainty.abstain_above = card.calibration.abstain.above;
  if (ensemble.checked) uncertainty.ensemble = members.valueAsNumber;
  return { temperature: temperature.valueAsNumber || 0, logprobs: true, top_logprobs: 5, uncertainty };
}

async function ask(asked) {
  const names = [model.value, compare.value].filter((name, i) => i === 0 || name);
  const answers = names.map((name) => new Answer(cards.get(name) ?? { id: name }, measure));
  const told = names.map((_, i) => messages(i, asked));
  turns.push({ question: asked, answers });
  const columns = h("div", { class: "columns", "data-columns": answers.length }, answers.map((answer) => answer.element));
  byId("welcome").hidden = true;
  const turn = h("li", {}, h("p", { class: "question" }, asked), columns);
  byId("conversation").append(turn);
  if (turns.length > 1) turn.scrollIntoView({ block: "start" }); // the first one is where it has to be
  say("Answering");
  setRunning(new AbortController());
  const ends = await Promise.all(answers.map((answer, i) => follow(answer, names[i], told[i], running.signal)));
  setRunning(null);
  turn.scrollIntoView({ block: "nearest" });
  say(ends.map((end, i) => (answers.length > 1 ? `${names[i]}: ${end}` : end)).join(" "));
}

/** Streams into `answer`; returns what to read out at its end. */
async function follow(answer, name, told, signal) {
  try {
    for await (const chunk of streamChat({ model: name, messages: told, ...options(cards.get(name)) }, key.value, signal)) answer.add(chunk);
    return answer.end();
  } catch (error) {
    if (error.name === "AbortError") return answer.stopped();
    if (error.status === 401) byId("settings").open = true;
    return answer.end(error.message);
  }
}

/** Said once per answer, not with every token. */
function say(text) {
  byId("status").textContent = text;
}

function setRunning(controller) {
  running = controller;
  byId("send").hidden = byId("clear").disabled = Boolean(controller);
  byId("stop").hidden = !controller;
  if (controller && document.activeElement === document.body) byId("stop").focus();
}

function setMeasure(name) {
  measure = MEASURES[name];
  byId("legend").replaceChildren(...legend(measure));
  for (const { answers } of turns) for (const answer of answers) answer.measure = measure;
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const asked = question.value.trim();
  if (running || !asked) return;
  question.value = "";
  hide();
  byId("settings").open = false;
  ask(asked);
});
question.addEventListener("keydown", (event) => {
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("ask").requestSubmit();
});
byId("stop").addEventListener("click", () => {
  running?.abort();
  question.focus();
});
byId("clear").addEventListener("click", () => {
  turns = [];
  byId("conversation").replaceChildren();
  byId("welcome").hidden = false;
  question.focus();
});
for (const select of [model, compare]) select.addEventListener("change", describeModels);
key.value = sessionStorage.getItem(KEY) ?? "";
key.addEventListener("change", () => {
  sessionStorage.setItem(KEY, key.value);
  loadModels();
});
ensemble.addEventListener("change", () => (members.disabled = !ensemble.checked));
byId("measures").append(
  ...Object.entries(MEASURES).map(([name, { label }], i) =>
    h("label", {}, h("input", { type: "radio", name: "measure", value: name, checked: i === 0 }), h("span", {}, label)),
  ),
);
byId("measures").addEventListener("change", (event) => setMeasure(event.target.value));
setMeasure("entropy");
loadModels();
