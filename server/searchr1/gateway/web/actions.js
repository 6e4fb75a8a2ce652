/** What can be done with a run that has ended: copy, share, save, ask again. */

import { el } from "./dom.js";

const TOLD_MS = 1500;

/** A row of buttons; `actions` is a list of `[label, done, act]`, where `done` shows once `act()` has worked. */
export function actionBar(actions, announce) {
  const buttons = actions.map(([label, done, act]) => actionButton(label, done, act, announce));
  return el("div", { class: "actions", role: "group", "aria-label": "This run" }, ...buttons);
}

function actionButton(label, done, act, announce) {
  const button = el("button", { class: "quiet", type: "button", "data-action": label }, label);
  const tell = (text) => {
    button.textContent = text;
    announce(text);
    setTimeout(() => {
      button.textContent = label;
    }, TOLD_MS);
  };
  button.addEventListener("click", async () => {
    try {
      await act();
      if (done) tell(done);
    } catch (error) {
      console.warn(error);
      tell("That didn't work");
    }
  });
  return button;
}

/** Put text on the clipboard. Plain HTTP from another machine has no clipboard API; the old command still works. */
export async function copyText(text) {
  if (navigator.clipboard) {
    await navigator.clipboard.writeText(text);
    return;
  }
  const field = el("textarea", { class: "visually-hidden", readonly: true }, text);
  const focused = document.activeElement;
  document.body.append(field);
  field.select();
  const copied = document.execCommand("copy");
  field.remove();
  focused?.focus();
  if (!copied) throw new Error("The browser refused to copy.");
}

/** Hand the reader a file. */
export function saveFile(name, text, type) {
  const url = URL.createObjectURL(new Blob([text], { type }));
  el("a", { href: url, download: name }).click();
  // The browser reads the URL after this task; it is of no use to anyone later.
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}
