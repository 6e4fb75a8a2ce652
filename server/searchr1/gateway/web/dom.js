/** The one way in which the page makes elements: text only ever becomes text nodes. */

/**
 * `el("a", { class: "cite", href: "#x" }, "text", node)`: attributes by name, functions as listeners (`onclick`),
 * `true` for a bare attribute; null, undefined and false are left out, as attribute and as child.
 */
export function el(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (typeof value === "function") node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined && child !== false));
  return node;
}

/** Streams text into a node without the whitespace around it. */
export class FlowingText {
  #node;
  #held = "";

  constructor(parent) {
    this.#node = document.createTextNode("");
    parent.append(this.#node);
  }

  append(text) {
    const whole = this.#held + text;
    const visible = this.#node.length === 0 ? whole.trimStart() : whole;
    const kept = visible.trimEnd();
    this.#held = visible.slice(kept.length);
    this.#node.appendData(kept);
  }
}

/**
 * Run `change`, then keep the end of the page in view if it was in view before.
 * Whoever has scrolled up to read stays where they are.
 */
export function following(change) {
  const page = document.scrollingElement;
  const gap = page.scrollHeight - page.clientHeight - page.scrollTop;
  change();
  if (gap < 80) page.scrollTop = page.scrollHeight;
}

/** In a text field, Enter calls `send`; Shift and Enter starts a new line. */
export function onEnter(field, send) {
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
}
