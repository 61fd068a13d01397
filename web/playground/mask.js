// Which token sees which: `efflab.structure.window.window_mask`, causal, and the first tokens.

/** Whether token i sees token j: itself, `window` before it (0: all), and the first `sinks`. */
export const sees = (i, j, {window, sinks}) =>
  j <= i && (!window || i - j <= window || j < sinks);

/** 1 where token i (row) sees token j, row-major. */
export function visiblePairs(n, settings) {
  const visible = new Uint8Array(n * n);
  for (let i = 0; i < n; i++) {
    for (let j = 0; j <= i; j++) visible[i * n + j] = sees(i, j, settings);
  }
  return visible;
}
