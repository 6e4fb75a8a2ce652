/** The sources of one run: its passages, put together by where they come from, and what the answer cites of them. */

import { el } from "./dom.js";
import { citedSentence, webUrl } from "./format.js";

export class Sources {
  #prefix;
  #list = el("ol", {});
  #byKey = new Map();
  #byPassage = new Map();

  /** `prefix` makes the ids of this run's sources differ from those of other runs on the page. */
  constructor(prefix) {
    this.#prefix = prefix;
    this.node = el("section", { class: "sources", "aria-label": "Sources", hidden: true }, el("h3", {}, "Sources"), this.#list);
  }

  /** Take a passage that `query` found; return its source, which may be one that is here already. */
  add(passage, { query, provider }) {
    const key = keyOf(passage);
    let source = this.#byKey.get(key);
    if (source === undefined) {
      const number = this.#byKey.size + 1;
      source = new Source(number, `${this.#prefix}-source-${number}`, passage, provider);
      this.#byKey.set(key, source);
      this.#list.append(source.node);
      this.node.hidden = false;
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
    inOrder[0]?.open();
    return inOrder;
  }
}

class Source {
  #texts = new Map();
  #snippets = new Map();
  #details;
  #head;

  constructor(number, id, { title, url }, provider) {
    const safeUrl = webUrl(url);
    this.number = number;
    this.title = title || "Untitled passage";
    this.domain = safeUrl === null ? provider || "" : new URL(safeUrl).host;
    this.id = id;
    this.#head = el(
      "summary",
      {},
      el("span", { class: "index" }, String(number)),
      el("span", { class: "title", dir: "auto" }, this.title),
      this.domain && el("span", { class: "domain" }, this.domain),
    );
    this.#details = el("details", { id }, this.#head, safeUrl && openLink(safeUrl, this.domain));
    this.node = el("li", { class: "source" }, this.#details);
  }

  add({ index, snippet }, query) {
    let text = this.#texts.get(snippet);
    if (text === undefined) {
      text = { found: el("p", { class: "found-by" }, "Found by "), body: el("p", { class: "snippet", dir: "auto" }, snippet) };
      this.#texts.set(snippet, text);
      this.#details.append(text.found, text.body);
    } else {
      text.found.append(", ");
    }
    text.found.append(el("q", { dir: "auto" }, query));
    this.#snippets.set(index, { text: snippet, node: text.body });
  }

  cite({ index, start, end }) {
    const { text, node } = this.#snippets.get(index);
    const { before, opening, marked, closing, after } = citedSentence(text, start, end);
    node.replaceChildren(before, el("mark", {}, opening, el("b", {}, marked), closing), after);
    if (this.node.classList.contains("cited")) return;
    this.node.classList.add("cited");
    this.#head.append(el("span", { class: "cited-note" }, "cited"));
  }

  open() {
    this.#details.open = true;
  }

  /** A link that opens this source and goes there. */
  link(attributes, ...children) {
    const follow = (event) => {
      event.preventDefault();
      this.reveal();
    };
    return el("a", { href: `#${this.id}`, onclick: follow, ...attributes }, ...children);
  }

  /** Open it, bring it into view and put the focus there. */
  reveal() {
    this.open();
    const target = this.node.querySelector("mark") ?? this.node;
    target.scrollIntoView({ block: "center" });
    this.#head.focus({ preventScroll: true });
    this.node.classList.remove("pointed");
    // Reading a layout property makes the browser see the removal, so that the animation starts again.
    void this.node.offsetWidth;
    this.node.classList.add("pointed");
  }
}

/** Passages of one page, or without a URL of one title, are one source. */
function keyOf({ index, title, url }) {
  const safe = webUrl(url);
  if (safe !== null) {
    const parsed = new URL(safe);
    parsed.hash = "";
    return `url ${parsed.href}`;
  }
  const name = (title ?? "").trim().toLowerCase();
  return name ? `title ${name}` : `passage ${index}`;
}

function openLink(url, domain) {
  return el("a", { class: "open", href: url, target: "_blank", rel: "noopener noreferrer" }, `Open ${domain}`);
}
