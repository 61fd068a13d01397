/**
 * efflab's own Python, in a worker: unpacks Pyodide and efflab, then answers one question after
 * the other. Messages in: first the files' addresses and the language, then {id, asked}. Messages
 * out: {progress}, {ready}, {id, answer} or {failure}.
 */
import { loadPyodide } from "./pyodide.mjs";
import { unpack } from "./unpack.js";

const TYPES = { "pyodide.asm.wasm": "application/wasm" };
// Python, in which `answer` becomes a function from JSON to JSON.
const START = `
import json, sys
sys.path.insert(0, "/efflab")
from efflab.publishing.site.answer import answer as answer_in

with open("/efflab/zh.json", encoding="utf-8") as file:
    chinese = json.load(file) if language == "zh" else {}

def answer(asked):
    return json.dumps(answer_in(json.loads(asked), chinese))

answer
`;

/** All packed files at once, with the share of the bytes that are here. */
async function unpackAll(files) {
  const seen = {};
  const names = Object.keys(files);
  const buffers = await Promise.all(
    names.map((name) =>
      unpack(files[name].address, (bytes) => {
        seen[name] = bytes;
        const here = Object.values(seen).reduce((sum, n) => sum + n, 0);
        const all = Object.values(files).reduce((sum, file) => sum + file.bytes, 0);
        postMessage({ progress: here / all });
      }),
    ),
  );
  return Object.fromEntries(names.map((name, i) => [name, buffers[i]]));
}

/** Pyodide fetches its files by name: here they are, and nothing else is fetched from now on. */
function serve(buffers) {
  self.fetch = async (url) => {
    const name = String(url).split("/").at(-1);
    if (!(name in buffers)) throw new TypeError(`${name}: nothing is fetched here`);
    const type = TYPES[name] ?? "application/octet-stream";
    return new Response(buffers[name], { headers: { "Content-Type": type } });
  };
}

async function start({ files, language }) {
  const folder = new URL(".", import.meta.url);
  const lock = fetch(new URL("pyodide-lock.json", folder)).then((reply) => reply.text());
  const buffers = await unpackAll(files);
  const lockFileContents = await lock;
  serve(buffers);
  const python = await loadPyodide({
    indexURL: folder.href,
    packageBaseUrl: folder.href,
    lockFileContents,
  });
  python.unpackArchive(new Uint8Array(buffers["efflab.zip"]), "zip", { extractDir: "/efflab" });
  python.globals.set("language", language);
  return python.runPython(START);
}

const answer = new Promise((resolve) => {
  self.addEventListener("message", ({ data }) => data.files && resolve(start(data)), { once: true });
});
answer.then(
  () => postMessage({ ready: true }),
  (error) => postMessage({ failure: String(error) }),
);
self.addEventListener("message", async ({ data }) => {
  if (!data.asked) return;
  const { id, asked } = data;
  try {
    postMessage({ id, answer: JSON.parse((await answer)(JSON.stringify(asked))) });
  } catch (error) {
    postMessage({ id, error: String(error) });
  }
});
