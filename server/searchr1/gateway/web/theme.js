/**
 * The theme: the browser's own, or the one that the reader chose. Not a module, so that it runs before anything is
 * painted; it sets `data-theme` on the root and keeps a `#theme` select, where the document has one, in step with it.
 */
{
  const NAME = "searchr1.theme";
  const THEMES = ["auto", "light", "dark"];
  const root = document.documentElement;

  const stored = () => {
    try {
      return localStorage.getItem(NAME);
    } catch {
      return null; // A browser that keeps nothing for this page.
    }
  };

  const keep = (theme) => {
    try {
      localStorage.setItem(NAME, theme);
    } catch {
      // It holds until the page is left.
    }
  };

  const show = (theme) => {
    root.dataset.theme = THEMES.includes(theme) ? theme : "auto";
  };

  show(stored());
  addEventListener("DOMContentLoaded", () => {
    const choice = document.getElementById("theme");
    if (choice === null) return;
    choice.value = root.dataset.theme;
    choice.addEventListener("change", () => {
      show(choice.value);
      keep(choice.value);
    });
    addEventListener("storage", (event) => {
      if (event.key !== NAME) return;
      show(event.newValue);
      choice.value = root.dataset.theme;
    });
  });
}
