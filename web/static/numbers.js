// Numbers as efflab reads and writes them: lab/typed.py, lab/text.py, base/significant.py.
"use strict";

/** @typedef {{unit: string, unit_name: string}} Unit its English name, and the page's language's */

const Numbers = (() => {
  const { words, units, multipliers } = JSON.parse(
    document.getElementById("page-data").textContent,
  );
  const LONGEST = 60; // characters that are parsed
  const RAISED = "⁰¹²³⁴⁵⁶⁷⁸⁹";
  const ABOUT = /^(≈|~|=|about|around|roughly|approx\.?|ca\.?|大约|大概|约)\s*/i;
  const NUMBER = new RegExp(
    String.raw`^(?<sign>[-+]?)\s*(?:(?<base>10)(?:\^|\*\*)(?<power>[-+]?\d{1,4})|(?:` +
      String.raw`(?<groups>[1-9]\d{0,2}(?:(?<mark>[, _'])\d{3})(?:\k<mark>\d{3})*(?:\.\d+)?)` +
      String.raw`|(?<comma>0?,\d+|\d+,(?!\d{3}(?!\d))\d+)|(?<plain>\d+\.?\d*|\.\d+))` +
      String.raw`(?:e(?<e>[-+]?\d{1,4})|\s*[x×*·]\s*10(?:\^|\*\*)(?<ten>[-+]?\d{1,4}))?)` +
      String.raw`(?![\d,^])\s*(?<rest>.*?)[\s.?!]*$`,
    "i",
  );
  const isAscii = (text) => [...text].every((letter) => letter.codePointAt(0) < 128);

  /** A template of the page's words with its {name}s filled; {name!r} in quotes, as Python's. */
  function tr(template, values = {}) {
    return words[template].replace(/{(\w+)(!r)?}/g, (_, name, quoted) =>
      quoted ? `'${values[name]}'` : values[name],
    );
  }

  function normal(text) {
    return text
      .replace(/[⁻⁰¹²³⁴-⁹]+/g, (raised) =>
        "^" + [...raised].map((d) => (d === "⁻" ? "-" : RAISED.indexOf(d))).join(""),
      )
      .replace(/[\uff01-\uff5e]/g, (full) => String.fromCharCode(full.charCodeAt(0) - 0xfee0))
      .replace(/。/g, ".")
      .replace(/−/g, "-")
      .replace(/\s/g, " ")
      .trim()
      .replace(ABOUT, "")
      .replace(/ *(左右|or so)$/, "");
  }

  /** A unit's name in lower case and singular. */
  function singular(name) {
    const word = name.toLowerCase().replace(/^个/, "").trim();
    return word.length > 2 && isAscii(word) ? word.replace(/s$/, "") : word;
  }

  /** @returns {[string | null, number]} the unit's kind and its size in the base unit */
  function kindOf(name) {
    for (const [kind, sizes] of Object.entries(units))
      for (const word of [name.toLowerCase(), singular(name)])
        if (Object.hasOwn(sizes, word)) return [kind, sizes[word]];
    return [null, 1];
  }

  /** Size of the typed unit in units of the question; null if it is of another kind. */
  function scale(name, asked) {
    const own = [asked.unit, asked.unit_name].map(singular);
    if (!name || own.includes(singular(name))) return 1;
    const [[kind, size], [expected, base]] = [kindOf(name), kindOf(asked.unit)];
    if (kind === null || (asked.unit && kind !== expected)) return null;
    if (kind === "count") return !asked.unit || name === "个" ? 1 : null;
    return asked.unit ? size / base : 1;
  }

  /** The factor given by the words after a number; null if they are not understood. */
  function factor(rest, asked) {
    const alone = scale(rest, asked);
    if (alone !== null) return alone;
    const heads = Object.keys(multipliers).filter((head) => rest.startsWith(head));
    for (const head of heads.sort((a, b) => b.length - a.length)) {
      const tail = rest.slice(head.length).trim();
      const unit = scale(tail, asked);
      // "3M" bytes: of them, or MB?
      const isVague = !tail && isAscii(head) && kindOf(asked.unit)[0] === "bytes";
      if (unit !== null && !isVague) return multipliers[head] * unit;
    }
    return null;
  }

  function magnitude({ base, power, groups, mark, comma, plain, e, ten }) {
    if (base) return Number(`1e${power}`);
    const digits = groups ? groups.replaceAll(mark, "") : (plain ?? comma.replace(",", "."));
    return Number(`${digits}e${e ?? ten ?? 0}`);
  }

  /**
   * The number in a reader's text, in the question's unit; null if it cannot be read.
   *
   * @param {string} text
   * @param {Unit} asked
   * @returns {number | null}
   */
  function parse(text, asked) {
    const groups = text.length <= LONGEST ? NUMBER.exec(normal(text))?.groups : undefined;
    const times = groups ? factor(groups.rest.replace(/\s+/g, " "), asked) : null;
    if (times === null) return null;
    const value = magnitude(groups) * times * (groups.sign === "-" ? -1 : 1);
    return Number.isFinite(value) ? value : null;
  }

  /** `toFixed` with a tie to the even digit, as Python rounds, and commas. */
  function fixed(value, places) {
    let text = value.toFixed(places);
    const isTie = /^50*$/.test(Math.abs(value).toFixed(100).split(".")[1].slice(places));
    if (isTie && /[13579]$/.test(text)) text = (value * (1 - 2 ** -52)).toFixed(places);
    const [whole, part] = text.split(".");
    const grouped = whole.replace(/\B(?=(\d{3})+$)/g, ",");
    return part === undefined ? grouped : `${grouped}.${part}`.replace(/\.?0+$/, "");
  }

  /** `value` with significant digits; whole digits are never rounded away. */
  function significant(value, digits = 3) {
    if (value === 0) return "0";
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    const power = Number(exponent);
    if (power >= -4 && power <= 14) return fixed(value, Math.max(digits - 1 - power, 0));
    const raised = [...String(power)].map((d) => (d === "-" ? "⁻" : RAISED[d])).join("");
    const times = { 1: "", "-1": "-" }[Number(mantissa)] ?? `${Number(mantissa)}×`;
    return `${times}10${raised}`;
  }

  /** A number and its unit: "24x", "5 tokens". */
  function withUnit(value, name) {
    return significant(value) + (["", "x", "%"].includes(name) ? "" : " ") + name;
  }

  /**
   * "You said 2x, it is 24x: 12 times your number."
   *
   * @param {number} guess
   * @param {Unit & {measured: number}} asked
   */
  function comparison(guess, asked) {
    const truth = asked.measured;
    const said = { guess: withUnit(guess, asked.unit_name), truth: withUnit(truth, asked.unit_name) };
    if (guess === truth || (truth && Math.abs(guess / truth - 1) <= 0.1))
      return tr("You said {guess}, it is {truth}: well predicted.", said);
    if (guess * truth <= 0) return tr("You said {guess}, it is {truth}.", said);
    const [template, ratio] =
      Math.abs(guess) < Math.abs(truth)
        ? ["You said {guess}, it is {truth}: {factor} times your number.", truth / guess]
        : ["You said {guess}, it is {truth}: your number is {factor} times too high.", guess / truth];
    return tr(template, { ...said, factor: significant(ratio, 2) });
  }

  return { tr, parse, significant, comparison };
})();
