/** The rows as a real table, a few hundred at a time. */

import { el } from '../dom.js';
import { cellText, isNumeric, isTemporal, wordsOf } from './values.js';

/** @typedef {import('./values.js').Result} Result */

const PAGE = 200;

/**
 * @param {Result} result
 * @param {string} title
 * @returns {HTMLElement}
 */
export function tableOf(result, title) {
	const { columns, records } = result;
	const body = el('tbody');
	const head = el('tr', {}, ...columns.map((column) => el('th', { scope: 'col', class: isNumeric(column) ? 'amount' : undefined }, wordsOf(column.name))));
	const table = el('table', {}, el('caption', { class: 'visually-hidden' }, title), el('thead', {}, head), body);
	const more = el('button', { type: 'button', class: 'more', onclick: () => grow() });
	const region = el('div', { class: 'rows', role: 'region', tabindex: 0, 'aria-label': `Table of ${title}` }, table, more);
	let shown = 0;

	function grow() {
		const rows = records.slice(shown, shown + PAGE).map((record) => el('tr', {}, ...columns.map((column) => cellOf(record[column.name], column))));
		body.append(...rows);
		shown += rows.length;
		more.hidden = shown >= records.length;
		more.textContent = `Show ${Math.min(PAGE, records.length - shown)} more of ${records.length - shown}`;
	}

	grow();
	if (!records.length) body.append(el('tr', {}, el('td', { colspan: Math.max(1, columns.length), class: 'none' }, 'No rows')));
	if (result.truncated) region.append(el('p', { class: 'cut' }, `Cut off after ${records.length} rows: the limit of the service.`));
	return region;
}

/** @param {import('./values.js').Cell | undefined} cell @param {import('./values.js').Column} column */
function cellOf(cell, column) {
	if (cell === null || cell === undefined) return el('td', { class: isNumeric(column) ? 'amount null' : 'null' }, el('span', { 'aria-hidden': 'true' }, '—'), el('span', { class: 'visually-hidden' }, 'no value'));
	return el('td', { class: isNumeric(column) ? 'amount' : isTemporal(column) ? 'time' : undefined, dir: 'auto' }, cellText(cell, column));
}
