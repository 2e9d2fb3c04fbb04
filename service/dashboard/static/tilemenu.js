import { api, sentence } from './api.js';
import { KINDS } from './charts/shape.js';
import { fileName, pngOf, save } from './charts/picture.js';
import { announce, dialog, el, icon } from './dom.js';
import { may, page } from './page.js';
import { menuItem, popup } from './popup.js';
import { copied } from './share.js';
import { clock } from './times.js';

/** @typedef {import('./tile.js').Tile} Tile */
/** @typedef {import('./board.js').Board} Board */
/** @typedef {import('./charts/shape.js').Kind} Kind */

const NAMES = { number: 'Number', line: 'Line', bar: 'Bars', stacked: 'Stacked bars', table: 'Table' };

/**
 * What can be done with a tile.
 *
 * @param {Tile} tile
 * @param {Board} board
 * @param {{ explain: (tile: Tile) => void, edit: (tile: Tile) => void }} deeds
 */
export function showTools(tile, board, deeds) {
	const table = el('button', { type: 'button', class: 'button quiet tiny icon-only', onclick: () => tile.chart.toggleTable() });
	const more = el('button', { type: 'button', class: 'button quiet tiny icon-only', 'aria-label': `More of ${tile.title}`, title: 'More' }, icon('more'));
	const label = () => {
		const text = tile.chart.tabled ? 'Show the chart' : 'Show the table';
		table.setAttribute('aria-label', `${text} of ${tile.title}`);
		table.setAttribute('aria-pressed', `${tile.chart.tabled}`);
		table.title = `${text} (T)`;
		table.replaceChildren(icon(tile.chart.tabled ? 'chart' : 'table'));
	};
	tile.host.addEventListener('tabled', label);
	label();
	tile.tools.append(table, more);
	popup(more, () => items(tile, board, deeds), { role: 'menu', 'aria-label': tile.title });
}

/**
 * @param {Tile} tile
 * @param {Board} board
 * @param {{ explain: (tile: Tile) => void, edit: (tile: Tile) => void }} deeds
 */
function items(tile, board, deeds) {
	const shape = tile.chart.shape;
	const drawn = !!tile.result?.records.length && !tile.chart.tabled && tile.chart.kind !== 'table';
	const kinds = KINDS.filter((kind) => shape?.kinds.includes(kind));
	const choose = (/** @type {Kind | null} */ kind) => () => void choice(tile, kind);
	const chosen = (/** @type {boolean} */ is) => ({ role: 'menuitemradio', 'aria-checked': `${is}` });
	const charts = [
		menuItem(shape ? `Automatic (${NAMES[shape.kind].toLowerCase()})` : 'Automatic', choose(null), chosen(!tile.kind || !kinds.includes(tile.kind))),
		...kinds.map((kind) => menuItem(NAMES[kind], choose(kind), chosen(tile.kind === kind)))
	];
	const query = new URLSearchParams({ format: 'csv', ...board.parametersOf(tile) });
	const csv = el('a', { role: 'menuitem', href: `${page.api}/metrics/${tile.id}?${query}`, download: `${fileName(tile.title)}.csv` }, 'Save as CSV');
	return [
		...(kinds.length > 1 ? [el('div', { role: 'group', 'aria-label': 'Chart' }, ...charts), el('hr', { role: 'separator' })] : []),
		...(drawn ? [menuItem('Save as PNG', () => void picture(tile))] : []),
		csv,
		...(page.link ? [menuItem('For spreadsheets', () => spreadsheets(tile))] : []),
		menuItem('Print', () => print(tile)),
		...(page.link ? [] : [menuItem('Why did this change?', () => void changes(tile, board)), menuItem('How this is computed', () => deeds.explain(tile))]),
		...(may('metrics:write') && tile.item.is_editable && !page.link ? [menuItem('Edit', () => deeds.edit(tile))] : [])
	];
}

/** The address that Google Sheets, Excel and Power Query read. It lasts as long as the link. @param {Tile} tile */
function spreadsheets(tile) {
	const url = new URL(`${page.api}/metrics/${tile.id}?format=csv&bom=1`, location.href).href;
	const sheets = el('code', {}, `=IMPORTDATA("${url}")`);
	dialog(
		`“${tile.title}” in a spreadsheet`,
		el('p', {}, 'This address gives the rows as CSV, as long as the link lasts.'),
		copied(url),
		el('p', { class: 'muted' }, 'Google Sheets: ', sheets),
		el('p', { class: 'muted' }, 'Excel: Data, From Web.')
	);
}

/** What shows the changes is loaded when it is asked for. @param {Tile} tile @param {Board} board */
async function changes(tile, board) {
	const { showHistory } = await import('./history.js');
	await showHistory(tile, board.parametersOf(tile));
}

/** Everybody may look at another chart; those who may write have it kept. @param {Tile} tile @param {Kind | null} kind */
async function choice(tile, kind) {
	const before = tile.kind;
	tile.chart.toggleTable(false);
	tile.draw(kind);
	announce(`${tile.title}: ${NAMES[tile.chart.kind]}`);
	if (!may('metrics:write') || page.link) return;
	try {
		await api(`${page.api}/dashboards/${page.dashboard.id}/tiles/${tile.id}`, { method: 'PATCH', body: { chart: kind } });
	} catch (problem) {
		tile.draw(before);
		announce(`The chart was not kept: ${sentence(problem)}`);
	}
}

/** @param {Tile} tile */
async function picture(tile) {
	const caption = `${page.dashboard.title} · computed at ${clock(Date.parse(tile.result?.as_of ?? ''))}`;
	save(await pngOf(tile.chart.drawing, { title: tile.title, caption }), `${fileName(tile.title)}.png`);
	announce('The picture is saved.');
}

/** Print one tile alone. @param {Tile} tile */
function print(tile) {
	const root = document.documentElement;
	root.classList.add('print-one');
	tile.article.classList.add('printed');
	const done = () => {
		root.classList.remove('print-one');
		tile.article.classList.remove('printed');
	};
	addEventListener('afterprint', done, { once: true });
	window.print();
}
