/** The worker as a function: `await engine.ask(asked)`. It is started anew where it hangs. */

const PATIENCE = 30_000;

/** A question that took too long, or that the worker broke on. */
export class Failure extends Error {}

export class Engine {
  /**
   * @param {object} data the files' addresses and sizes, and the language
   * @param {(share: number) => void} onProgress share of the files that are here; 1 once it is ready
   */
  constructor(data, onProgress) {
    this.data = data;
    this.onProgress = onProgress;
    this.waiting = new Map();
    this.count = 0;
    this.#start();
  }

  #start() {
    this.isReady = false;
    this.worker = new Worker(new URL("worker.js", import.meta.url), { type: "module" });
    this.ready = new Promise((resolve, reject) => {
      this.worker.addEventListener("message", ({ data }) => {
        if (data.progress !== undefined) this.onProgress(Math.min(data.progress, 0.99));
        if (data.ready) {
          this.isReady = true;
          resolve(this.onProgress(1));
        }
        if (data.failure) reject(new Failure(data.failure));
        if (data.id !== undefined) this.#settle(data);
      });
      this.worker.addEventListener("error", (event) => reject(new Failure(event.message)));
    });
    this.ready.catch(() => {});
    this.worker.postMessage(this.data);
  }

  #settle({ id, answer, error }) {
    const { resolve, reject } = this.waiting.get(id) ?? {};
    this.waiting.delete(id);
    if (error === undefined) resolve?.(answer);
    else reject?.(new Failure(error));
  }

  /**
   * @param {object} asked as `efflab.publishing.site.answer.answer` takes it
   * @returns {Promise<{json?: string, words?: Object<string, string>, refusal?: string,
   *   field?: string}>} rejected by a `Failure`
   */
  async ask(asked) {
    await this.ready;
    const id = this.count++;
    const reply = new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    this.worker.postMessage({ id, asked });
    let timer;
    const late = new Promise((_, reject) => {
      timer = setTimeout(() => reject(new Failure("late")), PATIENCE);
    });
    try {
      return await Promise.race([reply, late]);
    } catch (error) {
      // after an error of its own, Pyodide answers nothing more
      this.#restart();
      throw error;
    } finally {
      clearTimeout(timer);
    }
  }

  #restart() {
    this.worker.terminate();
    this.waiting.clear();
    this.#start();
  }
}
