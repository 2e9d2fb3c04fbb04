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
		for (const tile of tiles.values()) mark(tile, found.items.filter((/** @type {any} */ each) => each.metric_id === tile.id));
	};
	void look();
	addEventListener('tally-alert', () => void look()); // the stream tells one tab of a browser
	setInterval(() => void look(), LOOK_MS);
	document.addEventListener('visibilitychange', () => void look());
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
