import { announce, icon } from './dom.js';

const THEMES = ['auto', 'light', 'dark', 'contrast'];
const NAMES = /** @type {Record<string, string>} */ ({ auto: "the system's theme", light: 'light', dark: 'dark', contrast: 'high contrast' });
const root = document.documentElement;
const button = document.getElementById('theme');

/** @param {string} theme */
function setTheme(theme) {
	if (theme === 'auto') delete root.dataset.theme;
	else root.dataset.theme = theme;
	try {
		if (theme === 'auto') localStorage.removeItem('tally-theme');
		else localStorage.setItem('tally-theme', theme);
	} catch {} // it holds until the page is left
	label();
}

function label() {
	const theme = root.dataset.theme ?? 'auto';
	button?.replaceChildren(icon(theme));
	button?.setAttribute('aria-label', `Theme: ${NAMES[theme]}`);
	button?.setAttribute('title', `Theme: ${NAMES[theme]}`);
}

if (button) {
	button.hidden = false;
	label();
	button.addEventListener('click', () => {
		const theme = THEMES[(THEMES.indexOf(root.dataset.theme ?? 'auto') + 1) % THEMES.length];
		setTheme(theme);
		announce(`Theme: ${NAMES[theme]}`);
	});
}
