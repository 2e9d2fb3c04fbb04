/** What a result can be drawn as: the kind follows the shape of its columns. */

import { NONE, cellText, isDayText, isNumeric, isTemporal, toNumber, toTime, unitOf, wordsOf } from './values.js';

/** @typedef {import('./values.js').Cell} Cell */
/** @typedef {import('./values.js').Column} Column */
/** @typedef {import('./values.js').Result} Result */
/** @typedef {import('./values.js').Unit} Unit */
/** @typedef {'number' | 'line' | 'bar' | 'stacked' | 'table'} Kind */
/**
 * One line, or the bars of one colour.
 * @typedef {object} Series
 * @property {string} name
 * @property {Unit} unit
 * @property {Float64Array} values NaN where there is none
 * @property {Cell[]} cells the same as the result has them
 */
/**
 * @typedef {object} Shape
 * @property {Kind} kind what suits it best
 * @property {Kind[]} kinds all that it can be drawn as
 * @property {'time' | 'category' | 'none'} axis
 * @property {string} axisName
 * @property {boolean} ordered whether categories are numbers, as years or hours are
 * @property {boolean} days whether all times are whole days
 * @property {Float64Array} times sorted
 * @property {string[]} labels
 * @property {Series[]} series
 */

export const KINDS = /** @type {Kind[]} */ (['number', 'line', 'bar', 'stacked', 'table']);
export const MOST_SERIES = 8;
const MOST_STACKED_TIMES = 100;
const ORDERED = /^(year|month|week|hour|day|dow|isodow|quarter|bucket|rank|level|size|age)$/i;

/**
 * @param {Result} result
 * @returns {Shape}
 */
export function shapeOf({ columns, records }) {
	const { time, texts, numbers } = rolesOf(columns, records);
	const only = columns.length - numbers.length - texts.length - (time ? 1 : 0) === 0;
	const none = new Float64Array();
	/** @type {Shape} */
	const shape = { kind: 'table', kinds: ['table'], axis: 'none', axisName: '', ordered: false, days: true, times: none, labels: [], series: [] };
	if (!records.length || !numbers.length) return shape;
	if (time && only && texts.length === 0) return overTime(shape, time, numbers, records);
	if (time && only && texts.length === 1 && numbers.length === 1) return pivoted(shape, time, texts[0], numbers[0], records);
	if (!time && only && texts.length === 1) return byCategory(shape, texts[0], numbers, records);
	if (!time && only && texts.length === 2 && numbers.length === 1) return crossed(shape, texts, numbers[0], records);
	if (!texts.length && !time && only && records.length === 1) return figures(shape, numbers, records);
	return shape;
}

/** @param {Column[]} columns @param {Record<string, Cell>[]} records */
function rolesOf(columns, records) {
	/** @type {Column | undefined} */
	let time;
	const texts = [];
	const numbers = [];
	for (const column of columns) {
		if (isNumeric(column)) numbers.push(column);
		else if (!time && (isTemporal(column) || isDated(column, records))) time = column;
		else if (isCategory(column)) texts.push(column);
	}
	// A year or an hour beside a number is what the number is of.
	if (!time && !texts.length && numbers.length > 1 && ORDERED.test(numbers[0].name)) texts.push(/** @type {Column} */ (numbers.shift()));
	return { time, texts, numbers };
}

/** @param {Column} column */
const isCategory = ({ type }) => !UNCOUNTED.test(type);
const UNCOUNTED = /\[\]|^(jsonb?|bytea|xml|point|polygon|path|box|circle|line|lseg|tsvector|date|timestamp|record|void)\b/;

/** @param {Column} column @param {Record<string, Cell>[]} records */
const isDated = (column, records) => records.length > 0 && /^(text|character)/.test(column.type) && records.every((record) => isDayText(record[column.name]));

/**
 * @param {Shape} shape
 * @param {Column} time
 * @param {Column[]} numbers
 * @param {Record<string, Cell>[]} records
 * @returns {Shape}
 */
function overTime(shape, time, numbers, records) {
	const all = Float64Array.from(records, (record) => toTime(record[time.name]));
	const order = [...all.keys()].filter((index) => !Number.isNaN(all[index]));
	if (order.some((index, at) => at > 0 && all[index] < all[order[at - 1]])) order.sort((one, other) => all[one] - all[other]);
	const times = Float64Array.from(order, (index) => all[index]);
	const series = numbers.slice(0, MOST_SERIES).map((column) => {
		const cells = order.map((index) => records[index][column.name]);
		return { name: wordsOf(column.name), unit: unitOf(column.name), cells, values: Float64Array.from(cells, toNumber) };
	});
	if (!times.length) return shape;
	return { ...shape, kind: 'line', kinds: ['line', 'bar', ...stackable(series), 'number', 'table'], axis: 'time', axisName: wordsOf(time.name), days: areDays(times), times, series };
}

/**
 * @param {Shape} shape
 * @param {Column} time
 * @param {Column} category
 * @param {Column} number
 * @param {Record<string, Cell>[]} records
 * @returns {Shape}
 */
function pivoted(shape, time, category, number, records) {
	const stamps = records.map((record) => toTime(record[time.name]));
	const times = Float64Array.from(new Set(stamps.filter((each) => !Number.isNaN(each)))).sort();
	if (!times.length) return shape;
	const places = new Map([...times].map((each, index) => [each, index]));
	const series = tabulated(records, category, number, times.length, (_, index) => places.get(stamps[index]));
	const kinds = /** @type {Kind[]} */ ([...stackable(series), 'line', 'bar', 'table']);
	const kind = kinds[0] === 'stacked' && times.length > MOST_STACKED_TIMES ? 'line' : kinds[0];
	return { ...shape, kind, kinds, axis: 'time', axisName: wordsOf(time.name), days: areDays(times), times, series };
}

