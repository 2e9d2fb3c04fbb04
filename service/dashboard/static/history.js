import { api, sentence } from './api.js';
import { cellText, isNumeric, parseExact, wordsOf } from './charts/values.js';
import { announce, dialog, el } from './dom.js';
import { may, page } from './page.js';
import { ago, clock } from './times.js';

/** @typedef {import('./charts/values.js').Column} Column */
/** @typedef {import('./charts/values.js').Cell} Cell */
/** @typedef {Record<string, Cell>} Row */
/** @typedef {{ column: string, before: Cell, after: Cell, delta: Cell }} Value */
/**
 * @typedef {object} Difference
 * @property {Column[]} compared
 * @property {string[] | null} keys
 * @property {{ added: Column[], removed: Column[], retyped: { name: string, before: string, after: string }[] }} columns
 * @property {{ added: number, removed: number, changed: number, unchanged: number }} totals
 * @property {Row[]} added
 * @property {Row[]} removed
 * @property {{ key: Row, values: Value[] }[]} changed
 * @property {boolean} reordered
 */
/** @typedef {{ as_of: string, since: string | null, row_count: number, truncated: boolean, left_out: number, causes: any[], difference: Difference | null, difference_note: string | null }} Item */

const PAGE = 5;
const ROWS = 20; // of each kind that are shown

/**
 * The last changes of a tile's numbers: when, why and which rows.
 *
 * @param {import('./tile.js').Tile} tile
 * @param {Record<string, string>} parameters what the tile takes of the page
 */
export async function showHistory(tile, parameters) {
	const list = el('ol', { class: 'changes' });
	const more = el('button', { type: 'button', class: 'button', hidden: true }, 'Show earlier changes');
	const state = el('p', { class: 'muted', role: 'status' }, 'Loading…');
	const shown = dialog(`Why “${tile.title}” changed`, list, state, more);
	shown.classList.add('large');
	const own = Object.fromEntries(Object.entries(parameters).map(([name, value]) => [/^(limit|cursor)$/.test(name) ? `metric.${name}` : name, value]));
	let cursor = '';
	const load = async () => {
		more.disabled = true;
		try {
			const query = new URLSearchParams({ ...own, limit: `${PAGE}`, ...(cursor && { cursor }) });
			const found = await api(`${page.api}/metrics/${tile.id}/history?${query}`, { read: parseExact });
			const first = list.childElementCount;
			list.append(...found.items.map((/** @type {Item} */ item, /** @type {number} */ index) => change(item, !first && !index)));
			cursor = found.next_cursor ?? '';
			more.hidden = !cursor;
			state.hidden = !found.note;
			state.textContent = found.note ?? '';
			if (first) announce(`${found.items.length} earlier changes`);
		} catch (problem) {
			state.hidden = false;
			state.className = 'error';
			state.textContent = sentence(problem);
		}
		more.disabled = false;
	};
	more.addEventListener('click', load);
	await load();
}

/** @param {Item} item @param {boolean} now */
function change(item, now) {
	const at = Date.parse(item.as_of);
	const head = el('h3', {}, el('time', { datetime: item.as_of }, clock(at)), now ? el('span', { class: 'badge good' }, 'now') : el('span', { class: 'hint' }, ago(at)));
	if (!item.since) return el('li', { class: 'part' }, head, el('p', { class: 'muted' }, `The first result that is kept: ${rows(item.row_count)}.`));
	const causes = item.causes.length === 1 ? el('p', {}, ...words(item.causes[0], at)) : el('ul', {}, ...item.causes.map((each) => el('li', {}, ...words(each, at))));
	return el('li', { class: 'part' }, head, causes, ...differing(item), el('p', { class: 'hint' }, between(item)));
}

/** @param {Item} item */
function between({ since, left_out: left, truncated }) {
	const skipped = left ? ` ${left === 1 ? 'One result' : `${left} results`} in between ${left === 1 ? 'was' : 'were'} not kept.` : '';
	const cut = truncated ? ' The result was cut off at the limit of the service.' : '';
	return `The numbers before were still right at ${clock(Date.parse(since ?? ''))}.${skipped}${cut}`;
}

/** A cause as a sentence, with its time where that is another. @param {any} cause @param {number} shown @returns {(Node | string)[]} */
function words(cause, shown) {
	const time = cause.at ? clock(Date.parse(cause.at)) : '';
	const at = time && time !== clock(shown) ? `, at ${time}` : '';
	const code = (/** @type {string[]} */ names) => names.flatMap((name, index) => [...(index ? [', '] : []), el('code', {}, name)]);
	switch (cause.kind) {
		case 'import': {
			const run = cause.id && may('imports:write') ? el('a', { href: `/data#run-${cause.id}` }, cause.source) : el('bdi', {}, cause.source ?? 'a file');
			return ['Import of ', run, ` into ${cause.dataset}${cause.actor ? ` by ${cause.actor}` : ''}: ${sums(cause)}${at}.`];
		}
		case 'commit': {
			const who = cause.actor ? ` by ${cause.actor} (${cause.action})` : cause.transaction ? ` by transaction ${cause.transaction}` : ', which nobody announced';
			return [...code(cause.tables), ` changed${who}${at}.`];
		}
		case 'definition':
			return [`The metric was changed${cause.actor ? ` by ${cause.actor}` : ''}, from version ${cause.before} to ${cause.version}${at}.`];
		case 'migration':
			return ['The migration ', el('code', {}, cause.id), ` was applied${at}.`];
		case 'redefinition':
			return [...code(cause.names), ` changed in definition or rights${at}.`];
		case 'time':
			return ['Time passed: the metric depends on the clock, and nothing else changed.'];
		case 'unwatched':
			return [...code(cause.tables), cause.tables.length === 1 ? ' is' : ' are', ' not watched, so it is unknown who changed it and when.'];
		default:
			return [`Not all is known: ${cause.why}.`];
	}
}

