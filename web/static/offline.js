/**
 * Resolves once the service worker sees this page's requests, so that what a page's own workers
 * load is there for a visit without a network; after `limit` milliseconds in any case.
 *
 * @param {number} [limit]
 * @returns {Promise<void>}
 */
export function offlineReady(limit = 1500) {
  const { serviceWorker } = navigator;
  if (!serviceWorker || serviceWorker.controller) return Promise.resolve();
  return new Promise((resolve) => {
    setTimeout(resolve, limit);
    serviceWorker.addEventListener("controllerchange", () => resolve(), { once: true });
  });
}
