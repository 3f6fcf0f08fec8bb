// From a token's number to one of nine levels, whose looks are in style.css: darker in light mode, lighter in dark
// mode, always monotone in luminance, and underlined ever more thickly, so that no level is told by its hue alone.

import { added, h, number, percent } from "./dom.js";

/** `value` takes what a token says (null: nothing); a value at or above `bounds[i]` is of level i + 1 at least. */
export const MEASURES = {
  entropy: {
    label: "Entropy",
    unit: "nats",
    about: "how many continuations were plausible",
    bounds: [0.1, 0.25, 0.5, 1, 1.5, 2, 2.5, 3],
    value: (token) => token.entropy,
    format: (value) => number(value),
  },
  variance: {
    label: "Variance",
    unit: "nats²",
    about: "how much the surprise varies between the continuations",
    bounds: [0.1, 0.25, 0.5, 1, 2, 3, 4, 6],
    value: (token) => token.variance,
    format: (value) => number(value),
  },
  risk: {
    label: "Risk",
    unit: "%",
    about: "how likely a doubtful part is wrong; known once the answer is complete",
    bounds: [0.05, 0.1, 0.2, 0.3, 0.4, 0.5, 0.65, 0.8],
    value: (token) => token.risk,
    format: percent,
  },
  epistemic: {
    label: "Epistemic",
    unit: "mnats",
    about: "how much the token depends on individual parameters, in thousandths of a nat",
    bounds: [1, 2, 4, 6, 9, 13, 20, 30],
    value: (token) => (token.epistemic === null ? null : 1000 * token.epistemic),
    format: (value) => number(value),
  },
  ensemble: {
    label: "Ensemble",
    unit: "nats",
    about: "how much the members of an ensemble disagree",
    bounds: [0.05, 0.1, 0.2, 0.3, 0.45, 0.6, 0.9, 1.2],
    value: (token) => token.ensemble,
    format: (value) => number(value),
  },
  growth: {
    label: "Newest stage",
    unit: "nats",
    about: "how much the newest growth stage speaks for the token",
    bounds: [0.25, 0.5, 1, 1.5, 2, 3, 4, 6],
    value: (token) => (token.growth ? Object.values(token.growth).at(-1) : null),
    format: added,
  },
};

export const LEVELS = 9;

/** 0 to 8; a token without the number is of level 0. */
export function level(measure, value) {
  if (value === null || value === undefined) return 0;
  return measure.bounds.filter((bound) => value >= bound).length;
}

export function legend(measure) {
  const steps = [0, ...measure.bounds].map((bound, i) => {
    const label = measure.unit === "%" ? String(Math.round(100 * bound)) : String(bound);
    return h("li", {}, h("span", { class: "swatch", "data-level": i, "aria-hidden": "true" }), label);
  });
  return [
    h("p", {}, h("b", {}, `${measure.label}, ${measure.unit}`), h("span", {}, `: ${measure.about}`)),
    h("ol", { "aria-label": `Scale of ${measure.label}: each step begins at` }, steps),
  ];
}
