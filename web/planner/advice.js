/** `efflab advise` as a page. */

import { byId, code, make, notebook, say, significant, table, withBar } from "./page.js";

const SERVING = ["decode", "context"];

/**
 * @param {string} json what `efflab advise --json` says
 * @param {Object<string, string>} words its texts in the page's language
 */
export function drawAdvice(json, words) {
  const { asked, advice } = JSON.parse(json);
  const tell = (text) => words[text] ?? text;
  const rows = advice.filter((row) => row.serves);
  const parts = [heading(asked, tell), make("p", {}, over(asked))];
  parts.push(rows.length ? serving(rows, asked, tell) : make("p.notice", {}, say("Nothing here helps.")));
  parts.push(others(advice.filter((row) => !row.serves), tell));
  const element = byId("advice");
  element.replaceChildren(...parts);
  element.dataset.json = json;
  element.hidden = false;
}

function heading(asked, tell) {
  const device = tell(asked.device);
  const name = asked.n_devices > 1 ? `${asked.n_devices} × ${device}` : device;
  const words = { model: asked.model, device: name, budget: tell(asked.budget) };
  return make("h2", {}, say("What helps {budget}? {model} on {device}", words));
}

function over({ budget }) {
  if (budget === "quality") return say("The share of the quality that is kept.");
  if (SERVING.includes(budget)) return say("Gains over weights and cache in 16 bits, one text. A technique alone each, none at equal quality.");
  return say("Gains over fp32 weights and values on one device. A technique alone each, none at equal quality.");
}

/** "2.1x", "1.4x to 1.9x", "9,300 tokens". */
function gain(row, isQuality) {
  const format = (value) => (isQuality ? `${significant(100 * value)} %` : significant(value) + (row.unit === "x" ? "×" : ""));
  const ends = [...new Set([format(row.gain_low), format(row.gain_high)])];
  const text = ends.length > 1 ? say("{low} to {high}", { low: ends[0], high: ends[1] }) : ends[0];
  return row.unit === "x" ? text : say("{n} tokens", { n: text });
}

function lost(row, tell) {
  if (row.lost === null) return [say("not recorded")];
  if (row.lost === 0) return [tell(row.metric)];
  const where = [row.metric, row.lost_kind, row.lost_model].filter(Boolean).map(tell).join(say(", "));
  return [`${significant(row.lost, 2)} %`, make("span.small.muted.block", {}, where)];
}

function source(row, tell) {
  const kind = [row.kind, row.gain_model].filter(Boolean).map(tell).join(say(", "));
  return [kind, code(row.source)];
}

function serving(rows, asked, tell) {
  const isQuality = asked.budget === "quality";
  const scale = isQuality ? (value) => value : (value) => Math.log(Math.max(value, 1));
  const most = Math.max(...rows.map((row) => scale(row.gain_high)));
  const share = (value) => (most > 0 ? Math.min(scale(value) / most, 1) : 0);
  const lines = rows.map((row) => {
    const from = row.gain_low === row.gain_high ? 0 : share(row.gain_low);
    const cell = make("td.wide", {}, withBar(gain(row, isQuality), share(row.gain_high), from));
    const name = make("th", { scope: "row" }, tell(row.technique));
    const rest = [lost(row, tell), source(row, tell), [notebook(row.notebook)]];
    return make("tr", {}, name, cell, ...rest.map((parts) => make("td", {}, ...parts)));
  });
  const heads = [say("technique"), say("gain"), say("quality lost"), say("where the number is from"), say("notebook")];
  const title = say("What helps, the surest gain first");
  const region = { role: "region", tabindex: "0", "aria-label": title };
  return make("div.scroll", region, table(title, heads, lines));
}

function others(rows, tell) {
  const items = rows.map((row) => make("li", {}, `${tell(row.technique)}${say(": ")}${tell(row.why)}`));
  const title = say("What does not help, and why ({n})", { n: rows.length });
  return make("details", {}, make("summary", {}, title), make("ul", {}, ...items));
}
