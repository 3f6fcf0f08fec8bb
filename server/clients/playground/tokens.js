// Lays the tokens of a stream over the text of the answer.
//
// The two do not simply agree: text is held back while it may still become a stop string, a special token has no
// text, and a character may be spread over several tokens.

export class TokenText {
  text = "";
  /** Parts of `text` in order, {text, tokens, start}: the tokens that one part came from, start in UTF-16 units. */
  parts = [];
  #laid = 0;
  #waiting = [];
  #bytes = new TextDecoder("utf-8", { ignoreBOM: true });
  #split = [];

  /** Adds what one chunk brought; returns the parts that became complete by it. */
  add(text, tokens) {
    this.text += text;
    for (const token of tokens) {
      this.#split.push(token);
      const decoded = token.bytes ? this.#bytes.decode(new Uint8Array(token.bytes), { stream: true }) : token.token;
      if (decoded === "" && token.bytes?.length) continue; // the rest of the character comes with the next token
      this.#waiting.push({ text: decoded, tokens: this.#split });
      this.#split = [];
    }
    return this.#lay(false);
  }

  /** The parts that are left when the answer is complete; text that no token accounts for has none. */
  end() {
    const parts = this.#lay(true);
    if (this.#laid < this.text.length) parts.push(this.#part(this.text.slice(this.#laid), []));
    return parts;
  }

  #lay(complete) {
    const parts = [];
    while (this.#waiting.length) {
      const { text, tokens } = this.#waiting[0];
      const left = this.text.slice(this.#laid);
      // Some tokenizers' first token has a space that the answer has not.
      const own = this.#laid === 0 && !left.startsWith(text) ? text.trimStart() : text;
      const cut = complete && left !== "" && own.startsWith(left); // a stop string ended the answer within a token
      if (!cut && left.length < own.length && own.startsWith(left) && !complete) break; // held back
      this.#waiting.shift();
      if (own && (cut || left.startsWith(own))) parts.push(this.#part(cut ? left : own, tokens));
    }
    return parts;
  }

  #part(text, tokens) {
    const part = { text, tokens, start: this.#laid };
    this.#laid += text.length;
    this.parts.push(part);
    return part;
  }
}

/** Offsets of the API count characters, those of JavaScript UTF-16 units. */
export function utf16Offset(text, characters) {
  return [...text].slice(0, characters).join("").length;
}
