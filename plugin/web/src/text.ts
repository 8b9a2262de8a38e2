// Numbers and names as people read them. A name is text from outside: it never becomes markup, and characters that
// control or turn text, or are not seen, are replaced, as the server does.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB", "EB"];

/** Bytes with a fitting unit. */
export function bytes(value: number): string {
  let unit = 0;
  while (value >= 1000 && unit < UNITS.length - 1) {
    value /= 1000;
    unit += 1;
  }
  return `${unit === 0 ? value : value.toFixed(1)} ${UNITS[unit]}`;
}

/** A whole number with groups of three. */
export function whole(value: number): string {
  return value.toLocaleString("en-US", { maximumFractionDigits: 0 });
}

/** Dollars: cents, or two digits of a smaller amount. */
export function dollars(value: number): string {
  const size = Math.abs(value);
  const sign = value < 0 ? "−" : "";
  if (size === 0) return "$0";
  if (size < 0.01) return `${sign}$${size.toPrecision(2)}`;
  const places = size >= 1000 ? 0 : 2;
  const text = size.toLocaleString("en-US", { minimumFractionDigits: places, maximumFractionDigits: places });
  return `${sign}$${text}`;
}

/** A part of a whole. `null` where there is no whole. */
export function percent(part: number, all: number): string {
  if (all <= 0) return "–";
  const share = (part / all) * 100;
  if (share > 0 && share < 0.1) return "< 0.1 %";
  return `${share > 0 && share < 10 ? share.toFixed(1) : share.toFixed(0)} %`;
}

const UNSAFE = /[\u0000-\u001f\u007f-\u009f\u00ad\u061c\u200b-\u200f\u2028-\u202e\u2060-\u206f\ufeff\u{e0000}-\u{e0fff}]/gu;

/** A name from outside. */
export function name(text: string | undefined): string {
  return (text ?? "").replace(UNSAFE, "\ufffd");
}

/** A time for people, in UTC as the history has it. */
export function moment(text: string | null | undefined): string {
  if (!text) return "never";
  return `${text.slice(0, 10)} ${text.slice(11, 16)} UTC`;
}

/** A number of seconds. */
export function seconds(value: number): string {
  if (value < 120) return `${value} s`;
  if (value < 7200) return `${Math.floor(value / 60)} min`;
  if (value < 172800) return `${Math.floor(value / 3600)} h`;
  return `${Math.floor(value / 86400)} d`;
}
