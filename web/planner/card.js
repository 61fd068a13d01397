/** `efflab card` as a page. */

import { byId, count, data, make, notebook, say, significant, size, table, withBar } from "./page.js";

/**
 * @param {string} json what `efflab card --json` says
 * @param {Object<string, string>} words its texts in the page's language
 * @param {string} chosen the device that advice is asked for
 */
export function drawCard(json, words, chosen) {
  const card = JSON.parse(json);
  const tell = (text) => words[text] ?? text;
  const parts = [...heading(card, tell), facts(card, tell)];
  if (card.devices) parts.push(bytes(card), ...devices(card, tell, chosen), chapters(card, tell));
  parts.push(...card.notes.map((note) => make("p.notice", {}, tell(note))));
  const element = byId("card");
  element.replaceChildren(...parts);
  element.dataset.json = json;
  element.hidden = false;
  return card;
}

function heading(card, tell) {
  const type = make("span.muted.small", {}, card.model_type);
  const shape = card.shape ? [make("p", {}, tell(card.shape))] : [];
  return [make("h2", {}, card.name, " ", type), ...shape];
}

function facts(card, tell) {
  const tiles = [[say("parameters"), count(card.params), ""]];
  if (card.devices) {
    const active = card.experts ? tell(card.experts) : say("all of them");
    tiles.push([say("active per token"), count(card.active_params), active]);
    tiles.push([say("weights in 16 bits"), size(card.weight_bytes.bf16), ""]);
    const cached = card.kv_bytes_per_token;
    if (cached !== null) tiles.push([say("cache per token"), size(cached), tell(card.cache)]);
    const tokens = card.tokens.toLocaleString("en-US");
    const { states, activations } = card.training_bytes;
    const more = say("Adam in mixed precision, ZeRO-0; and {size} of activations for a text of {tokens} tokens", { size: size(activations), tokens });
    tiles.push([say("states of training"), size(states), more]);
  }
  const items = tiles.map(([name, value, more]) =>
    make("div", {}, make("dt", {}, name), make("dd.value", {}, value), make("dd.small.muted", {}, more)),
  );
  return make("dl.facts", {}, ...items);
}

function bytes(card) {
  const most = Math.max(...Object.values(card.weight_bytes));
  const rows = Object.entries(card.weight_bytes).map(([format, n]) =>
    make("tr", {}, make("th", { scope: "row" }, format), make("td", {}, withBar(size(n), n / most))),
  );
  const title = say("Weights by format");
  const all = table(title, [say("format"), say("bytes")], rows);
  return make("section.formats", {}, make("h3", {}, title), all);
}

/** Column heads, and what stands in a device's row below them; null where nothing fits. */
function columns(card) {
  const decoder = card.kv_bytes_per_token !== null;
  const whole = (n) => n.toLocaleString("en-US");
  const all = [
    [say("prefill, ms"), (row) => row.prefill_seconds && significant(1000 * row.prefill_seconds), true],
    [say("longest text, tokens"), (row) => row.max_context && whole(row.max_context), decoder],
    [say("texts at once"), (row) => row.max_batch && whole(row.max_batch), decoder],
    [say("memory, GiB"), (row) => significant(row.memory_gib), true],
    [say("devices for the weights"), (row) => whole(row.devices_for_weights), true],
  ];
  return all.filter(([, , applies]) => applies);
}

function devices(card, tell, chosen) {
  const decoder = card.kv_bytes_per_token !== null;
  const speed = decoder ? (row) => row.decode_tokens_per_second : (row) => row.prefill_seconds && 1 / row.prefill_seconds;
  const most = Math.max(...card.devices.map((row) => speed(row) ?? 0));
  const cells = columns(card);
  const rows = card.devices.map((row) => {
    const doubt = data.unsure.includes(row.device) ? "\u00a0?" : "";
    const name = make("th", { scope: "row" }, tell(row.device) + doubt);
    const value = speed(row);
    const first = make("td.wide", {}, value ? withBar(significant(value), value / most) : "–");
    const texts = cells.map(([, text]) => make("td.number", {}, text(row) ?? "–"));
    return make("tr", row.device === chosen ? { class: "chosen" } : {}, name, first, ...texts);
  });
  const heads = [say("device"), decoder ? say("tokens per second") : say("texts per second")];
  heads.push(...cells.map(([head]) => head));
  const title = say("On each device");
  const region = { role: "region", tabindex: "0", "aria-label": title };
  const tokens = card.tokens.toLocaleString("en-US");
  const note = decoder
    ? say("Weights and cache in 16 bits. Texts at once, prefill and speed are for texts of {tokens} tokens, speed for one text. Times are bounds by FLOPs and bytes: no kernel beats them, real ones are slower. A dash: weights and cache do not fit. ?: no datasheet.", { tokens })
    : say("Weights in 16 bits, one text of {tokens} tokens. Times are bounds by FLOPs and bytes: no kernel beats them, real ones are slower. A dash: the weights do not fit. ?: no datasheet.", { tokens });
  return [
    make("h3", {}, title),
    make("div.scroll", region, table(title, heads, rows)),
    make("p.small.muted", {}, note),
  ];
}

function chapters(card, tell) {
  const items = card.chapters.map((row) => make("li", {}, notebook(row.notebook), " ", tell(row.text)));
  const title = make("h3", {}, say("What its shape says, by notebook"));
  return make("section", {}, title, make("ul.chapters", {}, ...items));
}
