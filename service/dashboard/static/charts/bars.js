/** Bars: columns over time or an order, rows for names, side by side or stacked. Their base is always zero. */

import { bandAxis, extentOf, legend, timeAxis, valueAxis } from './frame.js';
import { svg } from '../dom.js';
import { fitted, px, widthOf } from './text.js';
import { thinned } from './thin.js';
import { linear, nearest, niceDomain } from './ticks.js';
import { NONE, dayText, exactText, shortText, tickText } from './values.js';

/** @typedef {import('./shape.js').Shape} Shape */
/** @typedef {import('./shape.js').Series} Series */
/** @typedef {import('./frame.js').Plot} Plot */
/** @typedef {import('./frame.js').Size} Size */
/** @typedef {{ x: number, y: number, width: number, height: number }} Rect */

const WIDEST = 56;
const ROW = 18; // the least height of a row with its name

/**
 * @param {Shape} shape
 * @param {Size} size
 * @param {boolean} stacked
 * @returns {Plot}
 */
export function drawBars(shape, size, stacked) {
	const upright = shape.axis === 'time' || shape.ordered;
	return upright ? drawColumns(shape, size, stacked) : drawRows(shape, size, stacked);
}

/** @param {Series[]} series @param {number} length */
function totalsOf(series, length) {
	const totals = new Float64Array(length);
	for (const { values } of series) for (let index = 0; index < length; index++) totals[index] += values[index] || 0;
	return totals;
}

/** @param {Series[]} series @param {Float64Array} totals @param {boolean} stacked @returns {[number, number]} */
function extentOfBars(series, totals, stacked) {
	if (stacked) return extentOf(totals, [0, 0]);
	return series.reduce((found, { values }) => extentOf(values, found), /** @type {[number, number]} */ ([0, 0]));
}

/** @param {Shape} shape @param {Size} size @param {boolean} stacked @returns {Plot} */
function drawColumns(shape, size, stacked) {
	const { series, times, labels } = shape;
	const timed = shape.axis === 'time';
	const count = timed ? times.length : labels.length;
	const totals = totalsOf(series, count);
	const head = legend(series, size.width);
	const { node, box, y } = valueAxis(series, extentOfBars(series, totals, stacked), size, { top: head.height, zero: true });
	const slot = timed ? slotOf(times, box.right - box.left) : (box.right - box.left) / Math.max(1, count);
	const axis = timed ? timeAxis(times, box, slot / 2) : bandAxis(labels, box);
	const xs = Float64Array.from({ length: count }, (_, index) => axis.x(timed ? times[index] : index));
	const width = Math.max(1, Math.min(WIDEST, slot * 0.8));
	const paths = series.map(() => '');
	const draw = stacked ? stackedColumns : groupedColumns;
	draw({ series, xs, y, width, totals }, (place, rect) => (paths[place] += pathOf(rect)));
	const root = svg('g', {}, head.node, node, ...barsOf(paths), axis.node, baseline(box, y(0)));
	return { root, box, count, find: (x) => nearest(xs, x), read: (index) => ({ x: xs[index], ...reading(shape, index, totals, stacked, y) }) };
}

/**
 * @typedef {object} Columns
 * @property {Series[]} series
 * @property {Float64Array} xs
 * @property {(value: number) => number} y
 * @property {number} width
 * @property {Float64Array} totals
 */

/** @param {Columns} columns @param {(place: number, rect: Rect) => void} draw */
function stackedColumns({ series, xs, y, width, totals }, draw) {
	for (const index of thinned(xs, totals)) {
		let sum = 0;
		for (const [place, { values }] of series.entries()) {
			if (!values[index]) continue;
			const [low, high] = [y(sum), y(sum + values[index])];
			sum += values[index];
			draw(place, { x: xs[index] - width / 2, y: high, width, height: low - high - (low - high > 3 ? 1 : 0) });
		}
	}
}

