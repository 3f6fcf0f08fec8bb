// Elements are built here and nowhere else. Text only ever becomes text nodes, so nothing a model says is markup.

const SVG = "http://www.w3.org/2000/svg";

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== null && value !== undefined && value !== false) element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined));
  return element;
}

export const h = (tag, attributes = {}, ...children) => build(document.createElement(tag), attributes, children);
export const svg = (tag, attributes = {}, ...children) => build(document.createElementNS(SVG, tag), attributes, children);
export const byId = (id) => document.getElementById(id);

/** Scrolls to an element, or to its beginning if it is too high for the room between the bars. This happens two frames
 * later, when the new heights of the bars are known. */
export function reveal(element) {
  const scroll = () => {
    const room = innerHeight - byId("bar").offsetHeight - byId("dock").offsetHeight;
    element.scrollIntoView({ block: element.offsetHeight < room ? "nearest" : "start" });
  };
  requestAnimationFrame(() => requestAnimationFrame(scroll));
}

/** What is not quite 0 or 1 does not become it by rounding. */
export function percent(share) {
  if (share > 0 && share < 0.0005) return "<0.1 %";
  if (share > 0.995 && share < 1) return ">99 %";
  return `${(100 * share).toFixed(share < 0.1 ? 1 : 0)} %`;
}
/** The closed form's numbers are small. */
export const mnats = (nats, digits = 2) => `${(1000 * nats).toFixed(digits)} mnats`;
export const added = (nats) => `${nats < 0 ? "" : "+"}${nats.toFixed(2)} nats`;
export const number = (value, digits = 2) => (value === null || value === undefined ? "–" : value.toFixed(digits));

/** Text of which every character can be seen. */
export const visible = (text) => text.replaceAll("\n", "⏎").replaceAll("\t", "⇥").replaceAll(" ", "␣") || "(nothing)";
