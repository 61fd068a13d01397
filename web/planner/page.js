/** What all parts of the page use: its data, words, elements and numbers. */

export const data = JSON.parse(document.getElementById("page-data").textContent);

/** @param {string} id */
export const byId = (id) => document.getElementById(id);

/** The page's own sentence in its language, `{name}` filled from `values`. */
export function say(text, values = {}) {
  return (data.words[text] ?? text).replace(/\{(\w+)\}/g, (_, name) => values[name]);
}

/**
 * An element; texts are text, whatever they hold.
 *
 * @param {string} tag with classes after dots, as in "p.small.muted"
 * @param {Object<string, string>} attributes
 * @param {...(Node | string)} children
 */
export function make(tag, attributes = {}, ...children) {
  const [name, ...classes] = tag.split(".");
  const element = document.createElement(name);
  element.classList.add(...classes);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** A number's text, and a bar of a share of its cell that says the same to the eye. */
export function withBar(text, share, from = 0) {
  const inner = make("span.part");
  inner.style.left = `${100 * from}%`;
  inner.style.width = `${100 * Math.max(share - from, 0.008)}%`;
  const bar = make("span.bar", { "aria-hidden": "true" }, inner);
  return make("span.with-bar", {}, make("span.number", {}, text), bar);
}

const RAISED = Object.fromEntries([..."-0123456789"].map((digit, i) => [digit, "⁻⁰¹²³⁴⁵⁶⁷⁸⁹"[i]]));

/** `efflab.base.significant`: three digits, and whole ones are never rounded away. */
export function significant(value, digits = 3) {
  if (value === 0) return "0";
  const power = Math.floor(Math.log10(Math.abs(Number(value.toPrecision(digits)))));
  if (power < -4 || power > 14) {
    const mantissa = Number((value / 10 ** power).toPrecision(digits));
    return `${mantissa}×10${[...String(power)].map((digit) => RAISED[digit]).join("")}`;
  }
  return value.toLocaleString("en-US", {
    maximumFractionDigits: Math.max(digits - 1 - power, 0),
  });
}

const SIZES = [[1e9, "GB"], [1e6, "MB"], [1e3, "kB"]];

/** Bytes in the largest unit of which there is one. */
export function size(bytes) {
  const [unit, name] = SIZES.find(([unit]) => bytes >= unit) ?? [1, say("bytes")];
  return `${significant(bytes / unit)} ${name}`;
}

const COUNTS = {
  en: [[1e9, " billion"], [1e6, " million"]],
  zh: [[1e8, " 亿"], [1e4, " 万"]],
};

/** A large count in the words of the language. */
export function count(n) {
  const [unit, name] = COUNTS[data.language].find(([unit]) => n >= unit) ?? [1, ""];
  return significant(n / unit) + name;
}

/** A dotted name or a path, which may break after its dots and slashes. */
export function code(text) {
  const parts = text.split(/(?<=[./])/).flatMap((part) => [part, make("wbr")]);
  return make("code.small.block", {}, ...parts);
}

/** A link to a notebook, by its number. */
export function notebook(number) {
  const entry = data.notebooks[number];
  return make("a", { href: `${entry.name}.html`, title: entry.title }, number);
}

/** A table with a caption for screen readers; `heads` are its columns. */
export function table(caption, heads, rows) {
  const head = make("tr", {}, ...heads.map((text) => make("th", { scope: "col" }, text)));
  const parts = [make("caption.unseen", {}, caption), make("thead", {}, head)];
  return make("table", {}, ...parts, make("tbody", {}, ...rows));
}
