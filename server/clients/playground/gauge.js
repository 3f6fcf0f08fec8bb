// How full the model's context is.

import { byId } from "./dom.js";

const FULL = 0.8; // the share from which on the page offers a way out

const [gauge, meter, text, notice] = ["gauge", "context", "context-text", "full"].map(byId);

/** `used` of `length` tokens; null where either is unknown. */
export function showContext(used, length) {
  const known = used !== null && length !== null;
  gauge.hidden = !known;
  notice.hidden = !known || used < FULL * length;
  if (!known) return;
  Object.assign(meter, { max: length, value: used, low: FULL * length, high: FULL * length, optimum: 0 });
  text.textContent = `${used} / ${length}`;
  gauge.title = `${used} of ${length} tokens of the context are in use`;
}
