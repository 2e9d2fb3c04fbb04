import { api, sentence } from './api.js';
import { Chart } from './charts/chart.js';
import { parseExact } from './charts/values.js';
import { define, metricUrl } from './computed.js';
import { announce, dialog, el, icon } from './dom.js';
import { page } from './page.js';

/** @typedef {import('./tile.js').Tile} Tile */

const TYPES = ['text', 'integer', 'number', 'boolean', 'date', 'timestamp', 'uuid', 'enum'];

/**
 * Change a metric's title, SQL and parameters. It can be tried before it is saved.
 *
 * @param {Tile} tile
 * @param {() => void} changed
 */
export async function showEdit(tile, changed) {
	const body = el('form', { class: 'form', novalidate: true, 'aria-busy': 'true' }, el('p', { class: 'muted' }, 'Loading…'));
	const shown = dialog(`Edit “${tile.title}”`, body);
	shown.classList.add('large');
	try {
		const [{ definition, etag }, { items }] = await Promise.all([define(tile.id), api(`${metricUrl(tile.id)}/versions`, { read: parseExact })]);
		fill(shown, body, tile, { definition, etag, declared: items[0]?.parameters ?? {} }, changed);
	} catch (problem) {
		body.replaceChildren(el('p', { class: 'error', role: 'alert' }, sentence(problem)));
	}
	body.removeAttribute('aria-busy');
}

/**
 * @param {HTMLDialogElement} shown
 * @param {HTMLElement} form
 * @param {Tile} tile
 * @param {{ definition: any, etag: string, declared: Record<string, any> }} stored
 * @param {() => void} changed
 */
function fill(shown, form, tile, { definition, etag, declared }, changed) {
	const title = el('input', { class: 'input', id: 'edit-title', maxlength: 255, value: definition.title ?? '', dir: 'auto' });
	const sql = el('textarea', { class: 'textarea code', id: 'edit-sql', rows: 12, spellcheck: 'false' });
	sql.value = definition.sql;
	const rows = el('div', { class: 'stack' });
	const asked = definition.parameters.filter(({ source }) => source === 'placeholder');
	const names = new Set([...Object.keys(declared), ...asked.map(({ name }) => name)]);
	for (const name of names) rows.append(parameterRow(name, declared[name] ?? {}));
	const more = el('button', { type: 'button', class: 'button tiny', onclick: () => rows.append(parameterRow('', {})) }, icon('plus'), 'Add a parameter');
	const wrong = el('div', { class: 'notice bad', role: 'alert', hidden: true });
	const host = el('div', { class: 'preview', hidden: true });
	const tried = el('p', { class: 'muted small', role: 'status' });
	const chart = new Chart(host, 'Preview');
	shown.addEventListener('close', () => chart.destroy());
	const attempt = el('button', { type: 'button', class: 'button' }, 'Preview');
	const save = el('button', { type: 'submit', class: 'button primary' }, 'Save');
	form.replaceChildren(
		field('edit-title', 'Title', title),
		field('edit-sql', 'SQL', sql, 'One SELECT. :name is a parameter; :start_date and :end_date take the period of the page.'),
		el('fieldset', { class: 'plain' }, el('legend', {}, 'Parameters'), rows, more),
		wrong,
		tried,
		host,
		el('div', { class: 'form-end' }, attempt, save)
	);
	const refuse = (/** @type {any} */ problem) => {
		wrong.textContent = problem.status === 412 ? 'Somebody else has changed this metric meanwhile. Close, look at the new version, and edit again.' : sentence(problem);
		wrong.hidden = false;
		sql.setAttribute('aria-invalid', `${['query-failed', 'sql-refused'].includes(problem.code)}`);
	};
	const run = async (/** @type {() => Promise<void>} */ deed) => {
		wrong.hidden = true;
		sql.removeAttribute('aria-invalid');
		attempt.disabled = save.disabled = true;
		await deed().catch(refuse);
		attempt.disabled = save.disabled = false;
	};
	const given = () => ({ title: title.value.trim() || null, sql: sql.value, parameters: parametersIn(rows) });
	attempt.addEventListener('click', () =>
		run(async () => {
			const result = await api(`${page.api}/metrics/preview`, { method: 'POST', body: { ...given(), window: definition.window.mode }, read: parseExact });
			host.hidden = !result.records.length;
			tried.textContent = result.records.length ? `${result.records.length}${result.truncated ? ' first' : ''} row${result.records.length === 1 ? '' : 's'}. Nothing is saved yet.` : 'It runs and finds no rows.';
			chart.show(result, { kind: tile.kind });
			(host.hidden ? tried : host).scrollIntoView({ block: 'nearest' });
		})
	);
	form.addEventListener('submit', (event) => {
		event.preventDefault();
		void run(async () => {
			const saved = await api(metricUrl(tile.id), { method: 'PATCH', body: given(), headers: { 'If-Match': etag } });
			tile.title = saved.title ?? `Metric ${tile.id}`;
			announce(`Saved as version ${saved.version}.`);
			shown.close();
			changed();
		});
	});
	title.focus();
}

