/** Scales and ticks. */

import { dateText } from './values.js';

/** @typedef {{ value: number, text: string, strong?: boolean }} Tick */

const LARGEST = 8e307; // a span of two of these is still a number

/**
 * A domain with round ends, and its ticks.
 * @param {number} low
 * @param {number} high
 * @param {number} count about how many ticks
 * @param {{ zero?: boolean, whole?: boolean }} [options] `zero`: the domain holds 0; `whole`: no fractions
 * @returns {{ low: number, high: number, step: number, values: number[] }}
 */
export function niceDomain(low, high, count, { zero = false, whole = false } = {}) {
	if (!(low <= high)) [low, high] = [0, 1];
	low = Math.max(low, -LARGEST);
	high = Math.min(high, LARGEST);
	if (zero || (low > 0 && low < high * 0.5)) low = Math.min(low, 0);
	if (zero || (high < 0 && high > low * 0.5)) high = Math.max(high, 0);
	// Numbers that differ only in their last digits are drawn as equal: there are no round ones between them.
	if (high - low <= Math.max(Math.abs(low), Math.abs(high)) * 1e-12) {
		const room = Math.abs(low) * 0.1 || 1;
		if (low === 0) high = 1;
		else if (zero) high += room;
		else [low, high] = [low - room, high + room];
	}
	let step = niceStep((high - low) / Math.max(1, count));
	if (whole) step = Math.max(1, step);
	const first = Math.floor(low / step + 1e-9);
	const last = Math.ceil(high / step - 1e-9);
	const values = [];
	for (let each = first; each <= last && values.length < 50; each++) values.push(rounded(each, step));
	return { ...trimmed(values, low, high, step), step };
}

/**
 * Leave out an end that would be mostly empty.
 * @param {number[]} values
 * @param {number} low
 * @param {number} high
 * @param {number} step
 */
function trimmed(values, low, high, step) {
	let [from, to] = [values[0], values[values.length - 1]];
	if (values.length > 3 && low - from > step / 2) {
		from = low - step / 10;
		values.shift();
	}
	if (values.length > 3 && to - high > step / 2) {
		to = high + step / 10;
		values.pop();
	}
	return { low: from, high: to, values };
}

/** @param {number} each @param {number} step */
function rounded(each, step) {
	return step < 1 ? Number((each * step).toPrecision(14)) : each * step;
}

/** @param {number} rough */
function niceStep(rough) {
	const power = 10 ** Math.floor(Math.log10(rough));
	const lead = rough / power;
	const nice = lead <= 1.0001 ? 1 : lead <= 2.0001 ? 2 : lead <= 5.0001 ? 5 : 10;
	return nice * power || rough;
}

const SECOND = 1e3;
const MINUTE = 6e4;
const HOUR = 36e5;
export const DAY = 864e5;
const MONTH = DAY * 30.44;
const YEAR = DAY * 365.25;

const STEPS = /** @type {[string, number, number][]} */ ([
	...[1, 5, 15, 30].map((each) => ['second', each, each * SECOND]),
	...[1, 5, 15, 30].map((each) => ['minute', each, each * MINUTE]),
	...[1, 3, 6, 12].map((each) => ['hour', each, each * HOUR]),
	...[1, 2, 7, 14].map((each) => ['day', each, each * DAY]),
	...[1, 2, 3, 6].map((each) => ['month', each, each * MONTH]),
	...[1, 2, 5, 10, 20, 50, 100, 200, 500, 1000].map((each) => ['year', each, each * YEAR])
]);

/**
 * Ticks at days, months or years that people would choose.
 * @param {number} low
 * @param {number} high
 * @param {number} count at most about this many
 * @returns {Tick[]}
 */
export function timeTicks(low, high, count) {
	if (!(low <= high)) return [];
	const rough = ((high - low) / Math.max(1, count)) * 0.8; // a few more than wanted are better than one alone
	const [unit, each] = STEPS.find(([, , size]) => size >= rough) ?? STEPS[STEPS.length - 1];
	const ticks = [];
	let year = NaN;
	let day = NaN;
	for (let time = firstTick(low, unit, each); time <= high && ticks.length < 200; time = nextTick(time, unit, each)) {
		if (time < low) continue;
		const date = new Date(time);
		const turned = unit === 'year' || date.getUTCFullYear() !== year;
		const newDay = Math.floor(time / DAY) !== day;
		ticks.push({ value: time, text: timeText(time, unit, turned, newDay), strong: turned });
		year = date.getUTCFullYear();
		day = Math.floor(time / DAY);
	}
	return ticks;
}

/** @param {number} low @param {string} unit @param {number} each */
function firstTick(low, unit, each) {
	const date = new Date(low);
	const year = date.getUTCFullYear();
	if (unit === 'year') return utc(Math.floor(year / each) * each, 0);
	if (unit === 'month') return utc(year, Math.floor(date.getUTCMonth() / each) * each);
	if (unit === 'day' && each % 7 === 0) return Math.floor((low / DAY - 4) / 7) * 7 * DAY + 4 * DAY; // Mondays
	if (unit === 'day') return utc(year, date.getUTCMonth(), 1);
	const size = each * (unit === 'hour' ? HOUR : unit === 'minute' ? MINUTE : SECOND);
	return Math.floor(low / size) * size;
}

/** @param {number} time @param {string} unit @param {number} each */
function nextTick(time, unit, each) {
	const date = new Date(time);
	const [year, month] = [date.getUTCFullYear(), date.getUTCMonth()];
	if (unit === 'year') return utc(year + each, 0);
	if (unit === 'month') return utc(year, month + each);
	if (unit === 'day' && each % 7) {
		const next = date.getUTCDate() + each;
		return next > 31 - (each - 1) ? utc(year, month + 1) : Math.min(time + each * DAY, utc(year, month + 1));
	}
	return time + each * { day: DAY, hour: HOUR, minute: MINUTE, second: SECOND }[unit === 'day' ? 'day' : /** @type {'hour'} */ (unit)];
}

/** @param {number} year @param {number} month @param {number} [day] */
function utc(year, month, day = 1) {
	const date = new Date(0);
	date.setUTCFullYear(year, month, day); // Date.UTC would take the years 0 to 99 for 1900 to 1999
	return date.getTime();
}

/** @param {number} time @param {string} unit @param {boolean} turned @param {boolean} newDay */
function timeText(time, unit, turned, newDay) {
	if (unit === 'year') return String(new Date(time).getUTCFullYear());
	if (unit === 'month') return dateText(time, turned ? { month: 'short', year: 'numeric' } : { month: 'short' });
	if (unit === 'day') return dateText(time, { day: 'numeric', month: 'short' });
	if (newDay && time % DAY === 0) return dateText(time, { day: 'numeric', month: 'short' });
	return dateText(time, { hour: '2-digit', minute: '2-digit', ...(unit === 'second' ? { second: '2-digit' } : {}) });
}

/**
 * @param {[number, number]} domain
 * @param {[number, number]} range
 * @returns {(value: number) => number}
 */
export function linear([low, high], [from, to]) {
	const by = (to - from) / (high - low || 1);
	return (value) => from + (value - low) * by;
}

/**
 * The index of the sorted value nearest to `wanted`.
 * @param {ArrayLike<number>} sorted
 * @param {number} wanted
 */
export function nearest(sorted, wanted) {
	let low = 0;
	let high = sorted.length - 1;
	while (low < high) {
		const middle = (low + high) >> 1;
		if (sorted[middle] < wanted) low = middle + 1;
		else high = middle;
	}
	return low > 0 && wanted - sorted[low - 1] < sorted[low] - wanted ? low - 1 : low;
}
