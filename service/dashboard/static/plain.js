import { el } from './dom.js';

const MOST_ROWS = 200;
const NUMBERS = /^(smallint|integer|bigint|real|double precision|numeric|money)/;

/**
 * Show a result as a table, or its only value.
 *
 * @param {HTMLElement} into
 * @param {any} result
 */
export function showTable(into, { columns, records, row_count }) {
	if (!records.length) return into.replaceChildren(el('p', { class: 'muted' }, 'No rows in this period.'));
	if (records.length === 1 && columns.length === 1) {
		return into.replaceChildren(el('p', { class: 'big' }, shown(records[0][columns[0].name])));
	}
	const kind = (/** @type {any} */ { type }) => (NUMBERS.test(type) ? 'number' : null);
	const head = columns.map((/** @type {any} */ each) => el('th', { scope: 'col', class: kind(each), dir: 'auto' }, each.name));
	const rows = records
		.slice(0, MOST_ROWS)
		.map((/** @type {any} */ row) =>
			el('tr', null, ...columns.map((/** @type {any} */ each) => el('td', { class: kind(each), dir: 'auto' }, shown(row[each.name])))),
		);
	const table = el('table', { class: 'table' }, el('thead', null, el('tr', null, ...head)), el('tbody', null, ...rows));
	const more = row_count > MOST_ROWS && el('p', { class: 'muted small' }, `${MOST_ROWS} of ${row_count} rows`);
	into.replaceChildren(el('div', { class: 'table-scroll', tabindex: '0', role: 'region', 'aria-label': 'Table' }, table), ...(more ? [more] : []));
}

/** @param {any} value */
function shown(value) {
	if (value === null) return '–';
	if (typeof value === 'number') return value.toLocaleString(undefined, { maximumFractionDigits: 6 });
	return typeof value === 'object' ? JSON.stringify(value) : `${value}`;
}
