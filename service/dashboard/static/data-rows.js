import { api, sentence } from './api.js';
import { Exact } from './charts/values.js';
import { announce, el } from './dom.js';
import { page } from './page.js';

/**
 * A quarantined row, as the API gives it.
 *
 * @typedef {object} Row
 * @property {string} id
 * @property {string} dataset
 * @property {string} source
 * @property {number} line
 * @property {string} reason
 * @property {string} message
 * @property {Record<string, any>} raw
 * @property {string | null} waits_for
 * @property {string | null} waits_key
 */

/** @typedef {{ properties: Record<string, { 'x-aliases'?: string[] }> }} Contract */

const plain = (/** @type {string} */ name) => name.trim().toLowerCase().replace(/[\s_]+/g, '_');

/**
 * The column that a message speaks of, or an empty text: `date_start: "31/02" is not a date`.
 *
 * @param {string} message
 */
export const columnOf = (message) => /^([^:"']{1,120}): /.exec(message)?.[1] ?? '';

/**
 * A row with a field for each cell. The message stands beside the cell that it speaks of.
 *
 * @param {Row} row
 * @param {Contract | null} contract
 * @param {() => void} gone is told when the row is no longer open
 * @returns {HTMLElement}
 */
export function keptRow(row, contract, gone) {
	const inputs = new Map(cells(row, contract).map(([name, value]) => [name, cell(row, name, value)]));
	const other = el('p', { class: 'error', dir: 'auto' });
	const save = el('button', { type: 'submit', class: 'button tiny primary' }, 'Save and load');
	const drop = el('button', { type: 'button', class: 'button tiny danger' }, 'Discard');
	const where = row.line > 0 ? `${row.source}, line ${row.line.toLocaleString('en')}` : row.source;
	const made = el(
		'form',
		{ class: 'kept', 'data-row': row.id, 'aria-label': `${row.dataset}, ${where}` },
		el('div', { class: 'kept-head' }, el('strong', { dir: 'auto' }, row.dataset), el('span', { dir: 'auto' }, where), el('span', { class: 'badge plain bad' }, row.reason)),
		el('div', { class: 'cells' }, ...[...inputs.values()].map(({ field }) => field)),
		other,
		el('div', { class: 'kept-end' }, save, drop)
	);
	tell([{ field: columnOf(row.message), message: row.message.slice(columnOf(row.message) ? columnOf(row.message).length + 2 : 0) }]);

	/** @param {{ field: string, message: string }[]} errors */
	function tell(errors) {
		const names = [...inputs.keys()];
		for (const { input, wrong } of inputs.values()) {
			input.removeAttribute('aria-invalid');
			wrong.textContent = '';
		}
		const rest = errors.filter(({ field, message }) => {
			const found = inputs.get(names.find((name) => spellings(name, contract).has(plain(field))) ?? '');
			found?.input.setAttribute('aria-invalid', 'true');
			if (found) found.wrong.textContent = message;
			return !found;
		});
		other.textContent = rest.map(({ field, message }) => (field ? `${field}: ${message}` : message)).join(' ');
	}

	const attempt = async (/** @type {() => Promise<void>} */ deed) => {
		save.disabled = drop.disabled = true;
		await deed().catch((problem) => {
			if (problem.status === 422 && problem.errors?.length) tell(problem.errors);
			else tell([{ field: '', message: sentence(problem) }]);
			save.disabled = drop.disabled = false;
			announce([...inputs.values()].map(({ wrong }) => wrong.textContent).concat(other.textContent).filter(Boolean).join(' '));
		});
	};
	made.addEventListener('submit', (/** @type {SubmitEvent} */ event) => {
		event.preventDefault();
		void attempt(async () => {
			const raw = Object.fromEntries([...inputs].filter(([name, { input }]) => input.value !== shown(row.raw[name])).map(([name, { input }]) => [name, input.value]));
			await api(`${page.api}/quarantine/${row.id}`, { method: 'PATCH', body: { raw } });
			announce('The row is loaded.');
			leave(made, gone);
		});
	});
	drop.addEventListener('click', () => {
		if (drop.dataset.sure === undefined) { // a row is given up by two clicks, and can still be read afterwards
			drop.dataset.sure = '';
			drop.textContent = 'Discard it?';
			drop.addEventListener('blur', () => { delete drop.dataset.sure; drop.textContent = 'Discard'; }, { once: true });
			return;
		}
		void attempt(async () => {
			await api(`${page.api}/quarantine/${row.id}`, { method: 'DELETE' });
			announce('The row is discarded.');
			leave(made, gone);
		});
	});
	return made;
}

/** The focus goes on to the next row. @param {HTMLElement} row @param {() => void} gone */
function leave(row, gone) {
	const next = /** @type {HTMLElement | null} */ ((row.nextElementSibling ?? row.previousElementSibling)?.querySelector('input, textarea') ?? null);
	row.remove();
	next?.focus();
	gone();
}

/** The cells of the file, then the columns of the contract that it lacks. @param {Row} row @param {Contract | null} contract @returns {[string, any][]} */
function cells(row, contract) {
	const names = Object.keys(row.raw);
	const there = new Set(names.flatMap((name) => [...spellings(name, contract)]));
	const missing = Object.keys(contract?.properties ?? {}).filter((name) => !there.has(plain(name)));
	return [...Object.entries(row.raw), ...missing.map((name) => /** @type {[string, any]} */ ([name, '']))];
}

/** All names of a column. @param {string} name @param {Contract | null} contract */
function spellings(name, contract) {
	for (const [own, { 'x-aliases': aliases = [] }] of Object.entries(contract?.properties ?? {})) {
		const all = [own, ...aliases].map(plain);
		if (all.includes(plain(name))) return new Set(all);
	}
	return new Set([plain(name)]);
}

/** @param {any} value */
const shown = (value) => (value == null ? '' : typeof value === 'object' && !(value instanceof Exact) ? JSON.stringify(value) : `${value}`);

/** @param {Row} row @param {string} name @param {any} value */
function cell(row, name, value) {
	const text = shown(value);
	const id = `${row.id}-${name}`;
	const long = text.length > 60 || text.includes('\n');
	const attributes = { class: long ? 'textarea code' : 'input', id, dir: 'auto', 'aria-describedby': `${id}-wrong`, spellcheck: 'false' };
	const input = long ? el('textarea', { ...attributes, rows: 3 }, text) : el('input', { ...attributes, value: text });
	const wrong = el('span', { class: 'error', id: `${id}-wrong` });
	return { input, wrong, field: el('div', { class: 'field' }, el('label', { for: id, class: 'hint', dir: 'auto' }, name), input, wrong) };
}
