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

/** Whether the end of the page is in view, so that what grows there is being followed. */
export function atEnd() {
  const page = document.scrollingElement;
  return page.scrollHeight - page.clientHeight - page.scrollTop < 80;
}

/** Bring the end of the page into view. */
export function toEnd() {
  document.scrollingElement.scrollTop = document.scrollingElement.scrollHeight;
}

/** In a text field, Enter calls `send`; Shift and Enter starts a new line. */
export function onEnter(field, send) {
  field.addEventListener("keydown", (event) => {
    if (event.key !== "Enter" || event.shiftKey || event.isComposing) return;
    event.preventDefault();
    send();
  });
}
