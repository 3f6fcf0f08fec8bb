// One model's answer to one question: the tinted tokens, and below them what the server says about the whole.

import { growthBars, sparkline } from "./charts.js";
import { describes, tokenDetail } from "./detail.js";
import { h, mnats, number, percent } from "./dom.js";
import { contextLength } from "./models.js";
import { MEASURES, level } from "./scale.js";
import { copy } from "./sharing.js";
import { TokenText, utf16Offset } from "./tokens.js";

const WIDE = matchMedia("(min-width: 48rem)");

export class Answer {
  /** What goes back to the model in the next question; null if this question has to be forgotten. */
  get text() {
    return this.#broken && !this.#tokens.text ? null : this.#tokens.text;
  }
  /** Whether the conversation did not fit into the model's context. */
  overflowed = false;
  #tokens = new TokenText();
  /** As they came, also those without text. */
  #stream = [];
  #elements = [];
  #summary = null;
  #usage = null;
  /** Whether it ended before it was complete. */
  #broken = false;
  #finish = null;
  #measure;
  #model;

  constructor(card, measure) {
    this.#measure = measure;
    this.#model = card.id;
    const stage = card?.growth_stage ? h("span", { class: "stage" }, card.growth_stage) : null;
    this.badge = h("p", { class: "badge" });
    this.plain = h("p", { class: "hidden" });
    this.line = h("div", { class: "tokens", role: "listbox", "aria-orientation": "horizontal", hidden: true });
    this.line.setAttribute("aria-label", `Tokens of the answer of ${card.id}`);
    this.notes = h("div", { class: "notes" });
    this.below = h("div", { class: "below" });
    this.more = h("details", { class: "more", open: WIDE.matches, hidden: true }, h("summary", {}, "Details"), this.below);
    this.copy = h("button", { type: "button", class: "quiet", hidden: true }, "Copy");
    const name = h("h2", {}, card.id, " ", stage);
    this.element = h("article", { class: "answer", "aria-busy": "true" }, [
      h("header", {}, name, this.badge, this.copy),
      this.plain,
      this.line,
      this.notes,
      this.more,
    ]);
    this.copy.addEventListener("click", () => copy(this.#tokens.text, this.copy));
    this.line.addEventListener("keydown", (event) => this.#move(event));
  }

  /** Tokens of its context: {used, length}; null if the server has not told. */
  get context() {
    return this.#usage && { used: this.#usage.total_tokens, length: contextLength(this.#model) };
  }

  exported() {
    const told = { text: this.#tokens.text, finish_reason: this.#finish, complete: !this.#broken };
    return { model: this.#model, ...told, tokens: this.#stream, uncertainty: this.#summary, usage: this.#usage };
  }

  add(chunk) {
    if (chunk.usage) this.#usage = chunk.usage;
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
    this.#broken ||= Boolean(error);
    this.overflowed = error?.code === "context_length_exceeded";
    this.#show(this.#tokens.end());
    this.element.setAttribute("aria-busy", "false");
    this.#learn(this.#summary ?? {});
    const text = (this.plain.textContent = this.#tokens.text);
    this.copy.hidden = !text;
    if (error) this.notes.append(h("p", { class: "error", role: "alert" }, error.message));
    for (const note of this.#remarks(error)) this.notes.append(h("p", { class: "note" }, note));
    if (this.#summary) this.#conclude(this.#summary);
    else if (text) this.badge.append(peak(this.#tokens.parts.reduce((top, part) => Math.max(top, part.entropy ?? 0), 0)));
    this.below.append(...[sparkline(this.#tokens.parts), growthBars(this.#summary?.growth)].filter(Boolean));
    this.more.hidden = !this.#summary && !this.below.hasChildNodes();
    return error?.message ?? `${text} ${this.badge.textContent}`;
  }

  /** The user stopped it: the text so far stays, and its tokens say how uncertain they are. */
  stopped() {
    this.#broken = true;
    this.notes.append(h("p", { class: "note" }, "Stopped."));
    return this.end();
  }

  #remarks(error) {
    return [
      this.#finish === "length" && "Cut off at the token limit.",
      this.#finish === "content_filter" && "The server withholds the model's answer because its risk is too high.",
      !error && !this.#broken && !this.#tokens.text && "The answer is empty.",
      this.#summary?.abstain && "Flagged: the risk is above the limit that the calibration recommends.",
    ].filter(Boolean);
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
    if (summary.risk === null) {
      this.badge.append(peak(summary.max_entropy), " ", summary.reason ? `no risk: ${summary.reason.replaceAll("_", " ")}` : "not calibrated");
    } else {
      const risk = h("b", { "data-level": level(MEASURES.risk, summary.risk) }, `risk ${percent(summary.risk)}`);
      this.badge.append(risk, summary.calibrated ? "" : " not calibrated");
    }
    for (const [kind, title] of [["doubted", "Doubtful:"], ["undecided", "Uncertain:"]]) {
      const reasons = (summary.spans ?? []).filter((span) => span.kind === kind).map((span) => {
        const risk = span.risk === null ? "" : `, risk ${percent(span.risk)}`;
        return h("li", {}, h("b", {}, span.text.trim()), `: ${span.reason}${risk}`);
      });
      if (reasons.length) this.notes.append(h("p", {}, title), h("ul", { class: "reasons" }, reasons));
    }
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

const peak = (entropy) => h("b", { "data-level": level(MEASURES.entropy, entropy) }, `highest entropy ${number(entropy)} nats`);

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
