/** The planner: fields in, card and advice out; moves that newer ones overtook are dropped. */

import { drawAdvice } from "./advice.js";
import { drawCard } from "./card.js";
import { Engine } from "./engine.js";
import { complain, forgetFile, fromAddress, modelField, read, take, toAddress } from "./form.js";
import { offlineReady } from "./offline.js";
import { byId, data, say } from "./page.js";

const PAUSE = 250;

const root = new URL(data.root, document.baseURI);
const files = Object.fromEntries(
  Object.entries(data.files).map(([name, file]) => [
    name,
    { ...file, address: new URL(file.address, root).href },
  ]),
);
await offlineReady();
const engine = new Engine({ files, language: data.language }, (share) => {
  byId("progress").value = share;
  byId("progress").hidden = share === 1;
});

let next = null;
let isBusy = false;

/** Show what the fields ask now; while something is being worked out, only the last move waits. */
async function move() {
  next = read();
  if (isBusy) return;
  isBusy = true;
  while (next) {
    const asked = next;
    next = null;
    try {
      await show(asked);
    } catch (error) {
      fail(error);
    }
  }
  isBusy = false;
}

async function show({ card, advice, budget, device }) {
  if (!card) return clear(say("Waiting for a model."));
  const start = performance.now();
  const slow = setTimeout(() => (byId("status").textContent = engine.isReady ? say("Working …") : say("Loading Python and efflab: a few megabytes, once.")), PAUSE);
  const reply = await engine.ask(card).finally(() => clearTimeout(slow));
  if (next) return;
  if (reply.refusal) return refuse(reply);
  const found = drawCard(reply.json, reply.words, device);
  const isDecoder = found.kv_bytes_per_token !== null;
  if (found.devices && advice) await advise({ ...advice, budget: budget || (isDecoder ? "decode" : "latency") });
  else byId("advice").hidden = true;
  if (next) return;
  const seconds = ((performance.now() - start) / 1000).toFixed(2);
  byId("status").textContent = say("{model}: worked out in {seconds} s.", { model: found.name, seconds });
}

async function advise(asked) {
  if (next) return;
  const reply = await engine.ask(asked);
  if (next) return;
  if (!reply.refusal) return drawAdvice(reply.json, reply.words);
  byId("advice").hidden = true;
  complain(reply.field === "model" ? modelField() : reply.field, reply.refusal);
}

function refuse({ field, refusal }) {
  clear(say("Nothing to show: see what the field says."));
  complain(field === "model" ? modelField() : field, refusal);
}

function clear(status) {
  byId("status").textContent = status;
  for (const id of ["card", "advice"]) {
    byId(id).hidden = true;
    byId(id).replaceChildren();
    delete byId(id).dataset.json;
  }
}

function fail(error) {
  const isLate = error.message === "late";
  const reason = error.message.slice(0, 200);
  clear(isLate ? say("That took more than 30 seconds and was stopped.") : say("The planner could not start or broke off: {reason}", { reason }));
}

function listen() {
  const plan = byId("plan");
  let timer;
  const later = () => {
    clearTimeout(timer);
    timer = setTimeout(() => (toAddress(), move()), PAUSE);
  };
  plan.addEventListener("submit", (event) => event.preventDefault());
  plan.addEventListener("input", ({ target }) => {
    if (target.type === "file") return;
    if (target.id === "config") forgetFile();
    if (target.tagName !== "SELECT") return later();
    toAddress();
    move();
  });
  byId("file").addEventListener("change", ({ target }) => {
    const [file] = target.files;
    // so that the same file, changed, can be chosen again
    target.value = "";
    if (file) drop(file);
  });
  const zone = byId("zone");
  for (const type of ["dragover", "dragleave", "drop"]) {
    zone.addEventListener(type, (event) => {
      event.preventDefault();
      zone.classList.toggle("over", type === "dragover");
      if (type === "drop" && event.dataTransfer.files[0]) drop(event.dataTransfer.files[0]);
    });
  }
  addEventListener("hashchange", arrive);
}

async function drop(file) {
  if (!(await take(file))) return clear(say("Nothing to show: see what the field says."));
  toAddress();
  move();
}

function arrive() {
  const wrong = fromAddress();
  move();
  for (const [name, text] of wrong) complain(name, text);
}

if (!byId("plan").hidden) {
  listen();
  arrive();
}
