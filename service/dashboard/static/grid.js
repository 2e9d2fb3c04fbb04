/** Where tiles sit: react-grid-layout's places, moved up until nothing is between them. Pure. */

/** @typedef {{ i: string, x: number, y: number, w: number, h: number, static?: boolean }} Cell */
/** @typedef {{ columns: number, places: Cell[] }} Grid */
/** @typedef {'lg' | 'md' | 'sm'} Size */

export const LEAST = { w: 1, h: 2 };
export const MOST_HIGH = 60;

/** The sizes' queries, as the page's own rules have them. */
export const SIZES = /** @type {Record<Size, string>} */ ({
	lg: '(min-width: 1200px)',
	md: '(min-width: 720px) and (max-width: 1199.98px)',
	sm: '(max-width: 719.98px)'
});

/** @param {Cell} one @param {Cell} other */
const inOrder = (one, other) => one.y - other.y || one.x - other.x;

/**
 * Move each tile up until it touches another. Static ones stay, and nothing overlaps.
 * @param {Cell[]} cells in the order in which they find a place
 * @returns {Cell[]}
 */
function placed(cells) {
	const done = cells.filter((cell) => cell.static);
	for (const cell of cells) if (!cell.static) done.push({ ...cell, y: top(cell, done) });
	return done;
}

/**
 * The row that a tile gets: up from its own as far as nothing is in its way, else below what is.
 * @param {Cell} cell
 * @param {Cell[]} done
 */
function top(cell, done) {
	const column = done.filter((other) => cell.x < other.x + other.w && other.x < cell.x + cell.w);
	let y = Math.min(cell.y, Math.max(0, ...done.map((other) => other.y + other.h)));
	const hit = () => column.find((other) => other.y < y + cell.h && y < other.y + other.h);
	if (!hit()) return Math.max(0, ...column.map((other) => other.y + other.h).filter((bottom) => bottom <= y));
	for (let other = hit(); other; other = hit()) y = other.y + other.h;
	return y;
}

/**
 * @param {Cell[]} cells
 * @returns {Cell[]} in reading order; compacting them again changes nothing
 */
export function compact(cells) {
	let before = '';
	let found = cells;
	for (let turn = 0; turn < 20; turn++) {
		found = placed([...found].sort(inOrder)).sort(inOrder);
		const now = JSON.stringify(found);
		if (now === before) break;
		before = now;
	}
	return found;
}

/**
 * Move or resize a tile; those in its way make room.
 * @param {Cell[]} cells
 * @param {string} id
 * @param {{ x?: number, y?: number, w?: number, h?: number }} wanted
 * @param {number} columns
 * @returns {Cell[]}
 */
export function changed(cells, id, wanted, columns) {
	const old = cells.find((cell) => cell.i === id);
	if (!old || old.static) return cells;
	const w = clamp(wanted.w ?? old.w, LEAST.w, columns - (wanted.x === undefined ? old.x : 0));
	const h = clamp(wanted.h ?? old.h, LEAST.h, MOST_HIGH);
	const cell = { ...old, w, h, x: clamp(wanted.x ?? old.x, 0, columns - w), y: Math.max(0, wanted.y ?? old.y) };
	const others = cells.filter((each) => each !== old).sort(inOrder);
	const isBefore = (/** @type {Cell} */ other) => {
		const middle = other.y + other.h / 2;
		if (cell.y > old.y) return middle < cell.y + cell.h;
		if (cell.y < old.y) return middle < cell.y;
		return other.y + other.h <= cell.y;
	};
	const order = [...others.filter(isBefore), cell, ...others.filter((other) => !isBefore(other))];
	return compact(placed(order));
}

/**
 * Move a tile by a key: as far as it takes for the places to change.
 * @param {Cell[]} cells
 * @param {string} id
 * @param {'x' | 'y'} along
 * @param {1 | -1} by
 * @param {number} columns
 * @returns {Cell[]}
 */
export function stepped(cells, id, along, by, columns) {
	const cell = cells.find((each) => each.i === id);
	if (!cell) return cells;
	const end = Math.max(...cells.map((each) => each.y + each.h)) + 1;
	const most = along === 'x' ? columns : end;
	for (let distance = 1; distance <= most; distance++) {
		const at = cell[along] + by * distance;
		if (at < 0) return cells;
		const next = changed(cells, id, { [along]: at }, columns);
		const moved = next.find((each) => each.i === id);
		if (moved && (moved.x !== cell.x || moved.y !== cell.y)) return next;
	}
	return cells;
}

/** @param {number} value @param {number} low @param {number} high */
const clamp = (value, low, high) => Math.max(low, Math.min(high, Math.round(value)));

/**
 * The layouts to store: the changed size as it is shown, the others as they were.
 * @param {Record<string, Cell[]>} stored
 * @param {Size} size
 * @param {Cell[]} cells
 */
export function layoutsWith(stored, size, cells) {
	const own = cells.map(({ i, x, y, w, h, static: fixed }) => ({ i, x, y, w, h, static: !!fixed }));
	return { ...stored, [size]: own };
}
