// Runs before the first paint, so that a chosen theme does not flash. Without a choice the system's holds.
(() => {
	try {
		const theme = localStorage.getItem('tally-theme');
		if (theme) document.documentElement.dataset.theme = theme;
	} catch {} // storage is closed to this page, as in a frame
})();
