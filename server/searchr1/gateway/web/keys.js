/** The API key: where it is kept, and the form that asks for it. */

const KEY_NAME = "searchr1.api-key";

/** The key that the reader gave in this tab, or null. */
export const apiKey = () => sessionStorage.getItem(KEY_NAME);

export class KeyForm {
  #parts;
  #announce;
  #then = null;

  /** `parts`: the elements `form`, `reason`, `field` and `change`, the button that asks for another key. */
  constructor(parts, announce) {
    this.#parts = parts;
    this.#announce = announce;
    parts.change.hidden = apiKey() === null;
    parts.change.addEventListener("click", () => this.ask("Enter the key to use from now on.", () => {}));
    parts.form.addEventListener("submit", (event) => {
      event.preventDefault();
      this.#use(parts.field.value.trim());
    });
  }

  /** The server refused with `error`: ask for a key, then call `then`. */
  refused(error, then) {
    // Without a key the server's message tells how to send a header, which is this page's own business.
    this.ask(apiKey() === null ? "This server needs an API key." : error.message, then);
  }

  ask(reason, then) {
    const { form, reason: line, field } = this.#parts;
    this.#then = then;
    line.textContent = reason;
    form.hidden = false;
    field.value = "";
    field.focus();
    this.#announce(`${reason} Enter an API key.`);
  }

  hide() {
    this.#parts.form.hidden = true;
  }

  #use(key) {
    const { reason, field, change } = this.#parts;
    // A header can hold visible ASCII only; fetch would refuse anything else with an error that says nothing.
    if (!/^[\x21-\x7e]+$/.test(key)) {
      reason.textContent = "An API key has only letters, digits and signs, with no spaces.";
      field.focus();
      return;
    }
    sessionStorage.setItem(KEY_NAME, key);
    this.hide();
    change.hidden = false;
    this.#then?.();
    this.#then = null;
  }
}
