/** One sentence for those who do not see the chart. */

import { figureOf } from './figure.js';
import { dayText, exactText } from './values.js';

/** @typedef {import('./shape.js').Shape} Shape */
/** @typedef {import('./shape.js').Kind} Kind */
/** @typedef {import('./shape.js').Series} Series */

const NAMES = { line: 'Line chart', bar: 'Bar chart', stacked: 'Stacked bar chart' };
const MOST_TOLD = 4;

/**
 * @param {Shape} shape
 * @param {Kind} kind
 * @param {import('./values.js').Result} result
 * @param {Shape | null} [before]
 */
export function sentenceOf(shape, kind, result, before = null) {
	const rows = result.records.length;
	if (!rows) return 'No rows.';
	const cut = result.truncated ? ' The result is cut off: it has more rows than the limit allows.' : '';
	if (kind === 'table') return `Table of ${count(rows, 'row')} and ${count(result.columns.length, 'column')}: ${result.columns.map(({ name }) => name).join(', ')}.${cut}`;
	if (kind === 'number') return figureSentence(shape, before) + cut;
	const timed = shape.axis === 'time';
	const points = timed ? shape.times.length : shape.labels.length;
	const span = timed ? `${count(points, 'point')} from ${timeOf(shape, 0)} to ${timeOf(shape, points - 1)}` : `${count(points, kind === 'line' ? 'point' : 'bar')}`;
	const of = shape.series.length === 1 ? shape.series[0].name : `${shape.series.length} series`;
	const told = shape.series.slice(0, MOST_TOLD).map((series) => seriesSentence(shape, series));
	const more = shape.series.length > MOST_TOLD ? ` And ${shape.series.length - MOST_TOLD} more series.` : '';
	return `${NAMES[kind]} of ${of} by ${shape.axisName}: ${span}. ${told.join(' ')}${more}${cut}`;
}

/** @param {Shape} shape @param {number} index */
const timeOf = (shape, index) => dayText(shape.times[index], shape.days);

/** @param {Shape} shape @param {Series} series */
function seriesSentence(shape, { name, values, cells, unit }) {
	let [low, high, gaps] = [-1, -1, 0];
	values.forEach((value, index) => {
		if (Number.isNaN(value)) gaps += 1;
		else {
			if (low < 0 || value < values[low]) low = index;
			if (high < 0 || value > values[high]) high = index;
		}
	});
	const missing = gaps ? ` ${count(gaps, 'value')} missing.` : '';
	if (low < 0) return `${name}: no values.`;
	const at = (/** @type {number} */ index) => `${exactText(/** @type {number} */ (cells[index]), unit)} (${shape.axis === 'time' ? timeOf(shape, index) : shape.labels[index]})`;
	const last = values.findLastIndex((value) => !Number.isNaN(value));
	if (low === high) return `${name}: ${at(low)}.${missing}`;
	const ending = shape.axis === 'time' ? `, last ${at(last)}` : '';
	return `${name}: lowest ${at(low)}, highest ${at(high)}${ending}.${missing}`;
}

/** @param {Shape} shape @param {Shape | null} before */
function figureSentence(shape, before) {
	const { series, at, change, against } = figureOf(shape, before);
	if (at < 0) return `${series.name}: no value.`;
	const value = exactText(/** @type {number} */ (series.cells[at]), series.unit);
	if (!change) return `${series.name}: ${value}.`;
	const since = against && ` ${against}`;
	const told = change.direction === 'same' ? 'no change' : `${change.direction} ${change.text.replace('×', 'to times ')}`;
	return `${series.name}: ${value}, ${told}${since}.`;
}

/** @param {number} number @param {string} thing */
const count = (number, thing) => `${exactText(number)} ${thing}${number === 1 ? '' : 's'}`;
