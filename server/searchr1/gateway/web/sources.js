/** The sources of one run: its passages, put together by where they come from, and what the answer cites of them. */

import { el } from "./dom.js";
import { citedSentence, count, webUrl } from "./format.js";

const NUM_HUES = 6;

export class Sources {
  #prefix;
  #cited = el("ol", { class: "source-list", hidden: true });
  #others = el("ol", { class: "source-list" });
  #rest;
  #restLine = el("summary", {});
  #byKey = new Map();
  #byPassage = new Map();

  /** `prefix` makes the ids of this run's sources differ from those of other runs on the page. */
  constructor(prefix) {
    this.#prefix = prefix;
    this.#rest = el("details", { class: "others" }, this.#restLine, this.#others);
    this.node = el("section", { class: "sources", "aria-label": "Sources", hidden: true }, el("h3", {}, "Sources"), this.#cited, this.#rest);
  }

  /** Take a passage that `query` found; return its source, which may be one that is here already. */
  add(passage, query) {
    const key = keyOf(passage);
    let source = this.#byKey.get(key);
    if (source === undefined) {
      const number = this.#byKey.size + 1;
      source = new Source(number, `${this.#prefix}-source-${number}`, passage);
      this.#byKey.set(key, source);
      this.#others.append(source.node);
    }
    source.add(passage, query);
    this.#byPassage.set(passage.index, source);
    return source;
  }

  /** Mark what the citations name; return the cited sources, each once, in order. Others can't be cited. */
  cite(citations) {
    const cited = new Set();
    for (const citation of citations) {
      const source = this.#byPassage.get(citation.index);
      if (source === undefined) continue;
      source.cite(citation);
      cited.add(source);
    }
    const inOrder = [...cited].sort((a, b) => a.number - b.number);
    this.#cited.append(...inOrder.map((source) => source.node));
    this.#cited.hidden = inOrder.length === 0;
    return inOrder;
  }

  /** Show them: the cited ones, and the others under a line of their own; `answered` tells whether there is an answer. */
  show(answered) {
    const numOthers = this.#others.childElementCount;
    this.node.hidden = this.#byKey.size === 0;
    this.#rest.hidden = numOthers === 0;
    this.#restLine.textContent = this.#cited.hidden ? `${count(numOthers, "source")} read` : `${numOthers} more read, not cited`;
    this.#rest.open = this.#cited.hidden && answered;
  }
}

class Source {
  #texts = new Map();
  #passages = new Map();
  #queries = new Set();
  #evidence = el("div", { class: "evidence", hidden: true });
  #line = el("span", { class: "preview", dir: "auto" });
  #details = el("details", { ontoggle: () => this.#showLine() }, el("summary", {}, this.#line));
  #foundBy = el("p", { class: "found-by" });

  constructor(number, id, { title, url }) {
    const safeUrl = webUrl(url);
    this.number = number;
    this.title = plain(title) || "Untitled passage";
    this.id = id;
    const host = safeUrl === null ? null : new URL(safeUrl).host;
    const name = host?.replace(/^www\./, "") ?? this.title;
    this.node = el(
      "li",
      { class: "source", id, tabindex: "-1" },
      el("span", { class: "index" }, String(number)),
      el("span", { class: `sign hue-${hueOf(name)}`, "aria-hidden": "true" }, initialOf(name)),
      safeUrl === null ? el("span", { class: "title", dir: "auto" }, this.title) : outerLink(safeUrl, this.title),
      host && el("span", { class: "host" }, host),
      this.#evidence,
      this.#details,
      this.#foundBy,
    );
  }

  add({ index, snippet }, query) {
    let body = this.#texts.get(snippet);
    if (body === undefined) {
      body = el("p", { class: "snippet", dir: "auto" }, snippet);
      this.#texts.set(snippet, body);
      this.#details.append(body);
      this.#showLine();
    }
    this.#passages.set(index, { text: snippet, body });
    this.#queries.add(query);
    const quoted = [...this.#queries].flatMap((one) => [", ", el("q", { dir: "auto" }, one)]).slice(1);
    this.#foundBy.replaceChildren("Found by ", ...quoted);
  }

  /** Show the passage that a citation names, with the sentence that holds the answer marked. */
  cite({ index, start, end }) {
    const { text, body } = this.#passages.get(index);
    const { before, opening, marked, closing, after } = citedSentence(text, start, end);
    body.replaceChildren(before, el("mark", {}, opening, el("b", {}, marked), closing), after);
    this.node.classList.add("cited");
    this.#evidence.append(body);
    this.#evidence.hidden = false;
    this.#details.hidden = this.#numMore === 0;
    this.#showLine();
  }

  /** Passages beside those that are cited. */
  get #numMore() {
    return this.#texts.size - this.#evidence.childElementCount;
  }

  /** What the fold says of its content: how a first passage begins, or how many more there are than the cited ones. */
  #showLine() {
    const [first] = this.#texts.keys();
    if (this.node.classList.contains("cited")) this.#line.textContent = `${count(this.#numMore, "more passage")} from this source`;
    else this.#line.textContent = this.#details.open ? "Less" : first || "(no text)";
    this.#line.classList.toggle("control", this.#details.open || this.node.classList.contains("cited"));
  }

  /** A link that opens this source and goes there; while it is pointed at, the source shows it. */
  link(attributes, ...children) {
    const follow = (event) => {
      event.preventDefault();
      this.reveal();
    };
    const light = (isLit) => () => this.node.classList.toggle("lit", isLit);
    const listeners = { onclick: follow, onpointerenter: light(true), onpointerleave: light(false), onfocus: light(true), onblur: light(false) };
    return el("a", { href: `#${this.id}`, ...listeners, ...attributes }, ...children);
  }

  /** Open it, bring it into view and put the focus there. */
  reveal() {
    if (!this.node.classList.contains("cited")) this.#details.open = true;
    this.node.closest(".sources").hidden = false;
    const fold = this.node.closest(".others");
    if (fold) fold.open = true;
    const target = this.node.querySelector("mark") ?? this.node;
    target.scrollIntoView({ block: "center" });
    this.node.focus({ preventScroll: true });
    this.node.classList.remove("pointed");
    // Reading a layout property makes the browser see the removal, so that the animation starts again.
    void this.node.offsetWidth;
    this.node.classList.add("pointed");
  }
}

function outerLink(url, title) {
  return el("a", { class: "title", dir: "auto", href: url, target: "_blank", rel: "noopener noreferrer" }, title);
}

/** Passages of one page, or without a URL of one title, are one source. */
function keyOf({ index, title, url }) {
  const safe = webUrl(url);
  if (safe !== null) {
    const parsed = new URL(safe);
    parsed.hash = "";
    return `url ${parsed.href}`;
  }
  const name = plain(title).toLowerCase();
  return name ? `title ${name}` : `passage ${index}`;
}

/** A title without the quotation marks that the format of a corpus puts around it. */
function plain(title) {
  const text = (title ?? "").trim();
  return text.length > 2 && text.startsWith('"') && text.endsWith('"') ? text.slice(1, -1).trim() : text;
}

/** The first letter of a name, as its sign. */
function initialOf(name) {
  const [first] = name.match(/[\p{L}\p{N}]\p{M}*/u) ?? ["·"];
  return first.toLocaleUpperCase();
}

function hueOf(name) {
  let sum = 0;
  for (const char of name) sum = (sum * 31 + char.codePointAt(0)) % 9973;
  return sum % NUM_HUES;
}
