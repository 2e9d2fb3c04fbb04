// Runs before the first paint, so that a chosen theme does not flash. Without a choice the system's holds.
(() => {
	try {
		const theme = localStorage.getItem('tally-theme');
		if (theme) document.documentElement.dataset.theme = theme;
	} catch {} // storage is closed to this page, as in a frame
})();

// The numbers are asked for while the page and its modules are still coming.
(() => {
	const url = document.currentScript?.dataset.first;
	if (!url) return;
	const answer = fetch(url, { cache: 'no-store', headers: { 'Cache-Control': 'max-stale' } }); // see api.js
	answer.catch(() => {}); // who takes it says so
	globalThis.tallyFirst = { url, answer };
})();