/** @param {Columns} columns @param {(place: number, rect: Rect) => void} draw */
function groupedColumns({ series, xs, y, width }, draw) {
	const own = width / series.length;
	for (const [place, { values }] of series.entries())
		for (const index of thinned(xs, values)) {
			if (Number.isNaN(values[index])) continue;
			const [from, to] = [y(0), y(values[index])];
			draw(place, { x: xs[index] - width / 2 + own * place, y: Math.min(from, to), width: Math.max(0.8, own - (own > 4 ? 1 : 0)), height: Math.abs(from - to) });
		}
}

/** Pixels for each column. @param {Float64Array} times @param {number} width */
function slotOf(times, width) {
	let least = Infinity;
	for (let index = 1; index < times.length; index++) if (times[index] > times[index - 1]) least = Math.min(least, times[index] - times[index - 1]);
	const span = times[times.length - 1] - times[0];
	return span ? width / (span / least + 1) : width;
}

/** @param {Rect} rect */
const pathOf = ({ x, y, width, height }) => `M${px(x)} ${px(y)}h${px(width)}v${Math.max(0.5, px(height))}h${-px(width)}z`;

/** One path for each colour: thousands of bars stay one element. @param {string[]} paths */
const barsOf = (paths) => paths.map((path, index) => svg('path', { d: path, class: `fill bars c${index + 1}` }));

/** @param {import('./frame.js').Box} box @param {number} at */
const baseline = (box, at) => svg('line', { x1: px(box.left), x2: px(box.right), y1: px(at), y2: px(at), class: 'zero' });

/**
 * @param {Shape} shape
 * @param {number} index
 * @param {Float64Array} totals
 * @param {boolean} stacked
 * @param {((value: number) => number) | null} y
 */
function reading(shape, index, totals, stacked, y) {
	const rows = shape.series.map(({ name, unit, values, cells }, place) => {
		const known = !Number.isNaN(values[index]);
		return { name, colour: place + 1, y: known && y && !stacked ? y(values[index]) : null, text: known ? exactText(/** @type {number} */ (cells[index]), unit) : 'no value' };
	});
	if (stacked) rows.push({ name: 'Total', colour: 0, y: y ? y(totals[index]) : null, text: exactText(Number(totals[index].toPrecision(15)), shape.series[0].unit) });
	return { title: shape.axis === 'time' ? dayText(shape.times[index], shape.days) : shape.labels[index], rows };
}

/** Rows, as many as the height holds. @param {Shape} shape @param {Size} size @param {boolean} stacked @returns {Plot} */
function drawRows(shape, size, stacked) {
	const { series, labels } = shape;
	const totals = totalsOf(series, labels.length);
	const room = Math.max(1, Math.floor((size.height - 48) / (ROW * (stacked ? 1 : Math.max(1, series.length * 0.6)))));
	const count = Math.min(labels.length, room);
	const note = count < labels.length ? `first ${count} of ${labels.length}` : '';
	const head = legend(series, size.width, { note });
	const domain = niceDomain(...extentOfBars(series, totals, stacked), Math.max(2, Math.floor(size.width / 110)), { zero: true });
	const names = Math.min(size.width * 0.38, Math.max(...labels.slice(0, count).map((label) => widthOf(label))) + 10);
	const tail = single(series) ? Math.max(...[...series[0].values].map((value) => widthOf(Number.isNaN(value) ? '' : shortText(value, series[0].unit)))) + 8 : 10;
	const box = { left: names, right: size.width - tail, top: head.height + 2, bottom: size.height - 22 };
	const x = linear([domain.low, domain.high], [box.left, box.right]);
	const slot = Math.min(40, (box.bottom - box.top) / count);
	const middle = (/** @type {number} */ index) => box.top + slot * (index + 0.5);
	const thick = Math.max(1, Math.min(26, slot * 0.72));
	const paths = series.map(() => '');
	const texts = svg('g', { class: 'labels' });
	const draw = { series, x, middle, thick };
	for (let index = 0; index < count; index++) {
		texts.append(svg('text', { x: px(names - 8), y: px(middle(index)) + 4, 'text-anchor': 'end' }, fitted(labels[index], names - 10), svg('title', {}, labels[index])));
		(stacked ? stackedRow : groupedRow)(draw, index, (place, rect) => (paths[place] += pathOf(rect)));
		if (single(series)) texts.append(amount(series[0], index, x, middle(index)));
	}
	const end = box.top + slot * count;
	const root = svg('g', {}, head.node, gridOf(series, domain, x, { ...box, bottom: end }), ...barsOf(paths), texts);
	root.append(svg('line', { x1: px(x(0)), x2: px(x(0)), y1: px(box.top), y2: px(end), class: 'zero' }));
	const find = (/** @type {number} */ _, /** @type {number} */ y) => Math.max(0, Math.min(count - 1, Math.floor((y - box.top) / slot)));
	const read = (/** @type {number} */ index) => {
		const shown = Math.min(index, count - 1);
		return { x: middle(shown), across: true, ...reading(shape, index, totals, stacked, null) };
	};
	return { root, box: { ...box, bottom: end }, count: labels.length, find, read };
}

