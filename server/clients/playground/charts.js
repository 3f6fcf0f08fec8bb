// The two small drawings under an answer.

import { added, h, number, svg, visible } from "./dom.js";
import { MEASURES, level } from "./scale.js";

const HEIGHT = 40;
const STEP = 6;
const LEAST_PARTS = 32; // bars of a short answer stay slim
const LEAST_TOP = 3; // nats: an answer without doubt looks flat instead of being blown up

/** One bar per part of the answer, as high as its entropy. */
export function sparkline(parts) {
  const known = parts.filter((part) => part.entropy !== null);
  if (!known.length) return null;
  const peak = known.reduce((highest, part) => (part.entropy > highest.entropy ? part : highest));
  const top = Math.max(LEAST_TOP, peak.entropy);
  const bars = parts.map((part, i) => {
    const height = Math.max(1.5, ((part.entropy ?? 0) / top) * HEIGHT);
    const look = { x: i * STEP + 0.5, y: HEIGHT - height, width: STEP - 1, height, rx: 1 };
    return svg("rect", { ...look, "data-level": level(MEASURES.entropy, part.entropy), "data-part": i });
  });
  const width = Math.max(parts.length, LEAST_PARTS) * STEP;
  const words = `Entropy along the answer: highest ${number(peak.entropy)} nats, at ${peak.text.trim() || visible(peak.text)}`;
  const drawing = svg(
    "svg",
    { viewBox: `0 0 ${width} ${HEIGHT}`, preserveAspectRatio: "none", role: "img", "aria-label": words },
    svg("line", { x1: 0, x2: width, y1: HEIGHT, y2: HEIGHT, class: "ground" }),
    bars,
  );
  return h(
    "figure",
    { class: "sparkline" },
    h("figcaption", {}, "Entropy along the answer"),
    drawing,
    h("p", {}, "highest ", h("b", {}, `${number(peak.entropy)} nats`), ` at “${peak.text.trim() || visible(peak.text)}”`),
  );
}

/** What each growth stage added to the tokens' logits, on average; null for a model that never grew. */
export function growthBars(growth) {
  if (!growth) return null;
  const stages = Object.entries(growth);
  const values = Object.values(growth);
  const [low, high] = [Math.min(0, ...values), Math.max(0, ...values)];
  const at = (nats) => (100 * (nats - low)) / (high - low || 1);
  const bars = stages.map(([, nats], i) => {
    const [from, to] = [at(Math.min(0, nats)), at(Math.max(0, nats))];
    return svg("rect", { x: from, y: 10 * i, width: to - from, height: 8, "data-stage": i });
  });
  const words = stages.map(([stage, nats]) => `${stage} ${added(nats)}`);
  return h(
    "figure",
    { class: "growth" },
    h("figcaption", {}, "What each growth stage adds to a token's logit, on average"),
    svg("svg", { viewBox: `0 0 100 ${10 * stages.length}`, height: 12 * stages.length, preserveAspectRatio: "none", role: "img", "aria-label": words.join(", ") }, bars),
    h(
      "ul",
      { "aria-hidden": "true" },
      words.map((text, i) => h("li", {}, h("span", { class: "key", "data-stage": i }), text)),
    ),
  );
}
