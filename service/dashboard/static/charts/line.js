/** Lines over time. */

import { extentOf, legend, timeAxis, valueAxis } from './frame.js';
import { stepOf } from './shape.js';
import { svg } from '../dom.js';
import { px } from './text.js';
import { thinned } from './thin.js';
import { nearest } from './ticks.js';
import { cellText, dayText, exactText, wordsOf } from './values.js';

/** @typedef {import('./shape.js').Shape} Shape */
/** @typedef {import('./frame.js').Plot} Plot */
/** @typedef {import('./frame.js').Size} Size */
/** @typedef {{ shape: Shape, shift: number }} Before */
/** @typedef {{ column: string, points: Map<number, { low: number | null, high: number | null, unusual: boolean }> }} Band */

const GAP = 1.5; // pixels: a shorter gap cannot be seen

/**
 * @param {Shape} shape
 * @param {Size} size
 * @param {Before | null} [before] the period before, to be drawn `shift` milliseconds later
 * @param {Band | null} [band] what is usual of one column, by time
 * @returns {Plot}
 */
export function drawLines(shape, size, before = null, band = null) {
	const { series, times } = shape;
	const earlier = before ? comparable(shape, before) : null;
	const head = legend(series, size.width, { dashed: earlier ? 'period before' : '' });
	const usual = band ? usualOf(shape, band) : null;
	const extent = [...series, ...(earlier?.series ?? []), ...(usual ? [{ values: usual.low }, { values: usual.high }] : [])].reduce((found, { values }) => extentOf(values, found), /** @type {[number, number]} */ ([Infinity, -Infinity]));
	const { node, box, y } = valueAxis(series, extent, size, { top: head.height });
	const axis = timeAxis(spanOf(times, earlier), box);
	const root = svg('g', {}, head.node, node, axis.node);
	const xs = times.map(axis.x);
	if (usual) root.append(...bandOf(xs, usual, y));
	if (earlier) {
		const places = earlier.times.map(axis.x);
		earlier.series.forEach(({ values }, index) => root.append(...lineOf(earlier.times, places, values.map(y), `before c${index + 1}`)));
	}
	series.forEach(({ values }, index) => root.append(...lineOf(times, xs, values.map(y), `c${index + 1}`)));
	if (usual) root.append(...unusualOf(xs, usual, y));
	const find = (/** @type {number} */ x) => nearest(xs, x);
	return { root, box, count: times.length, find, read: (index) => reading(shape, earlier, index, xs[index], y) };
}

/**
 * The band at the times of the lines: NaN where there is none.
 * @param {Shape} shape @param {Band} band
 */
function usualOf({ times, series }, { column, points }) {
	const own = series.find(({ name }) => name === wordsOf(column));
	const at = (/** @type {'low' | 'high'} */ edge) => times.map((time) => points.get(time)?.[edge] ?? NaN);
	return own ? { low: at('low'), high: at('high'), values: own.values, unusual: [...times].map((time) => !!points.get(time)?.unusual) } : null;
}

/** @typedef {NonNullable<ReturnType<typeof usualOf>>} Usual */

/** @param {Float64Array} xs @param {Usual} usual @param {(value: number) => number} y */
function bandOf(xs, { low, high }, y) {
	/** @type {number[]} */
	const known = [...xs.keys()].filter((index) => !Number.isNaN(low[index]) && !Number.isNaN(high[index]));
	if (known.length < 2) return [];
	const corners = [...known.map((index) => [index, high[index]]), ...known.reverse().map((index) => [index, low[index]])];
	return [svg('polygon', { class: 'usual', points: corners.map(([index, value]) => `${px(xs[index])},${px(y(value))}`).join(' ') })];
}

/** @param {Float64Array} xs @param {Usual} usual @param {(value: number) => number} y */
function unusualOf(xs, { values, unusual }, y) {
	const told = [...xs.keys()].filter((index) => unusual[index] && !Number.isNaN(values[index]));
	return told.map((index) => svg('circle', { class: 'unusual', cx: px(xs[index]), cy: px(y(values[index])), r: 4 }));
}

/** @param {Shape} shape @param {Before} before */
function comparable(shape, { shape: other, shift }) {
	const series = shape.series.map(({ name }) => other.series.find((each) => each.name === name));
	if (other.axis !== 'time' || series.some((each) => !each)) return null;
	return { times: other.times.map((time) => time + shift), series: /** @type {import('./shape.js').Series[]} */ (series) };
}

