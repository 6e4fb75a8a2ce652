/** Questions to begin with, for models whose corpus is known: the bundled demo's. Other models show none. */

const EXAMPLES = {
  "searchr1-atlas": [
    "Which currency is used in the country where Timbuktu is?",
    "What is the capital of Fiji?",
    "Which language is spoken in the country where Bamako is?",
    "On which continent is the country where Timbuktu is?",
  ],
};

/** Example questions for the model of that name. */
export function examplesFor(model) {
  return Object.hasOwn(EXAMPLES, model) ? EXAMPLES[model] : [];
}
