/* Elements and numbers. Strings become text nodes or attributes: nothing here reads HTML. */
"use strict";

const viewer = {};

const SVG = "http://www.w3.org/2000/svg";
const SVG_TAGS = new Set(["svg", "g", "path", "circle", "title"]);

/* An element with attributes, listeners (functions), style variables (names with "--") and children. */
function el(tag, properties, ...children) {
  const node = SVG_TAGS.has(tag) ? document.createElementNS(SVG, tag) : document.createElement(tag);
  for (const [name, value] of Object.entries(properties ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (typeof value === "function") node.addEventListener(name, value);
    else if (name.startsWith("--")) node.style.setProperty(name, value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.flat().filter((child) => child !== undefined && child !== null && child !== ""));
  return node;
}

function fill(node, ...children) {
  node.replaceChildren(...children.flat().filter((child) => child !== undefined && child !== null));
}

/* Choices of a select as [value, text] pairs, or {group, options}; keeps what is chosen, if it is still there. */
function choices(select, options, chosen) {
  const option = ([value, text]) => el("option", { value, selected: value === chosen }, text);
  fill(
    select,
    options.map((o) => (Array.isArray(o) ? option(o) : el("optgroup", { label: o.group }, o.options.map(option)))),
  );
  select.value = chosen;
}

const count = (n) => n.toLocaleString("en");
const many = (n, one, more = `${one}s`) => `${count(n)} ${n === 1 ? one : more}`;
const signed = (n) => (n > 0 ? `+${count(n)}` : n < 0 ? `−${count(-n)}` : "±0");
const decimal = (x, digits = 3) => x.toFixed(digits).replace("-", "−");
const mean = (values) => values.reduce((sum, x) => sum + x, 0) / values.length;
