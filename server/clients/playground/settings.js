// The settings, and the requests that follow from them.

import { byId, reveal } from "./dom.js";
import { can, card } from "./models.js";

const KEY = "tokenformer-api-key";
const [button, panel, key, system] = [byId("settings"), byId("panel"), byId("key"), byId("system")];
const [temperature, maxTokens, ensemble, members] = ["temperature", "max-tokens", "ensemble", "members"].map(byId);

export const apiKey = () => key.value;
export const asksEnsemble = () => ensemble.checked && can("ensemble");

export function open(opened) {
  panel.hidden = !opened;
  button.setAttribute("aria-expanded", String(opened));
  const error = [...document.querySelectorAll(".error")].at(-1);
  if (opened && error) reveal(error); // the settings must not cover what they are to mend
}

/** The body of a chat completion. */
export function request(model, messages) {
  const uncertainty = { tokens: true, spans: true };
  const calibration = card(model).calibration;
  if (calibration?.abstain) uncertainty.abstain_above = calibration.abstain.above;
  if (asksEnsemble()) uncertainty.ensemble = members.valueAsNumber;
  const told = system.value.trim() ? [{ role: "system", content: system.value.trim() }, ...messages] : messages;
  const body = { model, messages: told, temperature: temperature.valueAsNumber || 0 };
  if (maxTokens.value) body.max_tokens = maxTokens.valueAsNumber;
  return { ...body, logprobs: true, top_logprobs: 5, uncertainty };
}

/** Calls `changed` when another key was entered, and `switched` when the ensemble is switched on or off. */
export function onSettings(changed, switched) {
  key.value = sessionStorage.getItem(KEY) ?? "";
  key.addEventListener("change", () => {
    sessionStorage.setItem(KEY, key.value);
    changed();
  });
  ensemble.addEventListener("change", () => {
    members.disabled = !ensemble.checked;
    switched();
  });
  button.addEventListener("click", () => open(panel.hidden));
  panel.addEventListener("keydown", (event) => {
    if (event.key !== "Escape") return;
    open(false);
    button.focus();
  });
}
