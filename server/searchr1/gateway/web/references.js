/**
 * How a model quotes what it read, `Doc 1(Title: "Mali")`, found in text that comes in pieces, so that the page can
 * name the source instead.
 */

const REFERENCE = /Doc (\d{1,3}) ?\(Title: (?:"([^"\n]{1,200})"|([^")\n]{1,200}))\)/g;
/** The end of a text that may yet become a reference. */
const BEGINNING = /D(?:o|oc|oc \d{0,3} ?|oc \d{1,3} ?\((?:Title: "[^"\n]{0,200}"?|[^)\n]{0,210}))?$/;

/** Splits streamed text into strings and `{ number, title, raw }` references. Holds no I/O. */
export class ReferenceReader {
  #held = "";

  /** Take the next piece; return the parts that are certain by now. */
  push(text) {
    const whole = this.#held + text;
    const start = whole.search(BEGINNING);
    const certain = start < 0 ? whole : whole.slice(0, start);
    this.#held = start < 0 ? "" : whole.slice(start);
    return split(certain);
  }

  /** The text has ended: return what was held back. */
  end() {
    const rest = this.#held;
    this.#held = "";
    return split(rest);
  }
}

function split(text) {
  const parts = [];
  let last = 0;
  for (const match of text.matchAll(REFERENCE)) {
    parts.push(text.slice(last, match.index), { number: Number(match[1]), title: match[2] ?? match[3], raw: match[0] });
    last = match.index + match[0].length;
  }
  parts.push(text.slice(last));
  return parts.filter((part) => part !== "");
}
