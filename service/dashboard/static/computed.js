import { api, sentence } from './api.js';
import { cellText, parseExact } from './charts/values.js';
import { announce, dialog, el } from './dom.js';
import { may, page } from './page.js';
import { ago, clock } from './times.js';

/** @typedef {import('./tile.js').Tile} Tile */

/** @param {string} id */
export const metricUrl = (id) => `${page.api}/metrics/${id}`;

/**
 * A metric's definition, and its ETag for the next change.
 *
 * @param {string} id
 * @returns {Promise<{ definition: any, etag: string }>}
 */
export async function define(id) {
	let etag = '';
	const definition = await api(`${metricUrl(id)}/definition`, { read: parseExact, seen: (answer) => (etag = answer.headers.get('etag') ?? '') });
	return { definition, etag };
}

/**
 * How a metric is computed: SQL, parameters, tables, columns, changes and earlier versions.
 *
 * @param {Tile} tile
 * @param {() => void} changed
 */
export async function showComputed(tile, changed) {
	const body = el('div', { class: 'stack', 'aria-busy': 'true' }, el('p', { class: 'muted' }, 'Loading…'));
	const shown = dialog(`How “${tile.title}” is computed`, body);
	shown.classList.add('large');
	const load = async () => {
		try {
			const [{ definition, etag }, { items: versions }] = await Promise.all([define(tile.id), api(`${metricUrl(tile.id)}/versions`)]);
			const restore = (/** @type {any} */ version) => restored(tile, version, etag);
			body.replaceChildren(...parts(definition, tile), history(definition, versions, restore, load, changed));
		} catch (problem) {
			body.replaceChildren(el('p', { class: 'error', role: 'alert' }, sentence(problem)));
		}
		body.removeAttribute('aria-busy');
	};
	await load();
}

/** @param {any} definition @param {Tile} tile */
function parts({ sql, parameters, tables, columns, window, updated_at: changed, version }, tile) {
	const used = /** @type {Record<string, any>} */ (tile.result?.parameters ?? {});
	const asked = parameters.map((/** @type {any} */ each) => [each.name, each.type + (each.array ? '[]' : ''), valueText(each.default), each.name in used ? valueText(used[each.name]) : '']);
	const at = Date.parse(changed);
	return [
		section('SQL', el('pre', { tabindex: 0, 'aria-label': 'SQL' }, el('code', {}, sql))),
		section('Period', el('p', {}, window.offered ? 'It takes the period of the page.' : `It keeps its own period: ${window.why ?? 'its window is off'}${window.line ? ` (line ${window.line}, column ${window.column})` : ''}.`)),
		section('Parameters', asked.length ? grid(['Name', 'Type', 'Default', 'Now'], asked) : el('p', { class: 'muted' }, 'It takes none.')),
		section('Tables it reads', tables.length ? el('p', { class: 'row' }, ...tables.map((/** @type {string} */ each) => el('code', {}, each))) : el('p', { class: 'muted' }, 'None.')),
		section('Columns', grid(['Name', 'Type'], columns.map((/** @type {any} */ each) => [each.name, each.type]))),
		section('Last change', el('p', {}, `Version ${version}, `, el('time', { datetime: changed, title: clock(at) }, ago(at)), '.'))
	];
}

/** @param {any} value */
const valueText = (value) => (value === null || value === undefined ? '—' : cellText(value));

/** @param {string} title @param {...Node} content */
const section = (title, ...content) => el('section', { class: 'part' }, el('h3', {}, title), ...content);

/** @param {string[]} head @param {string[][]} rows */
function grid(head, rows) {
	const cells = (/** @type {string} */ tag, /** @type {string[]} */ row) => row.map((text) => el(tag, tag === 'th' ? { scope: 'col' } : { dir: 'auto' }, text));
	return el('div', { class: 'table-scroll' }, el('table', { class: 'table' }, el('thead', {}, el('tr', {}, ...cells('th', head))), el('tbody', {}, ...rows.map((row) => el('tr', {}, ...cells('td', row))))));
}

/**
 * @param {any} definition
 * @param {any[]} versions
 * @param {(version: any) => Promise<void>} restore
 * @param {() => Promise<void>} load
 * @param {() => void} changed
 */
function history(definition, versions, restore, load, changed) {
	const able = may('metrics:write') && definition.is_editable;
	const list = versions.map((version) => {
		const now = version.version === definition.version;
		const when = version.replaced_at ? `until ${clock(Date.parse(version.replaced_at))}` : 'now';
		const press = async () => {
			try {
				await restore(version);
				announce(`Version ${version.version} is back, as a new version.`);
				changed();
				await load();
			} catch (problem) {
				failed.textContent = sentence(problem);
				failed.hidden = false;
			}
		};
		const button = able && !now && el('button', { type: 'button', class: 'button tiny', 'aria-label': `Restore version ${version.version}`, onclick: press }, 'Restore');
		const summary = el('summary', {}, el('span', {}, `Version ${version.version}`), el('span', { class: 'muted' }, ` ${when}${version.title ? ` · ${version.title}` : ''}`));
		return el('li', {}, el('details', {}, summary, el('pre', { tabindex: 0, 'aria-label': `SQL of version ${version.version}` }, el('code', {}, version.sql))), button);
	});
	const failed = el('p', { class: 'error', role: 'alert', hidden: true });
	return section('Versions', failed, el('ol', { class: 'versions' }, ...list));
}

/** @param {Tile} tile @param {any} version @param {string} etag */
async function restored(tile, version, etag) {
	const url = `${metricUrl(tile.id)}/versions/${version.version}/restore`;
	const definition = await api(url, { method: 'POST', headers: { 'If-Match': etag } });
	tile.title = definition.title ?? tile.title;
}
