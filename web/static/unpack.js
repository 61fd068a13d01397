/**
 * A gzipped asset, unpacked; in a page or a worker.
 *
 * @param {string | URL} url
 * @param {(bytes: number, all: number) => void} [onProgress] packed bytes so far and in all; `all`
 *   is 0 where the server does not say
 * @returns {Promise<ArrayBuffer>}
 */
export async function unpack(url, onProgress = () => {}) {
  const reply = await fetch(url);
  if (!reply.ok) throw new Error(`${url}: ${reply.status} ${reply.statusText}`);
  const all = Number(reply.headers.get("Content-Length")) || 0;
  let bytes = 0;
  const count = new TransformStream({
    transform(chunk, controller) {
      bytes += chunk.byteLength;
      onProgress(bytes, all);
      controller.enqueue(chunk);
    },
  });
  const unpacked = reply.body.pipeThrough(count).pipeThrough(new DecompressionStream("gzip"));
  return new Response(unpacked).arrayBuffer();
}
