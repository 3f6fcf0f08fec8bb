// One model's answer to one question: the tinted tokens, and below them what the server says about the whole.

import { growthBars, sparkline } from "./charts.js";
import { describes, tokenDetail } from "./detail.js";
import { h, mnats, number, percent } from "./dom.js";
import { MEASURES, level } from "./scale.js";
import { TokenText, utf16Offset } from "./tokens.js";

export class Answer {
  /** What goes back to the model in the next question; null if this question has to be forgotten. */
  get text() {
    return this.#failed && !this.#tokens.text ? null : this.#tokens.text;
  }
  #tokens = new TokenText();
  /** As they came, also those without text. */
  #stream = [];
  #elements = [];
  #summary = null;
  #failed = false;
  #finish = null;
  #measure;

  constructor(card, measure) {
    this.#measure = measure;
    const stage = card?.growth_stage ? h("span", { class: "stage" }, card.growth_stage) : null;
    this.badge = h("p", { class: "badge" });
    this.plain = h("p", { class: "hidden" });
    this.line = h("div", { class: "tokens", role: "listbox", "aria-orientation": "horizontal", hidden: true });
    this.line.setAttribute("aria-label", `Tokens of the answer of ${card.id}`);
    this.notes = h("div", { class: "notes" });
    this.below = h("div", { class: "below" });
    const name = h("h2", {}, card.id, " ", stage);
    this.element = h("article", { class: "answer", "aria-busy": "true" }, [
      h("header", {}, name, this.badge),
      this.plain,
      this.line,
      this.notes,
      this.below,
    ]);
    this.line.addEventListener("keydown", (event) => this.#move(event));
  }

  add(chunk) {
    const choice = chunk.choices?.[0];
    if (!choice) return;
    const tokens = choice.logprobs?.content ?? [];
    this.#stream.push(...tokens);
    this.#show(this.#tokens.add(choice.delta?.content ?? "", tokens));
    if (choice.uncertainty) this.#summary = choice.uncertainty;
    if (choice.finish_reason) this.#finish = choice.finish_reason;
  }

  /** The stream is over; `error` says why, if not because the answer is complete. Returns what to read out. */
  end(error = null) {
    this.#show(this.#tokens.end());
    this.element.setAttribute("aria-busy", "false");
    this.#failed = Boolean(error);
    this.#learn(this.#summary ?? {});
    this.plain.textContent = this.#tokens.text;
    if (error) this.notes.append(h("p", { class: "error", role: "alert" }, error));
    if (this.#finish === "length") this.notes.append(h("p", { class: "note" }, "Cut off at the greatest length."));
    if (this.#finish === "content_filter") this.notes.append(h("p", { class: "note" }, "The server withholds the model's answer: its risk is too high."));
    if (!error && !this.#tokens.text) this.notes.append(h("p", { class: "note" }, "The answer is empty."));
    if (this.#summary) this.#conclude(this.#summary);
    this.below.append(...[sparkline(this.#tokens.parts), growthBars(this.#summary?.growth)].filter(Boolean));
    return error ?? `${this.#tokens.text} ${this.badge.textContent}`;
  }

  /** The user stopped it: the text so far stays. */
  stopped() {
    this.notes.append(h("p", { class: "note" }, "Stopped."));
    return this.end();
  }

  set measure(measure) {
    this.#measure = measure;
    this.#tokens.parts.forEach((_, i) => this.#tint(i));
  }

  #show(parts) {
    for (const part of parts) {
      part.entropy = highest(part, "entropy");
      part.variance = highest(part, "variance");
      part.epistemic = highest(part, "epistemic");
      part.growth = part.tokens.at(-1)?.growth ?? null;
      const first = this.#elements.length === 0;
      const element = h("span", { class: "token", role: "option", tabindex: first ? 0 : -1, "aria-selected": "false" });
      element.textContent = part.text;
      describes(element, () => tokenDetail(part));
      element.addEventListener("focus", () => this.#select(element));
      this.#elements.push(element);
      this.#tint(this.#elements.length - 1);
      this.line.append(element);
    }
    this.line.hidden = this.#elements.length === 0;
  }

  #tint(i) {
    const [part, element] = [this.#tokens.parts[i], this.#elements[i]];
    const value = this.#measure.value(part);
    element.dataset.level = level(this.#measure, value);
    element.classList.toggle("doubted", part.kind === "doubted");
    const said = value === null || value === undefined ? "" : `, ${this.#measure.label} ${this.#measure.format(value)}`;
    element.setAttribute("aria-label", `${part.text.trim() || "space"}${said}`);
  }

  /** What is known at the end only: the ensemble's numbers, and which parts to doubt (the highest risk of several). */
  #learn({ spans, epistemic, aleatoric }) {
    if (epistemic) this.#stream.forEach((token, i) => Object.assign(token, { ensemble: epistemic[i], aleatoric: aleatoric[i] }));
    for (const part of this.#tokens.parts) part.ensemble = highest(part, "ensemble");
    for (const span of spans ?? []) {
      const [start, end] = [span.start, span.end].map((offset) => utf16Offset(this.#tokens.text, offset));
      for (const part of this.#tokens.parts) {
        if (part.start >= end || part.start + part.text.length <= start) continue;
        if (part.risk === undefined || span.risk > part.risk) Object.assign(part, { risk: span.risk, reason: span.reason, kind: span.kind });
      }
    }
    this.measure = this.#measure;
  }

  #conclude(summary) {
    const peak = `highest entropy ${number(summary.max_entropy)} nats`;
    if (summary.risk === null) {
      this.badge.append(h("b", { "data-level": level(MEASURES.entropy, summary.max_entropy) }, peak));
      this.badge.append(summary.reason ? ` no risk: ${summary.reason.replaceAll("_", " ")}` : " not calibrated");
    } else {
      const risk = h("b", { "data-level": level(MEASURES.risk, summary.risk) }, `risk ${percent(summary.risk)}`);
      this.badge.append(risk, summary.calibrated ? "" : " not calibrated");
    }
    for (const [kind, title] of [["doubted", "To doubt:"], ["undecided", "Undecided:"]]) {
      const reasons = (summary.spans ?? []).filter((span) => span.kind === kind).map((span) => {
        const risk = span.risk === null ? "" : `, risk ${percent(span.risk)}`;
        return h("li", {}, h("b", {}, span.text.trim()), `: ${span.reason}${risk}`);
      });
      if (reasons.length) this.notes.append(h("p", {}, title), h("ul", { class: "reasons" }, reasons));
    }
    if (summary.abstain) this.notes.append(h("p", { class: "note" }, "Flagged: the risk is above the limit that the calibration recommends."));
    this.below.before(figures(summary));
  }

  #select(element) {
    for (const other of this.#elements) {
      other.tabIndex = other === element ? 0 : -1;
      other.setAttribute("aria-selected", String(other === element));
    }
  }

  #move(event) {
    const at = this.#elements.indexOf(document.activeElement);
    const last = this.#elements.length - 1;
    const to = { ArrowRight: at + 1, ArrowDown: at + 1, ArrowLeft: at - 1, ArrowUp: at - 1, Home: 0, End: last }[event.key];
    if (to === undefined) return;
    event.preventDefault();
    this.#elements[Math.max(0, Math.min(last, to))].focus();
  }
}

/** Of the tokens that a part came from; null if none says this. */
const highest = ({ tokens }, name) => tokens.reduce((top, token) => (token[name] > (top ?? -1) ? token[name] : top), null);

function figures(summary) {
  const nats = (value) => `${number(value)} nats`;
  const epistemic = summary.estimator === "ensemble" ? nats : mnats;
  const rows = [
    ["Mean entropy", summary.mean_entropy, nats],
    ["Worst 8 tokens", summary.worst_window_entropy, nats],
    ["Mean epistemic", summary.mean_epistemic, epistemic],
    ["Highest epistemic", summary.max_epistemic, epistemic],
    ["Mean aleatoric", summary.mean_aleatoric, nats],
    ["Mean variance", summary.mean_variance, (value) => `${number(value)} nats²`],
    ["Lowest probability", summary.min_logprob, (value) => `${number(100 * Math.exp(value))} %`],
  ].filter(([, value]) => value !== null && value !== undefined);
  const known = summary.calibration ? [h("dt", {}, "Calibration"), h("dd", {}, summary.calibration)] : [];
  return h(
    "dl",
    { class: "figures" },
    rows.map(([name, value, format]) => h("div", {}, h("dt", {}, name), h("dd", {}, format(value)))),
    known.length ? h("div", {}, known) : null,
  );
}
