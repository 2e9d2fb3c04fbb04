/** A big number, its change, and a small line of where it came from. */

import { sparkline } from './line.js';
import { svg } from '../dom.js';
import { fitted, px, widthOf } from './text.js';
import { dayText, exactText, shortText } from './values.js';

/** @typedef {import('./shape.js').Shape} Shape */
/** @typedef {import('./frame.js').Plot} Plot */
/** @typedef {import('./frame.js').Size} Size */

/**
 * The value and what it is compared with: the period before, else the point before.
 * @param {Shape} shape
 * @param {Shape | null} [before]
 */
export function figureOf(shape, before = null) {
	const [series] = shape.series;
	const at = lastOf(series.values);
	const value = at < 0 ? NaN : series.values[at];
	const old = before?.series.find(({ name }) => name === series.name);
	const oldAt = old ? lastOf(old.values) : lastOf(series.values.subarray(0, Math.max(0, at)));
	const reference = oldAt < 0 ? NaN : (old ?? series).values[oldAt];
	const against = old ? 'against the period before' : shape.axis === 'time' && oldAt >= 0 ? `since ${dayText(shape.times[oldAt], shape.days)}` : '';
	return { series, at, value, reference, against, change: changeOf(value, reference) };
}

/** @param {Float64Array} values */
const lastOf = (values) => values.findLastIndex((value) => !Number.isNaN(value));

/**
 * How much a value changed, in words; empty where that cannot be said.
 * @param {number} value
 * @param {number} reference
 * @returns {{ text: string, direction: 'up' | 'down' | 'same' } | null}
 */
export function changeOf(value, reference) {
	if (Number.isNaN(value) || Number.isNaN(reference)) return null;
	if (value === reference) return { text: 'no change', direction: 'same' };
	const direction = value > reference ? 'up' : 'down';
	if (!reference) return { text: `from 0`, direction };
	const share = (Math.abs(value - reference) / Math.abs(reference)) * 100;
	const text = share >= 1000 ? `×${shortText(value / reference)}` : `${shortText(Number(share.toPrecision(share >= 10 ? 3 : 2)))}%`;
	return { text, direction };
}

const SMALLEST = 0.5; // of the size that a short number has: then it is shortened
const BOLD = 1.18; // how much wider it is
const ARROWS = { up: '▲', down: '▼', same: '=' };

/**
 * @param {Shape} shape
 * @param {Size} size
 * @param {Shape | null} [before]
 * @returns {Plot}
 */
export function drawFigure(shape, size, before = null) {
	const { series, at, value, change, against } = figureOf(shape, before);
	const { width, height } = size;
	const timed = shape.axis === 'time' && shape.times.length > 1;
	const exact = at < 0 ? '—' : exactText(/** @type {number} */ (series.cells[at]), series.unit);
	const wanted = Math.max(22, Math.min(64, height * (timed ? 0.26 : 0.34)));
	const text = at < 0 || widthOf(exact, wanted * SMALLEST * BOLD) <= width - 8 ? exact : shortText(value, series.unit);
	const big = Math.max(16, Math.min(wanted, (wanted * (width - 8)) / Math.max(1, widthOf(text, wanted * BOLD))));
	const name = 12;
	const others = shape.axis === 'none' ? shape.series.slice(1) : [];
	const lines = (change ? 22 : 0) + others.length * 18;
	const used = name + big + lines;
	const top = timed ? 14 : Math.max(14, (height - used) / 2);
	const base = top + 8 + big * 0.8;
	const root = svg('g', { class: 'figure' });
	root.append(svg('text', { x: 2, y: px(top), class: 'muted' }, fitted(series.name, width - 4)));
	root.append(svg('text', { x: 0, y: px(base), class: 'headline', 'font-size': px(big) }, text));
	let line = base + 26;
	if (change) {
		root.append(svg('text', { x: 2, y: px(line), class: `change ${change.direction}` }, fitted(`${ARROWS[change.direction]} ${change.text}${against ? ` ${against}` : ''}`, width - 4)));
		line += 20;
	}
	for (const other of others) {
		root.append(svg('text', { x: 2, y: px(line), class: 'name' }, fitted(`${other.name}: ${Number.isNaN(other.values[0]) ? '—' : exactText(/** @type {number} */ (other.cells[0]), other.unit)}`, width - 4)));
		line += 18;
	}
	const room = height - line;
	if (timed && room > 24) {
		const small = sparkline(shape.times, series.values, { width, height: Math.min(room, 90) });
		small.setAttribute('transform', `translate(0 ${px(height - Math.min(room, 90))})`);
		root.append(small);
	}
	const title = shape.axis === 'time' && at >= 0 ? dayText(shape.times[at], shape.days) : series.name;
	const rows = [{ name: series.name, colour: 0, y: null, text: exact }];
	const box = { left: 0, right: width, top: 0, bottom: height };
	return { root, box, count: 1, find: () => 0, read: () => ({ x: -1, title, rows }) };
}
