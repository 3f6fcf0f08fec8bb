// The two small drawings under an answer.

import { h, number, percent, svg, visible } from "./dom.js";
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

/** Each growth stage's share in the answer; null for a model that never grew. */
export function provenance(growth) {
  if (!growth) return null;
  let left = 0;
  const stages = Object.entries(growth);
  const bars = stages.map(([, share], i) => {
    const bar = svg("rect", { x: 100 * left, y: 0, width: 100 * share, height: 10, "data-stage": i });
    left += share;
    return bar;
  });
  const words = stages.map(([stage, share]) => `${stage} ${percent(share)}`).join(", ");
  return h(
    "figure",
    { class: "provenance" },
    h("figcaption", {}, "Growth stages drawn on"),
    svg("svg", { viewBox: "0 0 100 10", preserveAspectRatio: "none", role: "img", "aria-label": words }, bars),
    h(
      "ul",
      { "aria-hidden": "true" },
      stages.map(([stage, share], i) => h("li", {}, h("span", { class: "key", "data-stage": i }), `${stage} ${percent(share)}`)),
    ),
  );
}
