// The model in a worker: its graph has the weights as inputs, so that a slider changes weights and
// the mask and never the graph.

import * as ort from "./ort.mjs";
import {HALF, Room, lighten, remaining} from "./quantize.js";
import {visiblePairs} from "./mask.js";
import {unpack} from "./unpack.js";

/**
 * @typedef {{name: string, shape: number[], linear: boolean}} Parameter
 * @typedef {{parameters: Parameter[], order: number[][], config: Record<string, number>,
 *   vocabulary: string[], merges: string[]}} Description
 */

/** What a slider of weights depends on; windows leave the weights as they are. */
const weightKey = ({bits, scale, prune, heads}) => [bits, bits && scale, prune, heads].join();

export class Model {
  /** @param {Description} description */
  constructor(description, session, halves) {
    Object.assign(this, description, {description, session, halves});
    this.headSize = description.config.d_model / description.config.n_head;
    this.unchanged = halves.map(half => Float32Array.from(half, bits => HALF[bits]));
    // tables and norms are shared with the unchanged model
    this.changed = this.unchanged.map((values, i) =>
      this.parameters[i].linear ? values.slice() : values);
    this.rooms = halves.map(({length}) => new Room(length));
    this.parts = [];
    this.key = "";
  }

  /**
   * @param {{engine: string, graph: string, weights: string, model: string}} files addresses
   * @param {(file: string, bytes: number) => void} onProgress
   */
  static async load(files, onProgress) {
    const watch = name => unpack(files[name], bytes => onProgress(name, bytes));
    const [wasm, graph, weights, model] = await Promise.all(
      ["engine", "graph", "weights", "model"].map(watch));
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = wasm;
    // an arena would only grow: WebAssembly gives no memory back
    const options = {enableCpuMemArena: false, enableMemPattern: false};
    const session = await ort.InferenceSession.create(
      graph, {executionProviders: ["wasm"], ...options});
    const description = JSON.parse(new TextDecoder().decode(model));
    description.parameters = description.parameters.map(
      ([name, shape, linear]) => ({name, shape, linear}));
    return new Model(description, session, splitHalves(weights, description.parameters));
  }

  /** Heads to remove in each layer. */
  removed(nHeads) {
    const layers = Array.from({length: this.config.n_layer}, () => []);
    for (const [layer, head] of this.order.slice(0, nHeads)) layers[layer].push(head);
    return layers;
  }

  /** Make the changed weights those of the settings, unless they are already. */
  change(settings) {
    if (this.key === weightKey(settings)) return;
    const removed = this.removed(settings.heads);
    this.parameters.forEach(({name, shape, linear}, i) => {
      if (!linear) return;
      const places = remaining(name, shape, removed[/\d+/.exec(name)[0]], this.headSize);
      this.parts[i] = lighten(this.halves[i], shape, places, settings, this.changed[i],
        this.rooms[i]);
    });
    this.key = weightKey(settings);
  }

  /**
   * @param {number[]} ids
   * @param {Float32Array[]} weights `unchanged` or `changed`
   * @param {import("./settings.js").Settings} settings the window's
   * @param {string[]} [outputs] "logits", "attention.0" ...
   * @returns {Promise<Record<string, Float32Array>>}
   */
  async run(ids, weights, settings, outputs = ["logits"]) {
    const n = ids.length, tensor = (type, data, shape) => new ort.Tensor(type, data, shape);
    const feeds = {
      ids: tensor("int32", Int32Array.from(ids), [1, n]),
      visible: tensor("bool", visiblePairs(n, settings), [n, n]),
    };
    this.parameters.forEach(({name, shape}, i) => {
      feeds[`model.${name}`] = tensor("float32", weights[i], shape);
    });
    const results = await this.session.run(feeds, outputs);
    return Object.fromEntries(outputs.map(name => [name, results[name].data]));
  }
}

/** The 16-bit weights of each parameter; the file has all low bytes, then all high ones. */
function splitHalves(buffer, parameters) {
  const bytes = new Uint8Array(buffer), n = bytes.length / 2, halves = [];
  const all = Uint16Array.from({length: n}, (_, i) => bytes[i] | (bytes[n + i] << 8));
  let start = 0;
  for (const {shape} of parameters) {
    const size = shape.reduce((a, b) => a * b, 1);
    halves.push(all.subarray(start, (start += size)));
  }
  return halves;
}
