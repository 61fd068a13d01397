// Text to token ids, as `efflab.data.tokenizer()` does it: byte-level BPE (Sennrich et al. 2016).

/** GPT-2's pieces. `\s` would differ from Unicode's white space, which the library takes. */
const PIECES = new RegExp(
  "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\p{White_Space}\\p{L}\\p{N}]+" +
    "|\\p{White_Space}+(?!\\P{White_Space})|\\p{White_Space}+",
  "gu",
);
export const FILE = "<|file|>";

/** The character that stands for each byte: itself where it can be seen, else one from 256 on. */
function byteCharacters() {
  const visible = byte =>
    (byte > 32 && byte < 127) || (byte > 160 && byte < 256 && byte !== 173);
  let next = 256;
  return Array.from({length: 256}, (_, b) => String.fromCharCode(visible(b) ? b : next++));
}

const CHARACTERS = byteCharacters();
const BYTES = new Map(CHARACTERS.map((character, byte) => [character, byte]));

export class Tokenizer {
  /**
   * @param {string[]} vocabulary in the order of ids; the first one begins a file
   * @param {string[]} merges pairs with a space between, the first one first
   */
  constructor(vocabulary, merges) {
    this.vocabulary = vocabulary;
    this.ids = new Map(vocabulary.map((word, id) => [word, id]));
    this.ranks = new Map(merges.map((pair, rank) => [pair, rank]));
    this.known = new Map();
  }

  /** @param {string} text */
  encode(text) {
    const ids = [];
    text.split(FILE).forEach((part, i) => {
      if (i) ids.push(0);
      for (const [piece] of part.matchAll(PIECES)) ids.push(...this.#encodePiece(piece));
    });
    return ids;
  }

  #encodePiece(piece) {
    if (!this.known.has(piece)) {
      const bytes = new TextEncoder().encode(piece);
      this.known.set(piece, this.#merge(Array.from(bytes, byte => CHARACTERS[byte])));
    }
    return this.known.get(piece);
  }

  /** Merge the pair that was learned first, until there is none. */
  #merge(parts) {
    for (;;) {
      let best = Infinity;
      for (let i = 0; i + 1 < parts.length; i++) {
        best = Math.min(best, this.ranks.get(`${parts[i]} ${parts[i + 1]}`) ?? Infinity);
      }
      if (best === Infinity) return parts.map(part => this.ids.get(part));
      for (let i = 0; i + 1 < parts.length; i++) {
        if (this.ranks.get(`${parts[i]} ${parts[i + 1]}`) === best) {
          parts.splice(i, 2, parts[i] + parts[i + 1]);
        }
      }
    }
  }

  /** Bytes of text that a token stands for: none for the mark of a file. */
  nBytes(id) {
    return id ? this.vocabulary[id].length : 0;
  }

  /** @param {number[]} ids */
  decode(ids) {
    return new TextDecoder().decode(this.#bytes(ids));
  }

  #bytes(ids) {
    const bytes = ids.filter(id => id).flatMap(id => [...this.vocabulary[id]]);
    return Uint8Array.from(bytes, character => BYTES.get(character));
  }

  /**
   * The text of each token; a character that several share stands at the last of them.
   * @param {number[]} ids
   */
  texts(ids) {
    const decoder = new TextDecoder();
    return ids.map(id => decoder.decode(this.#bytes([id]), {stream: true}));
  }
}
