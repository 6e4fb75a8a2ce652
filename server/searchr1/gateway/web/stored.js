/** JSON values in this browser's storage. Where it keeps nothing, they live as long as the page. */

const held = new Map();

/** What is kept under `name`, or null, also where it is no JSON. */
export function load(name) {
  try {
    return JSON.parse(localStorage.getItem(name) ?? "null");
  } catch {
    return held.get(name) ?? null;
  }
}

/** Keep `value` under `name`; false where it will be lost with the page. */
export function keep(name, value) {
  held.set(name, value);
  try {
    localStorage.setItem(name, JSON.stringify(value));
    return true;
  } catch {
    return false;
  }
}
