/** Numbers, times and sizes as text. A value that is not there is "–". */

export const NONE = "–";

const WHOLE = new Intl.NumberFormat("en-US", { maximumFractionDigits: 0 });
const CLOCK = new Intl.DateTimeFormat("en-GB", { timeStyle: "medium" });
const MOMENT = new Intl.DateTimeFormat("en-GB", { dateStyle: "medium", timeStyle: "medium" });

/**
 * Writes a number with a given number of significant digits, without trailing zeros.
 *
 * @param {number | null | undefined} value
 * @param {number} digits
 */
export function significant(value, digits) {
  if (value === null || value === undefined || !Number.isFinite(value)) return NONE;
  if (value === 0) return "0";
  const size = Math.abs(value);
  if (size < 1e-3 || size >= 1e6) {
    const [mantissa, exponent] = value.toExponential(digits - 1).split("e");
    return `${trimmed(mantissa)}e${Number(exponent)}`;
  }
  if (size >= 10 ** digits) return WHOLE.format(value);
  return trimmed(value.toPrecision(digits));
}

/** A learning rate: three significant digits. @param {number | null | undefined} value */
export const rate = (value) => significant(value, 3);

/** A loss: four significant digits. @param {number | null | undefined} value */
export const loss = (value) => significant(value, 4);

/** A whole number with separators. @param {number | null | undefined} value */
export function count(value) {
  return value === null || value === undefined ? NONE : WHOLE.format(value);
}

/** "1 step", "12 steps". @param {number} number @param {string} one @param {string} [many] */
export function counted(number, one, many = `${one}s`) {
  return `${count(number)} ${number === 1 ? one : many}`;
}

/** A whole number in few characters: 1.5M, 200k. @param {number} value */
export function compact(value) {
  const size = Math.abs(value);
  if (size >= 1e9) return `${trimmed((value / 1e9).toPrecision(4))}G`;
  if (size >= 1e6) return `${trimmed((value / 1e6).toPrecision(4))}M`;
  if (size >= 1e5) return `${trimmed((value / 1e3).toPrecision(4))}k`;
  return WHOLE.format(value);
}

/** A share as a percentage. @param {number} share from 0 to 1 */
export function percent(share) {
  const value = share * 100;
  return `${value > 0 && value < 10 ? trimmed(value.toFixed(1)) : Math.floor(value)} %`;
}

/** A size in bytes, KiB, MiB or GiB. @param {number | null | undefined} value */
export function bytes(value) {
  if (value === null || value === undefined) return NONE;
  const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
  let rest = value;
  let unit = 0;
  for (; rest >= 1024 && unit < units.length - 1; unit += 1) rest /= 1024;
  return `${unit === 0 ? rest : significant(rest, 3)} ${units[unit]}`;
}

/** A duration: 80 µs, 1.5 ms, 12 s, 3 min 5 s, 2 h 10 min, 4 d 3 h. @param {number | null | undefined} seconds */
export function duration(seconds) {
  if (seconds === null || seconds === undefined || !Number.isFinite(seconds)) return NONE;
  if (seconds === 0) return "0 s";
  if (seconds < 1e-3) return `${significant(seconds * 1e6, 3)} µs`;
  if (seconds < 1) return `${significant(seconds * 1e3, 3)} ms`;
  if (seconds < 60) return `${significant(seconds, seconds < 10 ? 2 : 3)} s`;
  const whole = Math.round(seconds);
  const [days, hours, minutes] = [
    Math.floor(whole / 86400),
    Math.floor(whole / 3600) % 24,
    Math.floor(whole / 60) % 60,
  ];
  if (days) return `${days} d ${hours} h`;
  if (hours) return `${hours} h ${minutes} min`;
  return `${minutes} min ${whole % 60} s`;
}

/**
 * How long ago a moment was: one unit only.
 *
 * @param {number} time seconds since the epoch
 * @param {number} now seconds since the epoch
 */
export function ago(time, now) {
  const seconds = Math.max(0, now - time);
  if (seconds < 5) return "just now";
  if (seconds < 60) return `${Math.floor(seconds)} s ago`;
  if (seconds < 3600) return `${Math.floor(seconds / 60)} min ago`;
  if (seconds < 86400) return `${Math.floor(seconds / 3600)} h ago`;
  return `${counted(Math.floor(seconds / 86400), "day")} ago`;
}

/** A moment in the reader's time zone. @param {number} time seconds since the epoch */
export const moment = (time) => MOMENT.format(new Date(time * 1000));

/**
 * A moment in the reader's time zone, without the date if that is today's.
 *
 * @param {number} time seconds since the epoch
 * @param {number} now seconds since the epoch
 */
export function clock(time, now) {
  const [then, today] = [new Date(time * 1000), new Date(now * 1000)];
  return then.toDateString() === today.toDateString() ? CLOCK.format(then) : moment(time);
}

/** "training_loss" as "training loss". @param {string} name */
export const words = (name) => name.replaceAll("_", " ");

/** @param {string} number */
function trimmed(number) {
  return number.includes(".") ? number.replace(/\.?0+$/, "") : number;
}