/** @param {string} id @param {string} label @param {Node} input @param {string} [hint] */
const field = (id, label, input, hint) => el('div', { class: 'field' }, el('label', { for: id }, label), input, hint && el('p', { class: 'hint' }, hint));

/** @param {string} name @param {any} declared */
function parameterRow(name, declared) {
	const labelled = (/** @type {string} */ label, /** @type {Node} */ input) => el('label', { class: 'field' }, el('span', { class: 'hint' }, label), input);
	const choices = TYPES.map((type) => el('option', { value: type, selected: type === declared.type }, type));
	const type = el('select', { class: 'select', name: 'type' }, el('option', { value: '' }, 'as the SQL has it'), ...choices);
	const text = declared.default === undefined || declared.default === null ? '' : typeof declared.default === 'object' && Array.isArray(declared.default) ? JSON.stringify(declared.default) : String(declared.default);
	const values = el('input', { class: 'input', name: 'values', value: (declared.values ?? []).join(', '), placeholder: 'for enum' });
	const row = el('div', { class: 'parameter' }, labelled('Name', el('input', { class: 'input', name: 'name', value: name, pattern: '[A-Za-z_][A-Za-z0-9_]*' })), labelled('Type', type), labelled('Default', el('input', { class: 'input', name: 'default', value: text, dir: 'auto' })), labelled('Values', values));
	const show = () => (values.parentElement.hidden = type.value !== 'enum');
	type.addEventListener('change', show);
	show();
	row.append(el('button', { type: 'button', class: 'button quiet icon-only', 'aria-label': `Remove the parameter ${name}`, title: 'Remove', onclick: () => row.remove() }, icon('close')));
	row.dataset.declared = JSON.stringify(declared);
	return row;
}

/** The declarations that the rows make. @param {HTMLElement} rows */
function parametersIn(rows) {
	/** @type {Record<string, any>} */
	const found = {};
	for (const row of /** @type {HTMLElement[]} */ ([...rows.children])) {
		const read = (/** @type {string} */ name) => /** @type {HTMLInputElement} */ (row.querySelector(`[name="${name}"]`)).value.trim();
		const old = JSON.parse(row.dataset.declared ?? '{}');
		const [name, type, text] = [read('name'), read('type'), read('default')];
		if (!name || !type) continue;
		const values = read('values').split(',').map((each) => each.trim()).filter(Boolean);
		const value = text ? { default: valueOf(text, type, old.array) } : old.default === null ? { default: null } : {};
		found[name] = { type, ...(old.array && { array: true }), ...(type === 'enum' && { values }), ...value };
	}
	return found;
}

/** @param {string} text @param {string} type @param {boolean} array */
function valueOf(text, type, array) {
	if (array || ((type === 'integer' || type === 'number') && String(Number(text)) === text)) return parseExact(text);
	return type === 'boolean' ? text === 'true' : text;
}
