// Keeps the site for a visit without a network: an asset for ever, as its name changes with its
// content; of a page the newest that could be had.
"use strict";

const ASSETS = "efflab-assets";
const PAGES = "efflab-pages";
const root = new URL("./", self.location).href;
// all assets of this build; what an earlier one had besides is dropped
const known = new Set({{ assets|tojson }}.map((place) => root + place));

self.addEventListener("install", () => self.skipWaiting());

self.addEventListener("activate", (event) => {
  event.waitUntil((async () => {
    const cache = await caches.open(ASSETS);
    const stale = (await cache.keys()).filter((request) => !known.has(request.url));
    await Promise.all(stale.map((request) => cache.delete(request)));
    await self.clients.claim();
  })());
});

/** From the cache; else from the network, and then into the cache. */
async function asset(request) {
  const cache = await caches.open(ASSETS);
  const found = await cache.match(request);
  if (found) return found;
  const reply = await fetch(request);
  if (reply.ok) await cache.put(request, reply.clone());
  return reply;
}

/** What a page is stored under: "/" and "/index.html" are one, whatever follows "?" or "#". */
function key(url) {
  const { origin, pathname } = new URL(url);
  return origin + pathname + (pathname.endsWith("/") ? "index.html" : "");
}

/** From the network and into the cache; from the cache where there is no network. */
async function page(request) {
  const cache = await caches.open(PAGES);
  try {
    const reply = await fetch(request);
    if (reply.ok) await cache.put(key(request.url), reply.clone());
    return reply;
  } catch (error) {
    const found = await cache.match(key(request.url));
    if (found) return found;
    throw error;
  }
}

self.addEventListener("fetch", (event) => {
  const { request } = event;
  if (request.method !== "GET" || !request.url.startsWith(root)) return;
  event.respondWith(known.has(request.url) ? asset(request) : page(request));
});