/** @param {Series[]} series */
const single = (series) => series.length === 1;

/** @typedef {{ series: Series[], x: (value: number) => number, middle: (index: number) => number, thick: number }} Rows */

/** @param {Rows} rows @param {number} index @param {(place: number, rect: Rect) => void} draw */
function stackedRow({ series, x, middle, thick }, index, draw) {
	let sum = 0;
	for (const [place, { values }] of series.entries()) {
		if (!values[index]) continue;
		const [from, to] = [x(sum), x(sum + values[index])];
		sum += values[index];
		draw(place, { x: from, y: middle(index) - thick / 2, width: Math.max(0.5, to - from - (to - from > 3 ? 1 : 0)), height: thick });
	}
}

/** @param {Rows} rows @param {number} index @param {(place: number, rect: Rect) => void} draw */
function groupedRow({ series, x, middle, thick }, index, draw) {
	const own = thick / series.length;
	for (const [place, { values }] of series.entries()) {
		if (Number.isNaN(values[index])) continue;
		const [from, to] = [x(0), x(values[index])];
		draw(place, { x: Math.min(from, to), y: middle(index) - thick / 2 + own * place, width: Math.abs(to - from), height: Math.max(1, own - (own > 4 ? 1 : 0)) });
	}
}

/** The number at the end of its bar. @param {Series} series @param {number} index @param {(value: number) => number} x @param {number} y */
function amount({ values, unit }, index, x, y) {
	const value = values[index];
	if (Number.isNaN(value)) return svg('text', { x: px(x(0)) + 5, y: px(y) + 4, class: 'muted' }, '—');
	return svg('text', { x: px(Math.max(x(value), x(0))) + 5, y: px(y) + 4, class: 'amount' }, shortText(value, unit));
}

/** @param {Series[]} series @param {ReturnType<typeof niceDomain>} domain @param {(value: number) => number} x @param {import('./frame.js').Box} box */
function gridOf(series, domain, x, box) {
	const node = svg('g', { class: 'axis' });
	const largest = Math.max(Math.abs(domain.low), Math.abs(domain.high));
	const unit = series.every((each) => each.unit.after === series[0].unit.after && each.unit.before === series[0].unit.before) ? series[0].unit : NONE;
	for (const value of domain.values) {
		const at = px(x(value));
		node.append(svg('line', { x1: at, x2: at, y1: px(box.top), y2: px(box.bottom), class: 'gridline' }));
		node.append(svg('text', { x: at, y: px(box.bottom) + 15, 'text-anchor': 'middle' }, tickText(value, domain.step, largest, unit)));
	}
	return node;
}
