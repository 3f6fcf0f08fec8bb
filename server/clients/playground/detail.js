// The one tooltip: the numbers of the token under the pointer or the focus, and what else could have stood there.

import { added, byId, h, mnats, number, percent, svg, visible } from "./dom.js";

const box = byId("detail");
const GAP = 6;
let shownFor = null;
let leaving = 0;

/** Lets pointer and focus on `element` show `describe()`, made anew every time. */
export function describes(element, describe) {
  element.addEventListener("pointerenter", () => show(element, describe));
  element.addEventListener("pointerleave", leave);
  element.addEventListener("focus", () => show(element, describe));
  element.addEventListener("blur", hide);
}

export function hide() {
  clearTimeout(leaving);
  shownFor?.removeAttribute("aria-describedby");
  shownFor = null;
  box.hidden = true;
}

function leave() {
  leaving = setTimeout(hide, 150); // long enough for the pointer to reach the tooltip itself
}

box.addEventListener("pointerenter", () => clearTimeout(leaving));
box.addEventListener("pointerleave", leave);
document.addEventListener("keydown", (event) => event.key === "Escape" && hide());
addEventListener("scroll", place, { passive: true });
addEventListener("resize", place);

function show(element, describe) {
  hide();
  shownFor = element;
  box.replaceChildren(...describe());
  box.hidden = false;
  element.setAttribute("aria-describedby", box.id);
  place();
}

/** Above the token if there is room, and never outside of the window. */
function place() {
  if (!shownFor?.isConnected) return hide(); // its turn may have been taken back
  // The script may place the box where markup may not: the policy forbids style attributes, not the style property.
  const at = shownFor.getClientRects()[0];
  const { width, height } = box.getBoundingClientRect();
  const { clientWidth, clientHeight } = document.documentElement;
  const above = at.top - height - GAP;
  const below = Math.min(at.bottom + GAP, clientHeight - height - GAP);
  box.style.left = `${Math.max(GAP, Math.min(at.left, clientWidth - width - GAP))}px`;
  box.style.top = `${above >= GAP ? above : below}px`;
}

/** What the tooltip says of one part of the answer. */
export function tokenDetail(part) {
  const token = part.tokens.at(-1);
  if (!token) return [h("p", {}, "This text belongs to no single token.")];
  const rows = [
    ["Entropy", part.entropy, (value) => `${number(value, 3)} nats`],
    ["Epistemic", part.epistemic, (value) => mnats(value, 3)],
    ["Ensemble", part.ensemble, (value) => `${number(value, 3)} nats`],
    ["Aleatoric", token.aleatoric, (value) => `${number(value, 3)} nats`],
    ["Variance", token.variance, (value) => `${number(value, 3)} nats²`],
    ["Probability", Math.exp(token.logprob), percent],
    ["Rank", token.rank, String],
    ["Lead over the next", token.margin, percent],
    ...Object.entries(token.growth ?? {}).map(([stage, nats]) => [`Stage ${stage}`, nats, added]),
    ["Risk", part.risk, percent],
  ].filter(([, value]) => value !== null && value !== undefined);
  return [
    h("p", { class: "token-text" }, visible(part.text)),
    part.reason ? h("p", { class: "reason" }, part.reason) : null,
    h("dl", {}, rows.map(([name, value, format]) => [h("dt", {}, name), h("dd", {}, format(value))])),
    alternatives(token),
  ].filter(Boolean);
}

function alternatives(token) {
  if (!token.top_logprobs?.length) return null;
  const rows = token.top_logprobs.map((other) => {
    const probability = Math.exp(other.logprob);
    const chosen = other.token === token.token;
    const bar = svg("rect", { x: 0, y: 0, width: 100 * probability, height: 10 });
    return h(
      "li",
      { class: chosen ? "chosen" : null },
      h("span", {}, visible(other.token), chosen ? h("span", { class: "hidden" }, " (chosen)") : null),
      svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", "aria-hidden": "true" }, bar),
      h("span", {}, percent(probability)),
    );
  });
  return h("div", { class: "alternatives" }, h("p", {}, "Likeliest here"), h("ol", {}, rows));
}