/**
 * @param {Shape} shape
 * @param {Column} category
 * @param {Column[]} numbers
 * @param {Record<string, Cell>[]} records
 * @returns {Shape}
 */
function byCategory(shape, category, numbers, records) {
	const labels = records.map((record) => isNumeric(category) ? String(record[category.name] ?? '—') : cellText(record[category.name], category) || '—');
	const series = numbers.slice(0, MOST_SERIES).map((column) => {
		const cells = records.map((record) => record[column.name]);
		return { name: wordsOf(column.name), unit: unitOf(column.name), cells, values: Float64Array.from(cells, toNumber) };
	});
	return { ...shape, kind: 'bar', kinds: ['bar', ...(series.length > 1 ? stackable(series) : []), 'table'], axis: 'category', axisName: wordsOf(category.name), ordered: isNumeric(category), labels, series };
}

/**
 * Two categories and a number: a table, unless somebody chooses stacked bars.
 * @param {Shape} shape
 * @param {Column[]} texts
 * @param {Column} number
 * @param {Record<string, Cell>[]} records
 * @returns {Shape}
 */
function crossed(shape, [rows, colours], number, records) {
	const labels = [...new Set(records.map((record) => cellText(record[rows.name]) || '—'))];
	const places = new Map(labels.map((label, index) => [label, index]));
	const series = tabulated(records, colours, number, labels.length, (record) => places.get(cellText(record[rows.name]) || '—'));
	return { ...shape, kinds: ['table', ...stackable(series), 'bar'], axis: 'category', axisName: wordsOf(rows.name), labels, series };
}

/**
 * @param {Shape} shape
 * @param {Column[]} numbers
 * @param {Record<string, Cell>[]} records
 * @returns {Shape}
 */
function figures(shape, numbers, [record]) {
	const series = numbers.slice(0, MOST_SERIES).map((column) => {
		const cells = [record[column.name]];
		return { name: wordsOf(column.name), unit: unitOf(column.name), cells, values: Float64Array.from(cells, toNumber) };
	});
	const one = numbers.length === 1;
	return { ...shape, kind: one ? 'number' : 'table', kinds: one ? ['number', 'table'] : ['table', 'number'], series };
}

/**
 * One series for each category, the smallest ones folded into one.
 * @param {Record<string, Cell>[]} records
 * @param {Column} category
 * @param {Column} number
 * @param {number} length
 * @param {(record: Record<string, Cell>, index: number) => number | undefined} placeOf
 */
function tabulated(records, category, number, length, placeOf) {
	/** @type {Map<string, Series>} */
	const found = new Map();
	const unit = unitOf(number.name);
	records.forEach((record, index) => {
		const place = placeOf(record, index);
		const value = toNumber(record[number.name]);
		if (place === undefined) return;
		const name = cellText(record[category.name]) || '—';
		let series = found.get(name);
		if (!series) found.set(name, (series = { name, unit, values: new Float64Array(length).fill(NaN), cells: new Array(length).fill(null) }));
		add(series, place, value, record[number.name]);
	});
	const all = [...found.values()];
	if (all.length <= MOST_SERIES) return all;
	const size = (/** @type {Series} */ { values }) => values.reduce((sum, value) => sum + (Math.abs(value) || 0), 0);
	all.sort((one, other) => size(other) - size(one));
	const rest = all.splice(MOST_SERIES - 1);
	const other = { name: `${rest.length} others`, unit, values: new Float64Array(length).fill(NaN), cells: new Array(length).fill(null) };
	for (const { values, cells } of rest) values.forEach((value, place) => add(other, place, value, cells[place]));
	return [...all, other];
}

/** @param {Series} series @param {number} place @param {number} value @param {Cell} cell */
function add({ values, cells }, place, value, cell) {
	if (Number.isNaN(value)) return;
	const first = Number.isNaN(values[place]);
	values[place] = first ? value : values[place] + value;
	cells[place] = first ? cell : values[place];
}

/**
 * Parts of a whole have one unit and no negative one among them.
 * @param {Series[]} series
 * @returns {Kind[]}
 */
function stackable(series) {
	const { after, before } = series[0]?.unit ?? NONE;
	const alike = series.every(({ unit }) => unit.after === after && unit.before === before);
	return series.length > 1 && alike && series.every(({ values }) => values.every((value) => !(value < 0))) ? ['stacked'] : [];
}

/** @param {Float64Array} times */
const areDays = (times) => times.every((time) => time % 864e5 === 0);

/**
 * The usual distance of two times, or 0 where they keep none. A longer distance is a gap.
 * @param {Float64Array} times
 */
export function stepOf(times) {
	if (times.length < 3) return 0;
	const distances = Array.from(times.subarray(1), (time, index) => time - times[index]).filter(Boolean);
	const sorted = Float64Array.from(distances).sort();
	const usual = sorted[Math.floor((sorted.length - 1) / 4)];
	const regular = distances.filter((distance) => distance >= usual * 0.9 && distance <= usual * 1.2).length;
	return regular > distances.length * 0.8 ? usual * 1.2 : 0;
}
