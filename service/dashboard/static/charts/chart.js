/** A chart in its place: draws, follows its size, and reads out points by pointer and keyboard. */

import { drawBars } from './bars.js';
import { drawFigure } from './figure.js';
import { drawLines } from './line.js';
import { sentenceOf } from './sentence.js';
import { shapeOf } from './shape.js';
import { el, svg } from '../dom.js';
import { px } from './text.js';
import { tableOf } from './table.js';

/** @typedef {import('./shape.js').Kind} Kind */
/** @typedef {import('./shape.js').Shape} Shape */
/** @typedef {import('./values.js').Result} Result */
/** @typedef {import('./frame.js').Plot} Plot */
/**
 * @typedef {object} Shown
 * @property {Kind | null} [kind] the chosen one; null follows the shape
 * @property {Result | null} [before] the result of the period before
 * @property {number} [shift] milliseconds from a point of the period before to its point in this one
 */

const KEYS = 'Left and right arrows read the points, T shows the table.';

export class Chart {
	/** @type {Result | null} */
	result = null;
	/** @type {Shape | null} */
	shape = null;
	/** @type {Kind} */
	kind = 'table';
	/** @type {Shape | null} */
	before = null;
	/** @type {Plot | null} */
	plot = null;
	/** @type {import('./line.js').Band | null} */
	band = null;
	/** @type {import('./frame.js').Size | null} the room that was last measured */
	size = null;
	shift = 0;
	index = -1;
	tabled = false;
	/** @type {HTMLElement | undefined} */
	rows;
	/** @type {SVGElement | undefined} */
	mark;

	/**
	 * @param {HTMLElement} host
	 * @param {string} title
	 */
	constructor(host, title) {
		this.host = host;
		this.title = title;
		this.sentence = el('figcaption', { class: 'visually-hidden' });
		this.drawing = /** @type {SVGSVGElement} */ (svg('svg', { 'aria-hidden': 'true', focusable: 'false', class: 'drawing' }));
		this.tip = el('div', { class: 'tip', hidden: true });
		this.spoken = el('p', { class: 'visually-hidden', 'aria-live': 'polite' });
		this.area = el('div', { class: 'plot', role: 'application', 'aria-roledescription': 'chart', tabindex: 0, hidden: true }, this.drawing, this.tip);
		this.figure = el('figure', { class: 'chart' }, this.sentence, this.area, this.spoken);
		host.append(this.figure);
		this.area.addEventListener('pointermove', (event) => this.point(event));
		this.area.addEventListener('pointerdown', (event) => this.point(event));
		this.area.addEventListener('pointerleave', () => this.leave());
		this.area.addEventListener('blur', () => this.leave());
		this.figure.addEventListener('keydown', (event) => this.press(event));
		this.sizes = new ResizeObserver(() => {
			const drawn = this.size;
			const { width, height } = this.measure();
			if (width !== drawn?.width || height !== drawn.height) this.draw();
		});
		this.sizes.observe(host);
	}

	/**
	 * @param {Result} result
	 * @param {Shown} [shown]
	 */
	show(result, { kind = null, before = null, shift = 0 } = {}) {
		this.result = result;
		this.shape = shapeOf(result);
		this.before = before && shapeOf(before);
		this.shift = shift;
		this.kind = kind && this.shape.kinds.includes(kind) ? kind : this.shape.kind;
		const old = this.rows;
		this.rows = undefined;
		this.draw();
		if (old && this.rows) keepPlace(old, this.rows);
		old?.remove();
	}

	/** Who draws many charts at once measures all of them before: each measuring after a change is a layout. */
	measure() {
		this.size = { width: this.host.clientWidth, height: this.host.clientHeight };
		return this.size;
	}

	/** Draw again where size or theme changed. */
	draw() {
		const { result, shape } = this;
		if (!result || !shape) return;
		const asTable = this.tabled || this.kind === 'table';
		this.area.hidden = asTable;
		if (asTable) this.rows ??= this.figure.appendChild(tableOf(result, this.title));
		if (this.rows) this.rows.hidden = !asTable;
		const sentence = sentenceOf(shape, this.kind, result, this.before);
		if (this.sentence.textContent !== sentence) this.sentence.textContent = sentence;
		if (asTable) return;
		const { width, height } = fits(this.size) ? this.size : this.measure();
		if (!fits(this.size)) return;
		this.area.setAttribute('aria-label', `${this.title}. ${sentence} ${KEYS}`);
		this.plot = this.made({ width, height });
		for (const [name, value] of Object.entries({ width, height, viewBox: `0 0 ${width} ${height}` })) this.drawing.setAttribute(name, `${value}`);
		this.drawing.replaceChildren(this.plot.root);
		if (this.index >= 0) this.read(Math.min(this.index, this.plot.count - 1));
	}

