import { api } from './api.js';
import { el } from './dom.js';
import { may, page } from './page.js';

/** @typedef {import('./tile.js').Tile} Tile */

const LOOK_MS = 10e3;
const OPEN = ['firing', 'nodata', 'stale', 'acknowledged'];

/**
 * Mark the tiles whose metrics have open alerts.
 *
 * @param {Map<string, Tile>} tiles
 */
export function showMarks(tiles) {
	if (page.link || !may('alerts:read')) return;
	const query = new URLSearchParams([...OPEN.map((each) => ['state', each]), ['limit', '500']]);
	const look = async () => {
		if (document.visibilityState !== 'visible') return;
		const found = await api(`/api/v1/alerts?${query}`).catch(() => null); // the badge says that it is offline
		if (!found) return;
		await drawBands(tiles);
		for (const tile of tiles.values()) mark(tile, found.items.filter((/** @type {any} */ each) => each.metric_id === tile.id));
	};
	void look();
	addEventListener('tally-alert', () => void look()); // the stream tells one tab of a browser
	setInterval(() => void look(), LOOK_MS);
	document.addEventListener('visibilitychange', () => void look());
}

/** @type {Map<string, string>} the ETag of the result that the band of a tile belongs to */
const drawn = new Map();

/**
 * Draw what is usual behind the lines of metrics whose only series has a rule.
 *
 * @param {Map<string, Tile>} tiles
 */
async function drawBands(tiles) {
	const rules = await api('/api/v1/alerts/rules?limit=500').catch(() => null);
	for (const rule of rules?.items ?? []) {
		const tile = tiles.get(rule.metric_id);
		if (!tile?.result || tile.chart.kind !== 'line' || drawn.get(tile.id) === tile.etag) continue;
		drawn.set(tile.id, tile.etag);
		const bands = await api(`/api/v1/alerts/rules/${rule.id}/bands`).catch(() => null);
		if (bands?.series.length !== 1) continue;
		const points = bands.series[0].points.map((/** @type {any} */ each) => [Date.parse(each.point), each]);
		tile.chart.band = { column: bands.column, points: new Map(points) };
		tile.chart.draw();
	}
}

/** @param {Tile} tile @param {any[]} alerts */
function mark(tile, alerts) {
	const text = alerts.length === 1 ? '1 alert' : `${alerts.length} alerts`;
	const present = tile.article.querySelector('.tile-alert');
	if (alerts.length ? present?.textContent === text : !present) return;
	present?.remove();
	tile.article.classList.toggle('alerted', !!alerts.length);
	if (!alerts.length) return;
	const about = alerts.slice(0, 5).map(({ rule_name: rule, series, point }) => [rule, ...Object.values(series), point].join(' · ')).join('\n');
	tile.heading.after(el('a', { class: 'badge bad tile-alert', href: '/alerts', title: about }, text));
}
