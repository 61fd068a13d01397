// Words and numbers of the page's language.

/** The page's data: addresses, words, texts. */
export const page = JSON.parse(document.getElementById("page-data").textContent);
const language = document.documentElement.lang;

/** A template with its values: "{n} bits". */
export const fill = (template, values) =>
  template.replace(/\{(\w+)\}/g, (whole, name) => values[name] ?? whole);

export const number = (value, digits = 2) => value.toLocaleString(
  language, {minimumFractionDigits: digits, maximumFractionDigits: digits});
export const whole = value => value.toLocaleString(language);
export const megabytes = bytes => `${number(bytes / 1e6)} MB`;
export const percent = share => `${number(100 * share, 0)} %`;
/** "+3.4 %", "−0.2 %" */
export const change = share =>
  `${share < 0 ? "−" : "+"}${number(Math.abs(100 * share), Math.abs(share) < 0.1 ? 1 : 0)} %`;
