/** What charts share: legend, axes, and the room that they leave. */

import { linear, niceDomain, timeTicks } from './ticks.js';
import { svg } from '../dom.js';
import { fitted, px, widthOf } from './text.js';
import { NONE, tickText } from './values.js';

/** @typedef {import('./shape.js').Series} Series */
/** @typedef {import('./shape.js').Shape} Shape */
/** @typedef {{ width: number, height: number }} Size */
/** @typedef {{ left: number, right: number, top: number, bottom: number }} Box */
/** @typedef {{ name: string, text: string, colour: number, y: number | null }} Reading */
/** @typedef {{ x: number, title: string, rows: Reading[], across?: boolean }} Readout */
/**
 * A drawn chart, and how its points are read.
 * @typedef {object} Plot
 * @property {SVGElement} root
 * @property {Box} box
 * @property {number} count
 * @property {(x: number, y: number) => number} find the point nearest to a place
 * @property {(index: number) => Readout} read
 */

const LINE = 18;
const SWATCH = 14;
const MOST_LINES = 2;

/**
 * Names of the series, above the plot; of a single one the name alone. `dashed` names what is drawn dashed.
 * @param {Series[]} series
 * @param {number} width
 * @param {{ note?: string, dashed?: string }} [more]
 * @returns {{ node: SVGElement, height: number }}
 */
export function legend(series, width, { note = '', dashed = '' } = {}) {
	const node = svg('g', { class: 'legend' });
	const single = series.length === 1;
	let [x, line] = [0, 0];
	const named = series.map(({ name, unit }) => name + (unit.after || unit.before ? ` (${(unit.before || unit.after).trim()})` : ''));
	for (const [index, name] of named.entries()) {
		const text = fitted(name, Math.max(40, width - SWATCH - 4));
		const room = widthOf(text) + (single ? 0 : SWATCH) + 14;
		if (x && x + room > width) [x, line] = [0, line + 1];
		const left = series.length - index;
		if (line >= MOST_LINES) {
			node.append(svg('text', { x: px(width), y: MOST_LINES * LINE - 5, class: 'muted', 'text-anchor': 'end' }, `+${left}`));
			break;
		}
		if (!single) node.append(svg('rect', { x: px(x), y: line * LINE + 4, width: 9, height: 9, rx: 2, class: `fill c${index + 1}` }));
		node.append(svg('text', { x: px(x + (single ? 0 : SWATCH)), y: line * LINE + 12, class: single ? 'muted' : 'name' }, text));
		x += room;
	}
	if (dashed) {
		if (x && x + widthOf(dashed) + 26 > width) [x, line] = [0, line + 1];
		const at = line * LINE + 8.5;
		node.append(svg('line', { x1: px(x), x2: px(x + 18), y1: at, y2: at, class: 'sample' }), svg('text', { x: px(x + 23), y: line * LINE + 12, class: 'muted' }, dashed));
	}
	if (note) node.append(svg('text', { x: px(width), y: 12, class: 'muted', 'text-anchor': 'end' }, fitted(note, width / 2)));
	return { node, height: Math.min(line + 1, MOST_LINES + (dashed ? 1 : 0)) * LINE + 4 };
}

/**
 * The scale of the values, with lines across the plot.
 * @param {Series[]} series
 * @param {[number, number]} extent
 * @param {Size} size
 * @param {{ top: number, zero?: boolean, bottom?: number }} options
 */
export function valueAxis(series, extent, size, { top, zero = false, bottom = 22 }) {
	const whole = series.every(({ values }) => values.every((value) => Number.isNaN(value) || Number.isInteger(value)));
	const height = size.height - top - bottom;
	const domain = niceDomain(...extent, Math.max(2, Math.floor(height / 38)), { zero, whole });
	const unit = commonUnit(series);
	const largest = Math.max(Math.abs(domain.low), Math.abs(domain.high));
	const texts = domain.values.map((value) => tickText(value, domain.step, largest, unit));
	const left = Math.min(size.width * 0.4, Math.max(...texts.map((text) => widthOf(text, 11))) + 10);
	/** @type {Box} */
	const box = { left, right: size.width - 8, top: top + 4, bottom: size.height - bottom };
	const y = linear([domain.low, domain.high], [box.bottom, box.top]);
	const node = svg('g', { class: 'axis' });
	for (const [index, value] of domain.values.entries()) {
		const at = px(y(value));
		node.append(svg('line', { x1: px(left), x2: px(box.right), y1: at, y2: at, class: value === 0 ? 'zero' : 'gridline' }));
		node.append(svg('text', { x: px(left - 6), y: at + 4, 'text-anchor': 'end' }, texts[index]));
	}
	return { node, box, y, domain };
}

/** @param {Series[]} series */
function commonUnit(series) {
	const [first] = series;
	const alike = series.every(({ unit }) => unit.after === first.unit.after && unit.before === first.unit.before);
	return alike && first ? first.unit : NONE;
}

/**
 * @param {Float64Array} times
 * @param {Box} box
 * @param {number} [pad] room for half a bar at both ends
 */
export function timeAxis(times, box, pad = 0) {
	const [low, high] = [times[0], times[times.length - 1]];
	const from = box.left + pad + 4;
	const to = box.right - pad - 4;
	const x = low === high ? () => (from + to) / 2 : linear([low, high], [from, to]);
	const node = svg('g', { class: 'axis' });
	let end = -Infinity;
	for (const { value, text, strong } of low === high ? timeTicks(low, low + 1, 1).slice(0, 1) : timeTicks(low, high, (box.right - box.left) / 72)) {
		const at = x(value);
		const half = widthOf(text, 11) / 2;
		const middle = Math.min(Math.max(at, box.left - 10 + half), box.right + 6 - half);
		node.append(svg('line', { x1: px(at), x2: px(at), y1: box.bottom, y2: box.bottom + 4, class: 'tick' }));
		if (middle - half < end + 8) continue;
		node.append(svg('text', { x: px(middle), y: box.bottom + 16, 'text-anchor': 'middle', class: strong ? 'strong' : undefined }, text));
		end = middle + half;
	}
	return { node, x };
}

/**
 * Labels below columns, as many as fit.
 * @param {string[]} labels
 * @param {Box} box
 */
export function bandAxis(labels, box) {
	const band = (box.right - box.left) / Math.max(1, labels.length);
	const x = (/** @type {number} */ index) => box.left + band * (index + 0.5);
	const node = svg('g', { class: 'axis' });
	const widest = Math.max(...labels.map((label) => widthOf(label, 11)));
	const every = Math.max(1, Math.ceil((Math.min(widest, 90) + 8) / band));
	for (let index = 0; index < labels.length; index += every)
		node.append(svg('text', { x: px(x(index)), y: box.bottom + 16, 'text-anchor': 'middle' }, fitted(labels[index], band * every - 4, 11)));
	return { node, x, band };
}

/**
 * @param {Iterable<number>} values
 * @param {[number, number]} [start]
 * @returns {[number, number]}
 */
export function extentOf(values, [low, high] = [Infinity, -Infinity]) {
	for (const value of values) {
		if (value < low) low = value;
		if (value > high) high = value;
	}
	return [low, high];
}
