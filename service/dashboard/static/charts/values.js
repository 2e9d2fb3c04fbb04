/** Cells of a result: exact numbers, dates, and how both are written for people. */

/** @typedef {number | Exact | string | boolean | null | object} Cell */
/** @typedef {{ name: string, type: string }} Column */
/**
 * A metric's result as the API gives it.
 * @typedef {object} Result
 * @property {string} id
 * @property {string | null} title
 * @property {Column[]} columns
 * @property {Record<string, Cell>[]} records
 * @property {number} row_count
 * @property {boolean} truncated
 * @property {string} as_of
 * @property {Record<string, unknown>} [parameters]
 */
/** @typedef {{ before: string, after: string }} Unit */

/** A number that a JavaScript number would change: too many digits, or zeros that tell its precision. */
export class Exact {
	/** @param {string} text */
	constructor(text) {
		this.text = text;
	}

	toString() {
		return this.text;
	}

	toJSON() {
		return /** @type {any} */ (JSON).rawJSON?.(this.text) ?? Number(this.text);
	}
}

const SUSPECT = /(?:\d\.?){16}|\.\d*0[,}\]\s]|\de/i;
const TOKENS = /"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*/g;
const MARK = '\u0001exact:';

/**
 * Parse JSON without rounding a number.
 * @param {string} text
 * @returns {any}
 */
export function parseExact(text) {
	if (!SUSPECT.test(text)) return JSON.parse(text);
	if (readsSource) return JSON.parse(text, keepExact);
	const marked = text.replace(TOKENS, (token) => (token[0] === '"' || isKept(token) ? token : `"\\u0001exact:${token}"`));
	return JSON.parse(marked, (_, value) => (typeof value === 'string' && value.startsWith(MARK) ? new Exact(value.slice(MARK.length)) : value));
}

/**
 * @param {string} _
 * @param {any} value
 * @param {{ source?: string }} [context]
 */
function keepExact(_, value, context) {
	if (typeof value !== 'number' || !context?.source || isKept(context.source)) return value;
	return new Exact(context.source);
}

/** @param {string} source */
const isKept = (source) => String(Number(source)) === source;

/** Whether this engine's JSON.parse tells a number's text. */
export const readsSource = (() => {
	let seen = false;
	JSON.parse('1', /** @type {any} */ ((/** @type {string} */ _, /** @type {any} */ value, /** @type {any} */ context) => (seen = context?.source === '1', value)));
	return seen;
})();

/**
 * The number to draw, or NaN where there is none.
 * @param {Cell | undefined} cell
 */
export function toNumber(cell) {
	if (typeof cell === 'number') return cell;
	return cell instanceof Exact ? Number(cell.text) : NaN;
}

const NUMERIC = /^(smallint|integer|bigint|numeric|real|double precision)\b(?!.*\[\])/;
const TEMPORAL = /^(date|timestamp)\b(?!.*\[\])/;
const DAY = /^(\d{4})-(\d\d)(?:-(\d\d))?$/;

/** @param {Column} column */
export const isNumeric = (column) => NUMERIC.test(column.type);

/** @param {Column} column */
export const isTemporal = (column) => TEMPORAL.test(column.type);

/**
 * Milliseconds of a date or time, or NaN. Times without zone count as UTC, so that they are shown as stored.
 * @param {Cell | undefined} cell
 */
export function toTime(cell) {
	if (typeof cell !== 'string') return NaN;
	const day = cell.length < 11 && DAY.exec(cell);
	if (day) return Date.UTC(+day[1], +day[2] - 1, +(day[3] ?? 1));
	return Date.parse(/[zZ]|[+-]\d\d(:?\d\d)?$/.test(cell.slice(10)) ? cell : `${cell.replace(' ', 'T')}Z`);
}

/** @param {Cell | undefined} cell */
export const isDayText = (cell) => typeof cell === 'string' && DAY.test(cell);

const SUFFIXES = /** @type {const} */ ([
	[/(^|_)(percent|percentage|pct)$|%/, '', '%'],
	[/(^|_)(eur|euros?)$/, '€', ''],
	[/(^|_)(usd|dollars?)$/, '$', ''],
	[/(^|_)(gbp|pounds)$/, '£', ''],
	[/(^|_)(ms|millis|milliseconds)$/, '', ' ms'],
	[/(^|_)(s|secs?|seconds)$/, '', ' s'],
	[/(^|_)(mins?|minutes)$/, '', ' min'],
	[/(^|_)(h|hours)$/, '', ' h'],
	[/_days$/, '', ' days'],
	[/(^|_)bytes$/, '', ' B'],
	[/(^|_)(kg|km|mm|cm|kwh|mwh)$/, '', '']
]);

/**
 * The unit that a column's name tells.
 * @param {string} name
 * @returns {Unit}
 */
export function unitOf(name) {
	for (const [pattern, before, after] of SUFFIXES) {
		const found = pattern.exec(name.toLowerCase());
		if (found) return { before, after: before || after || ` ${found[2]}` };
	}
	return { before: '', after: '' };
}

/**
 * A column's name for people.
 * @param {string} name
 */
export function wordsOf(name) {
	const words = name.replace(/_+/g, ' ').trim();
	return words ? words[0].toUpperCase() + words.slice(1) : name;
}

const language = () => globalThis.document?.documentElement.lang || 'en';

/** @type {Map<string, Intl.NumberFormat>} */
const formats = new Map();