	/** @param {import('./frame.js').Size} size @returns {Plot} */
	made(size) {
		const shape = /** @type {Shape} */ (this.shape);
		if (this.kind === 'line') return drawLines(shape, size, this.before && { shape: this.before, shift: this.shift }, this.band);
		if (this.kind === 'number') return drawFigure(shape, size, this.before);
		return drawBars(shape, size, this.kind === 'stacked');
	}

	/** Show the table in the chart's place, or the chart again. @param {boolean} [wanted] */
	toggleTable(wanted = !this.tabled) {
		const focused = this.figure.contains(document.activeElement);
		this.tabled = wanted;
		this.leave();
		this.draw();
		if (focused) (this.tabled ? this.rows : this.area)?.focus();
		this.host.dispatchEvent(new CustomEvent('tabled', { bubbles: true, detail: wanted }));
	}

	/** @param {PointerEvent} event */
	point(event) {
		if (!this.plot || this.kind === 'number') return;
		const { left, top } = this.area.getBoundingClientRect();
		this.read(this.plot.find(event.clientX - left, event.clientY - top));
	}

	/** @param {KeyboardEvent} event */
	press(event) {
		if (event.ctrlKey || event.metaKey || event.altKey) return;
		if (event.key.toLowerCase() === 't' && this.kind !== 'table') this.toggleTable();
		else if (event.key === 'Escape' && this.index >= 0) this.leave();
		else if (event.target === this.area && this.plot && this.plot.count) {
			const next = moved(event.key, this.index, this.plot.count);
			if (next < 0) return;
			this.read(next);
			const { title, rows } = this.plot.read(next);
			this.spoken.textContent = `${title}: ${rows.map(({ name, text }) => `${name} ${text}`).join(', ')}`;
		} else return;
		event.preventDefault();
		event.stopPropagation();
	}

	/** @param {number} index */
	read(index) {
		const { plot } = this;
		if (!plot || index < 0) return;
		this.index = index;
		const { x, title, rows, across } = plot.read(index);
		const { box } = plot;
		this.mark?.remove();
		const mark = svg('g', { 'data-readout': '', class: 'readout' });
		if (across) mark.append(svg('line', { x1: px(box.left), x2: px(box.right), y1: px(x), y2: px(x) }));
		else if (x >= 0) mark.append(svg('line', { x1: px(x), x2: px(x), y1: px(box.top), y2: px(box.bottom) }));
		for (const { y, colour } of rows) if (y !== null) mark.append(svg('circle', { cx: px(x), cy: px(y), r: 4, class: `c${colour}` }));
		this.drawing.append(mark);
		this.mark = mark;
		this.tip.replaceChildren(el('strong', {}, title), ...rows.map(rowOf));
		this.tip.hidden = false;
		this.placeTip(across ? (box.left + box.right) / 2 : x, across ? x : box.top);
	}

	/** Beside the point, inside the chart. @param {number} x @param {number} y */
	placeTip(x, y) {
		const { clientWidth: width, clientHeight: height } = this.area;
		const [own, tall] = [this.tip.offsetWidth, this.tip.offsetHeight];
		const left = x + 12 + own <= width ? x + 12 : x - 12 - own;
		this.tip.style.left = `${px(Math.max(0, Math.min(left, width - own)))}px`;
		this.tip.style.top = `${px(Math.max(0, Math.min(y, height - tall)))}px`;
	}

	leave() {
		this.index = -1;
		this.mark?.remove();
		this.tip.hidden = true;
	}

	destroy() {
		this.sizes.disconnect();
		this.figure.remove();
	}
}

/**
 * A table that came in another's place is read from where the other was.
 * @param {HTMLElement} old
 * @param {HTMLElement} rows
 */
function keepPlace(old, rows) {
	const { scrollTop, scrollLeft } = old;
	const length = old.querySelectorAll('tbody tr').length;
	const more = rows.querySelector('button');
	while (more && !more.hidden && rows.querySelectorAll('tbody tr').length < length) more.click();
	rows.scrollTo(scrollLeft, scrollTop);
	if (document.activeElement === old) rows.focus({ preventScroll: true });
}

/**
 * Whether there is room for a drawing.
 * @param {import('./frame.js').Size | null} size
 * @returns {size is import('./frame.js').Size}
 */
function fits(size) {
	return !!size && size.width >= 40 && size.height >= 40;
}

/** @param {import('./frame.js').Reading} row */
function rowOf({ name, text, colour }) {
	return el('div', {}, el('i', { class: colour ? `swatch c${colour}` : 'swatch' }), el('span', {}, name), el('b', {}, text));
}

/**
 * The point that a key goes to, or -1.
 * @param {string} key
 * @param {number} index
 * @param {number} count
 */
function moved(key, index, count) {
	const page = Math.max(1, Math.round(count / 10));
	const steps = /** @type {Record<string, number>} */ ({ ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1, PageDown: page, PageUp: -page });
	if (key === 'Home') return 0;
	if (key === 'End') return count - 1;
	if (!(key in steps)) return -1;
	if (index < 0) return steps[key] > 0 ? 0 : count - 1;
	return Math.max(0, Math.min(count - 1, index + steps[key]));
}
