// Search over titles, claims and texts. By parts of words, so that it needs no words in Chinese.
"use strict";
{
  const MOST = 12; // passages shown
  const BEFORE = 50, AFTER = 130; // letters around what was found
  const form = document.getElementById("search");
  const field = document.getElementById("query");
  const list = document.getElementById("passages");
  const status = document.getElementById("found");
  const words = JSON.parse(document.getElementById("page-data").textContent);
  const cards = [...document.querySelectorAll(".notebook")];

  /** {address: [[anchor, heading, text], ...]}, once its script has loaded. */
  const texts = () => window.efflabTexts ?? {};

  function load() {
    const script = document.createElement("script");
    script.src = form.dataset.texts;
    script.addEventListener("load", search);
    document.head.append(script);
  }

  /** @param {string} text @param {string[]} terms */
  const hasAll = (text, terms) => terms.every((term) => text.toLowerCase().includes(term));

  /** The passages of one notebook that hold all terms, those with one in the heading first. */
  function passagesOf(address, terms) {
    return (texts()[address] ?? [])
      .filter(([, heading, text]) => hasAll(`${heading} ${text}`, terms))
      .map(([anchor, heading, text]) => {
        const inHeading = terms.some((term) => heading.toLowerCase().includes(term));
        return { address, anchor, heading, text, rank: inHeading ? 0 : 1 };
      });
  }

  /** A piece of text around the first term, with the terms marked. */
  function snippet(text, terms) {
    const at = Math.max(0, ...terms.map((term) => text.toLowerCase().indexOf(term)));
    const start = Math.max(0, at - BEFORE);
    const piece = text.slice(start, at + AFTER);
    const escaped = terms.map((term) => term.replace(/[.*+?^${}()|[\]\\]/g, "\\$&"));
    const parts = piece.split(new RegExp(`(${escaped.join("|")})`, "i"));
    const line = document.createElement("p");
    line.append(start ? "… " : "");
    parts.forEach((part, i) => {
      if (i % 2) line.append(Object.assign(document.createElement("mark"), { textContent: part }));
      else line.append(part);
    });
    line.append(at + AFTER < text.length ? " …" : "");
    return line;
  }

  function item({ address, anchor, heading, text }, terms) {
    const link = document.createElement("a");
    link.href = anchor ? `${address}#${anchor}` : address;
    const title = document.createElement("b");
    const card = cards.find((one) => one.dataset.address === address);
    const name = card.querySelector("h3").textContent.trim();
    title.textContent = heading && !anchor.startsWith("0") ? `${name} › ${heading}` : name;
    link.append(title, snippet(text, terms));
    const entry = document.createElement("li");
    entry.append(link);
    return entry;
  }

  function search() {
    const terms = field.value.toLowerCase().split(/\s+/).filter(Boolean);
    const found = [];
    for (const card of cards) {
      const own = terms.length ? passagesOf(card.dataset.address, terms) : [];
      card.hidden = !hasAll(card.textContent, terms) && !own.length;
      found.push(...own);
    }
    found.sort((a, b) => a.rank - b.rank);
    list.replaceChildren(...found.slice(0, MOST).map((one) => item(one, terms)));
    list.hidden = !found.length;
    const shown = cards.filter((card) => !card.hidden).length;
    const values = { cards: shown, all: cards.length, passages: found.length };
    const line = shown ? words.found : words.nothing;
    status.textContent = terms.length ? line.replace(/{(\w+)}/g, (_, name) => values[name]) : "";
  }

  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  field.addEventListener("focus", load, { once: true });
  field.addEventListener("input", search);
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.target.closest("input, textarea, select")) return;
    event.preventDefault();
    field.focus();
  });
}
