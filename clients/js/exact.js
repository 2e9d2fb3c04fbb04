/**
 * JSON whose numbers keep every digit.
 *
 * A number that JavaScript's cannot hold becomes a bigint if it is whole, else its text. All others stay numbers.
 */

const SAFE_LENGTH = 15; // so many digits a number always holds
const NUMBER = /-?\d+(?:\.\d+)?(?:[eE][+-]?\d+)?/g;

/** @param {string} text */
export function parse(text) {
	const mark = `\u0000${crypto.getRandomValues(new Uint32Array(4)).join()}:`; // no data can forge it
	const quoted = JSON.stringify(mark).slice(0, -1);
	let marked = false;
	const write = (/** @type {string} */ number) => {
		if (holds(number)) return number;
		marked = true;
		return `${quoted}${number}"`;
	};
	const parts = [];
	for (let at = 0; at < text.length; ) {
		const open = text.indexOf('"', at);
		const end = open < 0 ? text.length : open;
		parts.push(text.slice(at, end).replace(NUMBER, write));
		at = open < 0 ? end : close(text, open) + 1;
		if (open >= 0) parts.push(text.slice(open, at));
	}
	if (!marked) return JSON.parse(text);
	const revive = (/** @type {string} */ _, /** @type {any} */ value) =>
		typeof value === 'string' && value.startsWith(mark) ? exact(value.slice(mark.length)) : value;
	return JSON.parse(parts.join(''), revive);
}

/** Where the string that begins at `open` ends. @param {string} text @param {number} open */
function close(text, open) {
	for (let at = open + 1; ; at++) {
		at = text.indexOf('"', at);
		if (at < 0) return text.length;
		let slashes = 0;
		while (text[at - 1 - slashes] === '\\') slashes++;
		if (slashes % 2 === 0) return at;
	}
}

/** Whether a number of JavaScript is exactly the number of this text. @param {string} text */
function holds(text) {
	if (text.length <= SAFE_LENGTH && !/[eE]/.test(text)) return true;
	const number = Number(text);
	if (!/[.eE]/.test(text)) return Number.isSafeInteger(number);
	return Number.isFinite(number) && plain(text) === plain(String(number));
}

/** The same for all spellings of a number: its digits without outer zeros, and its exponent. @param {string} text */
function plain(text) {
	const [mantissa, exponent = '0'] = text.toLowerCase().replace('-', '').split(/e(.*)/s);
	const [whole, fraction = ''] = mantissa.split('.');
	const digits = whole + fraction;
	let [from, to] = [0, digits.length];
	while (digits[from] === '0') from++;
	if (from === to) return '0';
	while (digits[to - 1] === '0') to--;
	return `${digits.slice(from, to)}e${BigInt(exponent) - BigInt(fraction.length) + BigInt(digits.length - to)}`;
}

/** @param {string} text */
const exact = (text) => (/[.eE]/.test(text) ? text : BigInt(text));

/** JSON of a value; a bigint is a number of all its digits. @param {any} value */
export function stringify(value) {
	const mark = `\u0000${crypto.getRandomValues(new Uint32Array(4)).join()}:`;
	const replace = (/** @type {string} */ _, /** @type {any} */ part) =>
		typeof part === 'bigint' ? `${mark}${part}` : part;
	const [first, ...rest] = JSON.stringify(value, replace).split(JSON.stringify(mark).slice(0, -1));
	return [first, ...rest.map((part) => part.replace('"', ''))].join('');
}
