// The page: it loads the models and the example questions, asks, and wires the controls.

import { listExamples, listModels, streamChat } from "./api.js";
import { Conversation, Turn } from "./conversation.js";
import { hide } from "./detail.js";
import { byId, h, reveal } from "./dom.js";
import { showContext } from "./gauge.js";
import { can, chosen, compareWith, hasStage, onChoice, setModels } from "./models.js";
import { MEASURES, legend } from "./scale.js";
import * as settings from "./settings.js";
import { save, showCurl } from "./sharing.js";

const question = byId("question");
const conversation = new Conversation();
const ACTIONS = [
  { label: "Retry", act: retry, ofLast: true },
  { label: "Edit", act: edit, ofLast: true },
  { label: "Show as curl", act: (turn) => showCurl(turn.requests, settings.apiKey()) },
];
let measure = MEASURES.entropy;
let running = null;
/** The turn whose place the next question takes; null for none. */
let replaced = null;

async function load() {
  byId("model-error")?.remove();
  try {
    setModels(await listModels(settings.apiKey()));
  } catch (error) {
    byId("welcome").after(h("p", { id: "model-error", class: "error", role: "alert" }, error.message));
    if (error.status === 401) settings.open(true);
    return;
  }
  showMeasures();
  byId("chips").replaceChildren(...(await listExamples(settings.apiKey())).filter(isServed).map(chip));
}

const isServed = ({ compare }) => !compare || hasStage(compare);

function chip({ label, about, question: asked, compare }) {
  const button = h("button", { type: "button", class: "chip" }, h("small", {}, h("b", {}, label), `: ${about}`), h("span", {}, asked));
  button.addEventListener("click", () => {
    if (running) return;
    compareWith(compare);
    ask(asked);
  });
  return h("li", {}, button);
}

async function ask(asked) {
  hide();
  settings.open(false);
  if (replaced) conversation.drop(replaced);
  mark(null);
  const names = chosen();
  const turn = new Turn(asked, names, measure, ACTIONS);
  turn.requests = names.map((name, i) => settings.request(name, conversation.messages(i, asked)));
  conversation.add(turn);
  byId("welcome").hidden = true;
  if (conversation.turns.length > 1) turn.element.scrollIntoView({ block: "start" }); // the first one is where it has to be
  say("Answering");
  setRunning(new AbortController());
  const ends = await Promise.all(turn.answers.map((answer, i) => follow(answer, turn.requests[i], running.signal)));
  setRunning(null);
  conclude(turn);
  say(ends.map((end, i) => (names.length > 1 ? `${names[i]}: ${end}` : end)).join(" "));
}

/** Streams into `answer`; returns what to read out at its end. */
async function follow(answer, request, signal) {
  try {
    for await (const chunk of streamChat(request, settings.apiKey(), signal)) answer.add(chunk);
    return answer.end();
  } catch (error) {
    if (error.name === "AbortError") return answer.stopped();
    if (error.status === 401) settings.open(true);
    return answer.end(error);
  }
}

/** A question without an answer stays in the box, and one that did not fit can be asked without what was before it. */
function conclude(turn) {
  if (turn.unanswered) {
    if (!question.value.trim()) question.value = turn.question;
    mark(turn);
  }
  if (turn.overflowed && conversation.remembersBefore(turn)) {
    const button = h("button", { type: "button", class: "quiet" }, "Forget earlier turns and ask again");
    button.addEventListener("click", () => {
      conversation.forget(turn);
      retry(turn);
    });
    turn.element.querySelector(".actions").prepend(button);
  }
  const context = turn.context;
  showContext(context?.used ?? null, context?.length ?? null);
  reveal(turn.element);
}

function retry(turn) {
  if (question.value.trim() === turn.question) question.value = "";
  mark(turn);
  ask(turn.question);
}

function edit(turn) {
  mark(turn);
  question.value = turn.question;
  question.focus();
}

/** `turn` is replaced by the next question. */
function mark(turn) {
  replaced?.element.classList.remove("replaced");
  replaced = turn;
  replaced?.element.classList.add("replaced");
}

/** Said once per answer, not with every token. */
function say(text) {
  byId("status").textContent = text;
}

function setRunning(controller) {
  running = controller;
  const lost = [document.body, byId("stop"), byId("send")].includes(document.activeElement);
  byId("send").hidden = byId("clear").disabled = byId("export").disabled = Boolean(controller);
  byId("stop").hidden = !controller;
  for (const turn of conversation.turns) for (const button of turn.buttons) button.disabled = Boolean(controller);
  if (lost) byId(controller ? "stop" : "send").focus();
}

function setMeasure(name) {
  measure = MEASURES[name];
  byId("legend").replaceChildren(...legend(measure));
  for (const { answers } of conversation.turns) for (const answer of answers) answer.measure = measure;
}

/** Only those that a chosen model reports. */
function showMeasures() {
  const reported = { epistemic: can("epistemic"), growth: can("growth"), ensemble: settings.asksEnsemble() };
  for (const input of byId("measures").querySelectorAll("input")) {
    input.closest("label").hidden = !(reported[input.value] ?? true);
    if (!input.checked || !input.closest("label").hidden) continue;
    byId("measures").querySelector("[value=entropy]").checked = true;
    setMeasure("entropy");
  }
  byId("ensemble-setting").hidden = !can("ensemble");
}

byId("ask").addEventListener("submit", (event) => {
  event.preventDefault();
  const asked = question.value.trim();
  if (running || !asked) return;
  question.value = "";
  ask(asked);
});
question.addEventListener("keydown", (event) => {
  if (event.key === "Escape") mark(null);
  if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
  event.preventDefault();
  byId("ask").requestSubmit();
});
byId("stop").addEventListener("click", () => {
  running?.abort();
  question.focus();
});
byId("clear").addEventListener("click", () => {
  hide();
  mark(null);
  conversation.clear();
  showContext(null, null);
  byId("export").disabled = true;
  byId("welcome").hidden = false;
  question.focus();
});
byId("forget").addEventListener("click", () => {
  conversation.forget();
  showContext(null, null);
  question.focus();
});
byId("export").addEventListener("click", () => save(conversation.exported(), "tokenformer-chat.json"));
onChoice(showMeasures);
settings.onSettings(load, showMeasures);
byId("measures").append(
  ...Object.entries(MEASURES).map(([name, { label }], i) =>
    h("label", {}, h("input", { type: "radio", name: "measure", value: name, checked: i === 0 }), h("span", {}, label)),
  ),
);
byId("measures").addEventListener("change", (event) => setMeasure(event.target.value));
// What sticks to the top and bottom must not hide what is scrolled to.
for (const id of ["bar", "dock"]) {
  new ResizeObserver(([{ target }]) => document.documentElement.style.setProperty(`--${id}`, `${target.offsetHeight}px`)).observe(byId(id));
}
setMeasure("entropy");
load();
