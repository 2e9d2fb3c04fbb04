import { page } from './page.js';

/** Show the next dashboard when it is its turn. While the service cannot be reached, this one stays. */
export function rotate() {
	const others = page.dashboards;
	if (!page.kiosk || !page.rotate || others.length < 2) return;
	const here = others.findIndex(({ id }) => id === page.dashboard.id);
	const next = others[(here + 1) % others.length];
	setTimeout(async () => {
		const answer = await fetch(`${next.address}${location.search}`, { headers: { Accept: 'text/html' }, cache: 'no-store' }).catch(() => null);
		if (answer?.ok) location.replace(`${next.address}${location.search}`);
		else rotate();
	}, page.rotate * 1000);
}
