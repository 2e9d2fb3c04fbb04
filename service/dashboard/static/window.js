/** The period of the whole page. It lives in the address, so that it can be shared and gone back to. Pure. */

import { dayText } from './charts/values.js';

/**
 * Days are `YYYY-MM-DD`. Without dates and range each tile has its own period.
 * @typedef {object} Period
 * @property {string} [start_date]
 * @property {string} [end_date]
 * @property {number} [day_range] the last days up to today
 */
/** @typedef {{ name: string, period: Period }} Preset */

const DAY_MS = 864e5;
const DAY = /^\d{4}-\d\d-\d\d$/;
const NAMES = ['start_date', 'end_date', 'day_range'];
/** Parameters of the page itself; all others are the metrics'. */
const OWN = ['kiosk', 'rotate', 'compare'];

/** @param {string} day */
const timeOf = (day) => Date.parse(`${day}T00:00:00Z`);

/** @param {number} time */
const dayOf = (time) => new Date(time).toISOString().slice(0, 10);

/** @param {string} day @param {number} days */
export const plus = (day, days) => dayOf(timeOf(day) + days * DAY_MS);

/** @param {string | null | undefined} day */
const isDay = (day) => !!day && DAY.test(day) && dayOf(timeOf(day) || 0) === day;

/**
 * @param {string} search
 * @returns {{ period: Period, compare: boolean, others: Record<string, string> }}
 */
export function readAddress(search) {
	const given = new URLSearchParams(search);
	/** @type {Period} */
	const period = {};
	const [start, end, range] = NAMES.map((name) => given.get(name));
	if (isDay(start)) period.start_date = /** @type {string} */ (start);
	if (isDay(end)) period.end_date = /** @type {string} */ (end);
	if (range && /^\d{1,4}$/.test(range) && !period.start_date && !period.end_date) period.day_range = Number(range);
	const others = Object.fromEntries([...given].filter(([name]) => !NAMES.includes(name) && !OWN.includes(name)));
	return { period, compare: given.has('compare'), others };
}

/**
 * The address's query with this period. What else stands there stays.
 * @param {string} search
 * @param {Period} period
 * @param {boolean} compare
 */
export function writeAddress(search, period, compare) {
	const given = new URLSearchParams(search);
	for (const name of [...NAMES, 'compare']) given.delete(name);
	for (const [name, value] of Object.entries(period)) given.set(name, String(value));
	if (compare && !isOpen(period)) given.set('compare', '1');
	const text = given.toString().replace(/=(?=&|$)/g, '');
	return text ? `?${text}` : '';
}

/** Whether each tile has its own period. @param {Period} period */
export const isOpen = ({ start_date, end_date, day_range }) => !start_date && !end_date && !day_range;

/** @param {Period} period @returns {Record<string, string>} */
export const parametersOf = (period) => Object.fromEntries(Object.entries(period).map(([name, value]) => [name, String(value)]));

/** @param {string} today @returns {Preset[]} */
export function presets(today) {
	const [year, month] = today.split('-').map(Number);
	const [first, before] = [monthOf(year, month), monthOf(year, month - 1)];
	return [
		{ name: 'Each tile’s own period', period: {} },
		{ name: 'Last 7 days', period: { day_range: 7 } },
		{ name: 'Last 30 days', period: { day_range: 30 } },
		{ name: 'Last 90 days', period: { day_range: 90 } },
		{ name: 'Last 365 days', period: { day_range: 365 } },
		{ name: 'This month', period: first },
		{ name: 'Last month', period: before },
		{ name: 'This year', period: { start_date: `${year}-01-01`, end_date: `${year}-12-31` } },
		{ name: 'Last year', period: { start_date: `${year - 1}-01-01`, end_date: `${year - 1}-12-31` } }
	];
}

/** A whole month; months before 1 and past 12 are those of other years. @param {number} year @param {number} month */
function monthOf(year, month) {
	return { start_date: dayOf(Date.UTC(year, month - 1, 1)), end_date: dayOf(Date.UTC(year, month, 0)) };
}

/**
 * Both days of a period, or null where one is open.
 * @param {Period} period
 * @param {string} today
 * @returns {{ start: string, end: string } | null}
 */
export function daysOf({ start_date: start, end_date: end, day_range: range }, today) {
	if (range) return { start: plus(today, -range), end: today };
	return start && end && start <= end ? { start, end } : null;
}

/**
 * The period before or after: whole months and years stay whole.
 * @param {Period} period
 * @param {1 | -1} by
 * @param {string} today
 * @returns {Period | null}
 */
export function shifted(period, by, today) {
	const days = daysOf(period, today);
	if (!days) return null;
	const { start, end } = days;
	const [year, month] = start.split('-').map(Number);
	if (start.endsWith('-01') && !period.day_range) {
		const months = (Number(end.slice(0, 4)) - year) * 12 + Number(end.slice(5, 7)) - month + 1;
		if (monthOf(year, month + months - 1).end_date === end)
			return { start_date: monthOf(year, month + by * months).start_date, end_date: monthOf(year, month + by * months + months - 1).end_date };
	}
	const length = (timeOf(end) - timeOf(start)) / DAY_MS + 1;
	return { start_date: plus(start, by * length), end_date: plus(end, by * length) };
}

/** Milliseconds from the start of the period before to this one's. @param {Period} period @param {string} today */
export function distance(period, today) {
	const [now, before] = [daysOf(period, today), shifted(period, -1, today)];
	return now && before?.start_date ? timeOf(now.start) - timeOf(before.start_date) : 0;
}

/** @param {Period} period @param {string} today */
export function nameOf(period, today) {
	const same = presets(today).find((each) => JSON.stringify(parametersOf(each.period)) === JSON.stringify(parametersOf(period)));
	if (same) return same.name;
	const { start_date: start, end_date: end, day_range: range } = period;
	if (range) return `Last ${range} days`;
	const [from, to] = [start && dayText(timeOf(start), true), end && dayText(timeOf(end), true)];
	if (from && to) return start === end ? from : `${from} – ${to}`;
	return from ? `From ${from}` : `Until ${to}`;
}