/** @param {number} least @param {number} most */
function decimal(least, most) {
	const key = `${language()} ${least} ${most}`;
	let format = formats.get(key);
	if (!format) formats.set(key, (format = new Intl.NumberFormat(language(), { minimumFractionDigits: least, maximumFractionDigits: most })));
	return format;
}

/**
 * A number with all its digits, grouped.
 * @param {number | Exact} value
 * @param {Unit} [unit]
 */
export function exactText(value, unit = NONE) {
	const text = String(value);
	if (!/^-?\d+(\.\d+)?$/.test(text)) return dressed(text, unit);
	const decimals = Math.min(text.split('.')[1]?.length ?? 0, 100);
	return dressed(decimal(decimals, decimals).format(/** @type {any} */ (text)), unit);
}

export const NONE = Object.freeze({ before: '', after: '' });

/** @param {string} text @param {Unit} unit */
export function dressed(text, unit) {
	const negative = /^[-−]/.test(text);
	return `${negative ? '−' : ''}${unit.before}${negative ? text.slice(1) : text}${unit.before ? '' : unit.after}`;
}

const SCALES = /** @type {const} */ ([
	[1e15, ''],
	[1e12, 'tn'],
	[1e9, 'bn'],
	[1e6, 'M'],
	[1e3, 'k'],
	[1, '']
]);

/**
 * Divisor and suffix for numbers up to this size, so that all ticks of an axis share them.
 * @param {number} largest
 * @returns {{ by: number, suffix: string }}
 */
export function scaleOf(largest) {
	if (!(largest >= 1e4 && largest < 1e15)) return { by: 1, suffix: '' };
	const [by, suffix] = SCALES.find(([size]) => largest >= size) ?? [1, ''];
	return { by, suffix };
}

/**
 * A number short enough for a label: 12.3k, 4.56M, 0.00123.
 * @param {number} value
 * @param {Unit} [unit]
 */
export function shortText(value, unit = NONE) {
	const size = Math.abs(value);
	if (size && (size >= 1e15 || size < 1e-6)) return dressed(powerText(value, 2), unit);
	const { by, suffix } = scaleOf(size);
	const scaled = size / by;
	const digits = scaled >= 100 || Number.isInteger(scaled) ? (scaled < 1e4 && by === 1 && !Number.isInteger(scaled) ? 1 : 0) : scaled >= 10 ? 1 : scaled >= 1 ? 2 : Math.min(8, 2 - Math.floor(Math.log10(scaled || 1)));
	const text = decimal(0, digits).format(scaled);
	return dressed(`${value < 0 ? '-' : ''}${text}${suffix}`, unit);
}

/** @param {number} value @param {number} digits */
function powerText(value, digits) {
	const [lead, power] = value.toExponential(digits).split('e');
	return `${lead} × 10${[...power.replace('+', '')].map((char) => RAISED[char]).join('')}`;
}

const RAISED = /** @type {Record<string, string>} */ ({ '-': '⁻', 0: '⁰', 1: '¹', 2: '²', 3: '³', 4: '⁴', 5: '⁵', 6: '⁶', 7: '⁷', 8: '⁸', 9: '⁹' });

/**
 * A tick's number, with the decimals that its step needs.
 * @param {number} value
 * @param {number} step
 * @param {number} largest
 * @param {Unit} [unit]
 */
export function tickText(value, step, largest, unit = NONE) {
	if (largest >= 1e15 || (step && step < 1e-9)) return value ? dressed(powerText(value, 1), unit) : '0';
	const { by, suffix } = scaleOf(largest);
	const digits = Math.min(12, Math.max(0, -Math.floor(Math.log10(step / by) + 1e-9)));
	const text = decimal(digits, digits).format(value / by);
	return dressed(`${text}${value ? suffix : ''}`, unit);
}

/**
 * Any cell as text, exactly.
 * @param {Cell | undefined} cell
 * @param {Column} [column]
 */
export function cellText(cell, column) {
	if (cell === null || cell === undefined) return '';
	if (typeof cell === 'number' || cell instanceof Exact) return exactText(cell, column && isNumeric(column) ? unitOf(column.name) : NONE);
	if (typeof cell === 'object') return JSON.stringify(cell);
	const time = column && isTemporal(column) ? toTime(cell) : NaN;
	return Number.isNaN(time) ? String(cell) : dayText(time, column?.type === 'date');
}

/** @type {Map<string, Intl.DateTimeFormat>} */
const dateFormats = new Map();

/** @param {number} time @param {Intl.DateTimeFormatOptions} options */
export function dateText(time, options) {
	const key = language() + JSON.stringify(options);
	let format = dateFormats.get(key);
	if (!format) dateFormats.set(key, (format = new Intl.DateTimeFormat(language() === 'en' ? 'en-GB' : language(), { timeZone: 'UTC', ...options })));
	return format.format(time);
}

/**
 * A moment for people; midnight is a day.
 * @param {number} time
 * @param {boolean} [dayOnly]
 */
export function dayText(time, dayOnly = time % 864e5 === 0) {
	if (Math.abs(time) > 8.64e15) return '';
	const day = dateText(time, { day: 'numeric', month: 'short', year: 'numeric' });
	if (dayOnly) return day;
	return `${day}, ${dateText(time, { hour: '2-digit', minute: '2-digit', ...(time % 6e4 ? { second: '2-digit' } : {}) })}`;
}
