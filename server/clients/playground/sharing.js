// What leaves the page: copied text, the curl command of a request, and the conversation as a file.

import { byId } from "./dom.js";

/** Copies a text; `button` says that it has. */
export async function copy(text, button) {
  const label = button.textContent;
  button.textContent = (await copied(text)) ? "Copied" : "Not copied";
  setTimeout(() => (button.textContent = label), 1500);
}

async function copied(text) {
  if (navigator.clipboard) {
    return navigator.clipboard.writeText(text).then(
      () => true,
      () => false,
    );
  }
  // Browsers offer no clipboard to pages without TLS, except from this machine.
  const area = document.createElement("textarea");
  area.value = text;
  (document.querySelector("dialog[open]") ?? document.body).append(area);
  area.select();
  const done = document.execCommand("copy");
  area.remove();
  return done;
}

/** The command for a shell. The key is left to a variable: it would stay in the shell's history. */
export function curl(body, key) {
  const quoted = JSON.stringify(body, null, 1).replaceAll("'", String.raw`'\''`);
  const lines = [`curl ${new URL("v1/chat/completions", document.baseURI)}`, "-H 'Content-Type: application/json'"];
  if (key) lines.push('-H "Authorization: Bearer $OPENAI_API_KEY"');
  return [...lines, `-d '${quoted}'`].join(" \\\n  ");
}

export function showCurl(bodies, key) {
  byId("command").textContent = bodies.map((body) => curl(body, key)).join("\n\n");
  byId("curl").showModal();
}

/** Saves `content` as a file of JSON. */
export function save(content, name) {
  const url = URL.createObjectURL(new Blob([JSON.stringify(content, null, 1)], { type: "application/json" }));
  const link = document.createElement("a");
  Object.assign(link, { href: url, download: name });
  link.click();
  URL.revokeObjectURL(url);
}

byId("copy-command").addEventListener("click", (event) => copy(byId("command").textContent, event.target));
