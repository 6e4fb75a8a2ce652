/** A command that calls an operation, from what its schemas give as examples. */

import { resolve } from "./docs-schema.js";

/** A `curl` command line for this server. */
export function curlFor(doc, { method, path, parameters = [], requestBody, security }) {
  const lines = [`curl ${method === "get" ? "" : `-X ${method.toUpperCase()} `}${addressOf(doc, path, parameters)}`];
  if (security?.length > 0) lines.push(`-H 'authorization: Bearer KEY'`);
  const schema = requestBody?.content?.["application/json"]?.schema;
  if (schema) {
    lines.push("-H 'content-type: application/json'");
    lines.push(`-d '${JSON.stringify(exampleOf(doc, schema)).replaceAll("'", String.raw`'\''`)}'`);
  }
  return lines.join(" \\\n  ");
}

function addressOf(doc, path, parameters) {
  const values = new Map(parameters.map((one) => resolve(doc, one)).map(({ name, schema }) => [name, schema?.examples?.[0]]));
  const filled = path.replaceAll(/\{([^}]+)\}/g, (_, name) => values.get(name) ?? name.toUpperCase());
  return new URL(filled.slice(1), document.baseURI).href;
}

/** The least that a schema asks for, and what it gives examples of. */
function exampleOf(doc, schema, depth = 0) {
  const { examples, example, default: preset, const: only, enum: values, type, properties = {}, required = [], items, anyOf, oneOf } = resolve(doc, schema);
  const given = example ?? examples?.[0] ?? only ?? preset ?? values?.[0];
  if (given !== undefined) return given;
  const choice = (anyOf ?? oneOf)?.[0];
  if (depth > 4) return null;
  if (choice) return exampleOf(doc, choice, depth + 1);
  if (type === "object" || Object.keys(properties).length > 0) {
    const names = Object.keys(properties).filter((name) => required.includes(name) || properties[name].examples);
    return Object.fromEntries(names.map((name) => [name, exampleOf(doc, properties[name], depth + 1)]));
  }
  if (type === "array") return [exampleOf(doc, items, depth + 1)];
  return { string: "…", integer: 1, number: 1, boolean: true }[type] ?? null;
}
