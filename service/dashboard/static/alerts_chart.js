import { el, svg } from './dom.js';

/** @typedef {{ point: string, value: number | null, expected: number | null, low: number | null, high: number | null, unusual: boolean }} BandPoint */

const WIDTH = 760;
const HEIGHT = 220;
const MARGIN = { left: 46, right: 8, top: 8, bottom: 20 };
const MOST = 180; // the last points that are drawn

/**
 * The last points of a series: the band of what is usual, the values, and the unusual ones as dots.
 *
 * @param {string} title
 * @param {BandPoint[]} all
 * @returns {HTMLElement}
 */
export function bandChart(title, all) {
	const points = all.slice(-MOST);
	const numbers = points.flatMap(({ value, low, high }) => [value, low, high].filter((each) => each !== null)).map(Number);
	const bottom = Math.min(0, ...numbers);
	const top = Math.max(bottom + 1, ...numbers);
	const x = (/** @type {number} */ index) => MARGIN.left + (index * (WIDTH - MARGIN.left - MARGIN.right)) / Math.max(1, points.length - 1);
	const y = (/** @type {number} */ value) => MARGIN.top + ((top - value) * (HEIGHT - MARGIN.top - MARGIN.bottom)) / (top - bottom);
	const at = (/** @type {number} */ index, /** @type {number} */ value) => `${x(index).toFixed(1)},${y(value).toFixed(1)}`;
	const unusual = points.filter((each) => each.unusual && each.value !== null);
	const drawn = svg(
		'svg',
		{ class: 'alert-chart', viewBox: `0 0 ${WIDTH} ${HEIGHT}`, role: 'img', 'aria-label': sentenceOf(title, points, unusual) },
		...band(points, bottom, top, at).map((d) => svg('polygon', { class: 'band', points: d })),
		svg('line', { class: 'axis', x1: MARGIN.left, x2: WIDTH - MARGIN.right, y1: y(bottom), y2: y(bottom) }),
		...lines(points, at).map((d) => svg('polyline', { class: 'line', points: d })),
		...points.map((each, index) =>
			each.unusual && each.value !== null
				? svg('circle', { class: 'unusual', cx: x(index), cy: y(each.value), r: 4 }, svg('title', {}, `${each.point}: ${number(each.value)}`))
				: null,
		),
		svg('text', { x: MARGIN.left - 6, y: y(top) + 10, class: 'last' }, number(top)),
		svg('text', { x: MARGIN.left - 6, y: y(bottom), class: 'last' }, number(bottom)),
		svg('text', { x: MARGIN.left, y: HEIGHT - 4 }, points[0]?.point ?? ''),
		svg('text', { x: WIDTH - MARGIN.right, y: HEIGHT - 4, class: 'last' }, points.at(-1)?.point ?? ''),
	);
	return el('figure', {}, el('figcaption', { dir: 'auto' }, title), drawn);
}

/** Runs of points with a band, each as the corners of a polygon. An open side reaches the edge.
 *
 * @param {BandPoint[]} points
 * @param {number} bottom
 * @param {number} top
 * @param {(index: number, value: number) => string} at
 */
function band(points, bottom, top, at) {
	const has = (/** @type {BandPoint} */ { low, high }) => low !== null || high !== null;
	return runs(points, has).map((run) => [
		...run.map((index) => at(index, points[index].high ?? top)),
		...run.reverse().map((index) => at(index, points[index].low ?? bottom)),
	].join(' '));
}

/** @param {BandPoint[]} points @param {(index: number, value: number) => string} at */
function lines(points, at) {
	return runs(points, ({ value }) => value !== null).map((run) => run.map((index) => at(index, Number(points[index].value))).join(' '));
}

/** @param {BandPoint[]} points @param {(point: BandPoint) => boolean} has */
function runs(points, has) {
	/** @type {number[][]} */
	const found = [];
	points.forEach((point, index) => {
		if (!has(point)) return;
		if (index && has(points[index - 1])) found.at(-1)?.push(index);
		else found.push([index]);
	});
	return found;
}

/** @param {string} title @param {BandPoint[]} points @param {BandPoint[]} unusual */
function sentenceOf(title, points, unusual) {
	const span = points.length ? `${points.length} points from ${points[0].point} to ${points.at(-1)?.point}` : 'no points';
	const last = unusual.slice(-5).map((each) => `${each.point} (${number(Number(each.value))})`);
	return `${title}: ${span}. ${last.length ? `Unusual: ${last.join(', ')}.` : 'None is unusual.'}`;
}

/** @param {number} value */
export function number(value) {
	return new Intl.NumberFormat(undefined, { maximumSignificantDigits: 6 }).format(value);
}