/** @param {Float64Array} times @param {{ times: Float64Array } | null} earlier */
function spanOf(times, earlier) {
	if (!earlier?.times.length) return times;
	return Float64Array.of(Math.min(times[0], earlier.times[0]), Math.max(times[times.length - 1], earlier.times[earlier.times.length - 1]));
}

/**
 * @param {Shape} shape
 * @param {{ times: Float64Array, series: import('./shape.js').Series[] } | null} earlier
 * @param {number} index
 * @param {number} x
 * @param {(value: number) => number} y
 */
function reading(shape, earlier, index, x, y) {
	const rows = shape.series.map(({ name, unit, values, cells }, place) => {
		const cell = cells[index];
		const known = !Number.isNaN(values[index]);
		return { name, colour: place + 1, y: known ? y(values[index]) : null, text: known ? exactText(/** @type {number} */ (cell), unit) : 'no value' };
	});
	const at = earlier?.times.indexOf(shape.times[index]) ?? -1;
	if (earlier && at >= 0 && shape.series.length === 1) {
		const [{ unit, cells }] = earlier.series;
		rows.push({ name: 'Period before', colour: 0, y: null, text: cells[at] === null ? 'no value' : exactText(/** @type {number} */ (cells[at]), unit) });
	}
	return { x, title: dayText(shape.times[index], shape.days) || cellText(shape.labels[index]), rows };
}

/**
 * A path that breaks at gaps, and dots for points that no line reaches.
 * @param {Float64Array} times
 * @param {Float64Array} xs
 * @param {Float64Array} ys
 * @param {string} name class of its colour
 */
function lineOf(times, xs, ys, name) {
	const step = stepOf(times);
	const kept = thinned(xs, ys);
	const gaps = step ? gapsOf(times, xs, step) : null;
	let path = '';
	let run = 0;
	let dots = '';
	let last = -1;
	for (const index of kept) {
		if (Number.isNaN(ys[index])) {
			if (run === 1) dots += dot(xs[last], ys[last]);
			run = 0;
			continue;
		}
		if (run && gaps && gaps[index] !== gaps[last]) {
			if (run === 1) dots += dot(xs[last], ys[last]);
			run = 0;
		}
		path += `${run ? 'L' : 'M'}${px(xs[index])} ${px(ys[index])}`;
		run += 1;
		last = index;
	}
	if (run === 1) dots += dot(xs[last], ys[last]);
	const few = kept.length < 40 && xs.length > 1 && xs[xs.length - 1] - xs[0] > kept.length * 12;
	if (few) dots = kept.filter((index) => !Number.isNaN(ys[index])).map((index) => dot(xs[index], ys[index])).join('');
	const nodes = [svg('path', { d: path, class: `line ${name}` })];
	if (dots) nodes.push(svg('path', { d: dots, class: `dots ${name}` }));
	return nodes;
}

/** How many gaps lie before each point. @param {Float64Array} times @param {Float64Array} xs @param {number} step */
function gapsOf(times, xs, step) {
	const gaps = new Uint32Array(times.length);
	for (let index = 1; index < times.length; index++)
		gaps[index] = gaps[index - 1] + (times[index] - times[index - 1] > step && xs[index] - xs[index - 1] > GAP ? 1 : 0);
	return gaps;
}

/** A line of no length: its round ends are a dot. @param {number} x @param {number} y */
const dot = (x, y) => `M${px(x)} ${px(y)}h0`;

/**
 * A small line without axes, for beside a big number.
 * @param {Float64Array} times
 * @param {Float64Array} values
 * @param {Size} size
 */
export function sparkline(times, values, { width, height }) {
	const [low, high] = extentOf(values);
	const xs = times.map((time) => 3 + ((time - times[0]) / (times[times.length - 1] - times[0] || 1)) * (width - 6));
	const ys = values.map((value) => height - 3 - ((value - low) / (high - low || 1)) * (height - 6));
	const last = values.findLastIndex((value) => !Number.isNaN(value));
	const node = svg('g', { class: 'spark' }, ...lineOf(times, xs, ys, 'c1').slice(0, 1));
	if (last >= 0) node.append(svg('path', { d: dot(xs[last], ys[last]), class: 'dots c1' }));
	return node;
}
