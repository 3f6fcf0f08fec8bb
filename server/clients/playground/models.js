// The models that the server lists, the two pickers, and what the chosen ones can report.

import { byId, h } from "./dom.js";

const [model, compare] = [byId("model"), byId("compare")];

/** Cards of /v1/models by name. */
let cards = new Map();

export const card = (name) => cards.get(name) ?? { id: name };

/** The models to ask: one, or two to compare. */
export const chosen = () => [model.value, compare.value].filter((name, i) => i === 0 || name);

/** Whether any of the chosen models reports this; a card without `capabilities` reports everything. */
export const can = (capability) => chosen().some((name) => card(name).capabilities?.[capability] ?? true);

/** Tokens that fit into a model's context. Only the base has it on its card. */
export const contextLength = (name) => card(name).max_model_len ?? card(card(name).parent).max_model_len ?? null;

export function setModels(listed) {
  cards = new Map(listed.map((card) => [card.id, card]));
  const options = (kept) => [...cards.keys()].map((id) => h("option", { value: id, selected: id === kept }, id));
  model.replaceChildren(...options(model.value));
  compare.replaceChildren(h("option", { value: "" }, "nothing"), ...options(compare.value));
  byId("comparison").hidden = cards.size < 2;
  describe();
}

/** Choose the newest stage, and `stage` (null: nothing) to compare it with. */
export function compareWith(stage) {
  const [first] = cards.keys();
  model.value = first;
  compare.value = [...cards.values()].find((card) => stage && card.growth_stage === stage)?.id ?? "";
  compare.dispatchEvent(new Event("change"));
}

export const hasStage = (stage) => [...cards.values()].some((card) => card.growth_stage === stage);

/** Calls `changed` whenever another model is chosen. */
export function onChoice(changed) {
  for (const select of [model, compare]) {
    select.addEventListener("change", () => {
      describe();
      changed();
    });
  }
}

function describe() {
  for (const select of [model, compare]) {
    const known = cards.get(select.value);
    select.title = select.value; // its box may be too narrow for it
    byId(`${select.id}-card`).textContent = known ? words(known) : "";
  }
}

function words(card) {
  const tokens = Object.values(card.parameter_tokens ?? {}).reduce((sum, count) => sum + count, 0);
  const parts = [
    card.growth_stage && `stage ${card.growth_stage}`,
    tokens && `${tokens.toLocaleString("en")} parameter tokens`,
    card.calibration ? "calibrated" : "not calibrated",
  ];
  return parts.filter(Boolean).join(" · ");
}