/** @param {any} cause of an import */
function sums({ inserted, updated, gone }) {
	const parts = [[inserted, 'new'], [updated, 'changed'], [gone, 'gone']].filter(([number]) => number).map(([number, what]) => `${number.toLocaleString('en')} ${what}`);
	return parts.join(', ') || 'rows that had waited';
}

/** @param {number} number */
const rows = (number) => `${number.toLocaleString('en')} row${number === 1 ? '' : 's'}`;

/** @param {Item} item @returns {Node[]} */
function differing({ difference, difference_note: note }) {
	if (!difference) return [el('p', { class: 'muted' }, note ?? '')];
	const { totals, columns, reordered } = difference;
	const told = [
		...columns.added.map(({ name }) => `New column: ${name}.`),
		...columns.removed.map(({ name }) => `Column no longer there: ${name}.`),
		...columns.retyped.map(({ name, before, after }) => `${name} was ${before} and is ${after}.`),
		reordered ? 'The same rows, in another order or notation.' : '',
		!reordered && totals.unchanged && totals.added + totals.removed + totals.changed === 0 ? `All else is the same in ${rows(totals.unchanged)}.` : ''
	].filter(Boolean);
	const note_ = told.length ? [el('p', {}, told.join(' '))] : [];
	const body = difference.keys ? changedLines(difference) : wholeLines(difference);
	if (!body.length) return note_;
	const counts = [[totals.changed, 'changed'], [totals.added, 'new'], [totals.removed, 'gone']].filter(([number]) => number).map(([number, what]) => `${number.toLocaleString('en')} ${what}`);
	const title = difference.keys?.length === 0 ? '' : `Rows: ${counts.join(', ')}, ${totals.unchanged.toLocaleString('en')} unchanged`;
	const hidden = [difference.changed, difference.added, difference.removed].reduce((sum, each) => sum + Math.min(each.length, ROWS), 0);
	const left = totals.changed + totals.added + totals.removed - hidden;
	const rest = left > 0 ? [el('p', { class: 'muted' }, `and ${rows(left)} more.`)] : [];
	return [...note_, el('div', { class: 'table-scroll', tabindex: 0, role: 'region', 'aria-label': title || 'The number' }, el('table', { class: 'table' }, title && el('caption', {}, title), ...body)), ...rest];
}

/**
 * A line for each value of each row that has a key.
 *
 * @param {Difference} difference
 * @returns {Node[]}
 */
function changedLines({ compared, keys, changed, added, removed }) {
	const identify = compared.filter(({ name }) => keys?.includes(name));
	const values = compared.filter(({ name }) => !keys?.includes(name));
	const several = values.length > 1;
	/** @type {Node[]} */
	const lines = [];
	const line = (/** @type {Row} */ key, /** @type {Column | undefined} */ column, /** @type {Node[]} */ cells) => lines.push(el('tr', {}, ...identify.map((each) => cell(key[each.name], each)), ...(several ? [el('td', {}, column ? wordsOf(column.name) : '')] : []), ...cells));
	for (const { key, values: found } of changed.slice(0, ROWS)) {
		for (const each of found) {
			const column = values.find(({ name }) => name === each.column);
			line(key, column, [cell(each.before, column), cell(each.after, column), delta(each.delta, column)]);
		}
	}
	for (const row of added.slice(0, ROWS)) for (const column of values.length ? values : [undefined]) line(row, column, [none(), cell(column && row[column.name], column), el('td', { class: 'number' }, 'new')]);
	for (const row of removed.slice(0, ROWS)) for (const column of values.length ? values : [undefined]) line(row, column, [cell(column && row[column.name], column), none(), el('td', { class: 'number' }, 'gone')]);
	if (!lines.length) return [];
	const number = values.every(isNumeric) ? 'number' : undefined;
	return [head([...identify.map((each) => [wordsOf(each.name)]), ...(several ? [['Column']] : []), ['Before', number], ['After', number], ['Difference', number]]), el('tbody', {}, ...lines)];
}

/** Rows without a key, whole. @param {Difference} difference @returns {Node[]} */
function wholeLines({ compared, added, removed }) {
	const line = (/** @type {string} */ what) => (/** @type {Row} */ row) => el('tr', {}, el('td', {}, what), ...compared.map((each) => cell(row[each.name], each)));
	const lines = [...added.slice(0, ROWS).map(line('new')), ...removed.slice(0, ROWS).map(line('gone'))];
	return lines.length ? [head([['Row'], ...compared.map((each) => [wordsOf(each.name), isNumeric(each) ? 'number' : undefined])]), el('tbody', {}, ...lines)] : [];
}

/** @param {(string | undefined)[][]} names */
const head = (names) => el('thead', {}, el('tr', {}, ...names.map(([name, kind]) => el('th', { scope: 'col', class: kind }, name))));

/** @param {Cell | undefined} value @param {Column | undefined} column */
function cell(value, column) {
	if (value === null || value === undefined) return none();
	return el('td', { class: column && isNumeric(column) ? 'number' : undefined, dir: 'auto' }, cellText(value, column));
}

const none = () => el('td', { class: 'number muted' }, el('span', { 'aria-hidden': 'true' }, '—'), el('span', { class: 'visually-hidden' }, 'none'));

/** @param {Cell} value @param {Column | undefined} column */
function delta(value, column) {
	if (value === null) return el('td', {}, 'changed');
	const text = cellText(value, column);
	return el('td', { class: 'number' }, Number(`${value}`) > 0 ? `+${text}` : text);
}
