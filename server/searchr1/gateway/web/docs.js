/** The API's documentation: the server's own OpenAPI document, as a page. */

import { el } from "./dom.js";
import { curlFor } from "./docs-example.js";
import { fold, prose, resolve, schemaView, typeOf } from "./docs-schema.js";

const METHODS = new Set(["get", "post", "put", "patch", "delete"]);
const byId = (id) => document.getElementById(id);

async function show() {
  const response = await fetch("openapi.json");
  if (!response.ok) throw new Error(`openapi.json: HTTP ${response.status}`);
  const doc = await response.json();
  byId("summary").replaceChildren(...prose(`${doc.info.summary ?? ""} Version ${doc.info.version}.`));
  const groups = groupsOf(doc);
  byId("contents").replaceChildren(...groups.map(contentsOf));
  byId("operations").replaceChildren(...groups.map((group) => groupView(doc, group)));
  // The operation that the address names was not there yet when the browser looked for it.
  if (location.hash) byId(location.hash.slice(1))?.scrollIntoView();
}

/** The operations under their tags, in the document's order. */
function groupsOf(doc) {
  const operations = Object.entries(doc.paths).flatMap(([path, methods]) =>
    Object.entries(methods).filter(([method]) => METHODS.has(method)).map(([method, one]) => ({ method, path, ...one })),
  );
  for (const operation of operations) operation.id = `${operation.method}${operation.path.replaceAll(/[^A-Za-z0-9]+/g, "-")}`;
  const groups = (doc.tags ?? []).map(({ name, description }) => ({
    name,
    description,
    operations: operations.filter(({ tags }) => tags?.[0] === name),
  }));
  return groups.filter((group) => group.operations.length > 0);
}

function contentsOf({ name, operations }) {
  const links = operations.map(({ id, method, path, summary }) =>
    el("li", {}, el("a", { href: `#${id}`, title: summary }, methodMark(method), el("span", {}, path))),
  );
  return el("section", {}, el("h2", {}, name), el("ul", {}, ...links));
}

function groupView(doc, { name, description, operations }) {
  return el(
    "section",
    { class: "group" },
    el("h2", {}, name),
    el("p", { class: "summary" }, ...prose(description ?? "")),
    ...operations.map((operation) => operationView(doc, operation)),
  );
}

function operationView(doc, operation) {
  const { id, method, path, summary, description, parameters = [], requestBody, responses, security } = operation;
  const content = Object.entries(requestBody?.content ?? {});
  return el(
    "article",
    { class: "operation", id },
    el("h3", {}, methodMark(method), el("code", {}, path)),
    el("p", { class: "operation-summary" }, summary ?? ""),
    ...paragraphs(description),
    security?.length > 0 && el("p", { class: "soft" }, "Takes an API key, where the server has any: ", el("code", {}, "Authorization: Bearer KEY"), "."),
    parameters.length > 0 && el("h4", {}, "Parameters"),
    parameters.length > 0 && el("dl", { class: "fields" }, ...parameters.flatMap((one) => parameterView(doc, resolve(doc, one)))),
    ...content.flatMap(([type, { schema }]) => [el("h4", {}, "Body ", el("small", {}, type)), schemaView(doc, schema)]),
    el("h4", {}, "Example"),
    el("pre", { class: "example", tabindex: "0" }, curlFor(doc, operation)),
    el("h4", {}, "Responses"),
    el("div", { class: "responses" }, ...Object.entries(responses).map(([status, one]) => responseView(doc, status, resolve(doc, one)))),
  );
}

function parameterView(doc, { name, in: place, required, schema, description }) {
  return [
    el("dt", {}, el("code", {}, name), el("span", { class: "type" }, `${typeOf(doc, schema)}, in the ${place}`), required && el("span", { class: "required" }, "required")),
    el("dd", {}, ...prose(description ?? schema?.description ?? "")),
  ];
}

function responseView(doc, status, { description, content = {} }) {
  const head = [el("span", { class: `status status-${status[0]}` }, status), el("span", {}, ...prose(description ?? ""))];
  const bodies = Object.entries(content).filter(([, { schema }]) => Object.keys(schema ?? {}).length > 0);
  if (bodies.length === 0) return el("p", { class: "response" }, ...head);
  return fold("response", head, () => bodies.flatMap(([type, { schema }]) => [el("p", { class: "soft" }, type), schemaView(doc, schema)]));
}

const methodMark = (method) => el("span", { class: `method method-${method}` }, method.toUpperCase());

const paragraphs = (text) => (text ?? "").split(/\n{2,}/).filter(Boolean).map((one) => el("p", {}, ...prose(one)));

show().catch((error) => {
  console.warn(error);
  byId("operations").replaceChildren(el("p", { class: "note note-problem" }, "The server's OpenAPI document can't be read just now. Reload the page to try again."));
});
