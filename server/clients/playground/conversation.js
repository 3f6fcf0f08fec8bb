// The turns of the conversation, and what the models are told of them.

import { Answer } from "./answer.js";
import { byId, h } from "./dom.js";
import { card } from "./models.js";

const list = byId("conversation");

/** One question, and an answer per model that was asked. */
export class Turn {
  /** Whether the models are not told of it any more. */
  forgotten = false;
  /** The bodies of its requests, one per model. */
  requests = [];

  /** `actions`: what can be done with the turn, {label, act: function of the turn, ofLast: whether of the last turn only}. */
  constructor(question, models, measure, actions) {
    this.question = question;
    this.answers = models.map((name) => new Answer(card(name), measure));
    this.buttons = actions.map(({ label, act, ofLast }) => {
      const button = h("button", { type: "button", class: ofLast ? "quiet of-last" : "quiet" }, label);
      button.addEventListener("click", () => act(this));
      return button;
    });
    const columns = h("div", { class: "columns", "data-columns": models.length }, this.answers.map((answer) => answer.element));
    this.element = h("li", {}, h("p", { class: "question" }, question), columns, h("div", { class: "actions" }, this.buttons));
  }

  /** Whether no model has said anything, so that the question is still open. */
  get unanswered() {
    return this.answers.every((answer) => answer.text === null);
  }

  /** Whether the conversation did not fit into the context of a model. */
  get overflowed() {
    return this.answers.some((answer) => answer.overflowed);
  }

  /** Tokens of the fullest context, {used, length}, or null where no model has told. */
  get context() {
    const told = this.answers.map((answer) => answer.context).filter((context) => context && context.length);
    return told.reduce((fullest, context) => (!fullest || context.used / context.length > fullest.used / fullest.length ? context : fullest), null);
  }
}

export class Conversation {
  turns = [];

  add(turn) {
    this.turns.push(turn);
    list.append(turn.element);
  }

  /** Takes the turn back. */
  drop(turn) {
    this.turns = this.turns.filter((other) => other !== turn);
    turn.element.remove();
  }

  clear() {
    this.turns = [];
    list.replaceChildren();
  }

  /** Whether the models are told of any turn before `turn`. */
  remembersBefore(turn) {
    return this.turns.some((other) => other !== turn && !other.forgotten && !other.unanswered);
  }

  /** Start anew for the models; the reader keeps what was said. `turn` (null: none) stays below the mark. */
  forget(turn = null) {
    for (const other of this.turns) if (other !== turn) other.forgotten = true;
    list.querySelector(".forgotten")?.remove();
    const mark = h("li", { class: "forgotten" }, "The model is no longer told what stands above.");
    if (turn) turn.element.before(mark);
    else list.append(mark);
  }

  /** What column `index` is told: the questions so far and its own answers, or the first column's where it had none. */
  messages(index, asked) {
    const told = this.turns.flatMap(({ question, answers, forgotten }) => {
      const text = (answers[index] ?? answers[0]).text;
      return forgotten || text === null ? [] : [message("user", question), message("assistant", text)];
    });
    return [...told, message("user", asked)];
  }

  /** Everything that was asked and answered, with all numbers. */
  exported() {
    return {
      server: new URL("./", document.baseURI).href,
      turns: this.turns.map(({ question, requests, answers }) => ({
        question,
        answers: answers.map((answer, i) => ({ request: requests[i], ...answer.exported() })),
      })),
    };
  }
}

const message = (role, content) => ({ role, content });
