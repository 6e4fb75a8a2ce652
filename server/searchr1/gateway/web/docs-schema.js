/** JSON schemas as lists of their fields. */

import { el } from "./dom.js";

/** What a `$ref` within the document stands for; anything else as it is. */
export function resolve(doc, value) {
  const path = value?.$ref;
  if (typeof path !== "string") return value ?? {};
  return path.slice(2).split("/").reduce((node, key) => node?.[key], doc) ?? {};
}

/** A schema's type in a few words: `string`, `array of integer`, `Usage or null`. */
export function typeOf(doc, schema) {
  if (schema?.$ref) return nameOf(schema);
  const { type, anyOf, oneOf, items, enum: values, const: only, format } = schema ?? {};
  const choices = anyOf ?? oneOf;
  if (choices) return [...new Set(choices.map((one) => typeOf(doc, one)))].join(" or ");
  if (only !== undefined) return JSON.stringify(only);
  if (values) return values.map((value) => JSON.stringify(value)).join(" or ");
  if (type === "array") return `array of ${typeOf(doc, items)}`;
  return format ? `${type} (${format})` : (type ?? "any");
}

/** The fields of a schema; those that are objects unfold. `seen` are the schemas that it stands in. */
export function schemaView(doc, schema, seen = []) {
  const fields = fieldsOf(doc, schema);
  if (fields.length === 0) return el("p", { class: "type" }, typeOf(doc, schema));
  return el("dl", { class: "fields" }, ...fields.flatMap((field) => fieldView(doc, field, seen)));
}

function fieldView(doc, { name, schema, required }, seen) {
  const facts = boundsOf(schema);
  const inner = objectsIn(doc, schema).filter(({ $ref }) => !seen.includes($ref));
  return [
    el("dt", {}, el("code", {}, name), el("span", { class: "type" }, typeOf(doc, schema)), required && el("span", { class: "required" }, "required")),
    el(
      "dd",
      {},
      schema.description && el("span", {}, ...prose(schema.description)),
      facts && el("span", { class: "soft" }, ` ${facts}`),
      ...inner.map((one) => fold("inner", [nameOf(one)], () => [schemaView(doc, one, [...seen, one.$ref])])),
    ),
  ];
}

/** A fold whose content, which `build()` gives, is made when it is first opened. */
export function fold(kind, head, build) {
  const node = el("details", { class: kind }, el("summary", {}, ...head));
  node.addEventListener("toggle", () => node.append(...build()), { once: true });
  return node;
}

function fieldsOf(doc, schema) {
  const { properties = {}, required = [], type, items } = resolve(doc, schema);
  if (type === "array") return fieldsOf(doc, items);
  return Object.entries(properties).map(([name, one]) => ({ name, schema: one, required: required.includes(name) }));
}

/** The named objects that a field may hold. */
function objectsIn(doc, schema) {
  if (schema?.$ref) return Object.keys(resolve(doc, schema).properties ?? {}).length > 0 ? [schema] : [];
  const parts = [...(schema?.anyOf ?? []), ...(schema?.oneOf ?? []), ...(schema?.items ? [schema.items] : [])];
  return parts.flatMap((part) => objectsIn(doc, part));
}

function boundsOf(schema) {
  const alternatives = [schema, ...(schema.anyOf ?? [])];
  const first = (key) => alternatives.find((one) => one[key] !== undefined)?.[key];
  const facts = [
    ["at least", first("minimum")],
    ["over", first("exclusiveMinimum")],
    ["at most", Number.isSafeInteger(first("maximum")) ? first("maximum") : undefined],
    ["characters at most", first("maxLength")],
    ["default", schema.default === null || schema.default === undefined ? undefined : JSON.stringify(schema.default)],
  ];
  return facts.filter(([, value]) => value !== undefined).map(([label, value]) => `${label}: ${value}`).join(", ");
}

/** Text with `code` between backticks. */
export function prose(text) {
  return text.split(/`+/).map((part, i) => (i % 2 === 1 ? el("code", {}, part) : part));
}

const nameOf = ({ $ref }) => $ref.split("/").at(-1);
