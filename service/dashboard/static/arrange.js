import { api, sentence } from './api.js';
import { announce, el, icon } from './dom.js';
import { SIZES, changed, compact, layoutsWith, stepped } from './grid.js';
import { page } from './page.js';

/** @typedef {import('./grid.js').Cell} Cell */
/** @typedef {import('./grid.js').Size} Size */
/** @typedef {import('./tile.js').Tile} Tile */

const SAVE_MS = 700; // after the last key
const EDGE = 40; // pixels from the end of the window where a drag scrolls
const HELP = 'Drag tiles by their titles, and their corners to resize. By keyboard: arrows move, Shift and arrows resize, Escape undoes, Delete takes a tile off.';
const KEYS = /** @type {Record<string, ['x' | 'y', 1 | -1]>} */ ({ ArrowLeft: ['x', -1], ArrowRight: ['x', 1], ArrowUp: ['y', -1], ArrowDown: ['y', 1] });

/** Lets people arrange the tiles by mouse, touch and keyboard. Each change is saved. */
export class Arrange {
	on = false;
	/** @type {Cell[][]} */
	undone = [];
	/** @type {Cell[]} */
	cells = [];
	/** @type {{ tile: Tile, from: Cell[], cell: Cell, x: number, y: number, resize: boolean } | null} */
	drag = null;
	/** @type {ReturnType<typeof setTimeout> | undefined} */
	timer;
	/** @type {Promise<void>} */
	saving = Promise.resolve();

	/**
	 * @param {HTMLElement} grid
	 * @param {Map<string, Tile>} tiles
	 */
	constructor(grid, tiles) {
		this.grid = grid;
		this.tiles = tiles;
		this.layouts = /** @type {Record<string, Cell[]>} */ (page.layouts);
		this.shadow = el('div', { class: 'shadow', hidden: true });
		this.help = el('p', { class: 'notice plain', id: 'arrange-help', hidden: true }, HELP);
		grid.before(this.help);
		for (const [size, query] of Object.entries(SIZES)) {
			const media = matchMedia(query);
			if (media.matches) this.size = /** @type {Size} */ (size);
			media.addEventListener('change', ({ matches }) => matches && this.turn(/** @type {Size} */ (size)));
		}
		addEventListener('pagehide', () => this.timer && this.save({ keepalive: true }));
	}

	/** @type {Size} */
	size = 'lg';

	/** The page has another size: its own places hold. @param {Size} size */
	turn(size) {
		if (this.drag) this.drop(false);
		this.size = size;
		this.undone = [];
		this.cells = page.grid[size].places;
		this.place();
	}

	get columns() {
		return page.grid[this.size].columns;
	}

	start() {
		this.on = true;
		this.undone = [];
		this.cells = compact(page.grid[this.size].places);
		this.help.hidden = false;
		this.grid.classList.add('arranging');
		for (const tile of this.tiles.values()) this.make(tile);
	}

	stop() {
		if (this.drag) this.drop(false);
		if (this.timer) void this.save();
		this.on = false;
		this.help.hidden = true;
		this.grid.classList.remove('arranging');
		for (const { article, body, tools } of this.tiles.values()) {
			for (const name of ['tabindex', 'aria-roledescription', 'aria-describedby']) article.removeAttribute(name);
			article.querySelector('.corner')?.remove();
			article.querySelector('.taker')?.remove();
			body.inert = tools.inert = false;
			article.onpointerdown = article.onkeydown = null;
		}
		// What is read after another stands after it.
		const order = [...this.cells].sort((one, other) => one.y - other.y || one.x - other.x);
		for (const { i } of order) this.grid.append(/** @type {HTMLElement} */ (this.tiles.get(i)?.article));
	}

	/** @param {Tile} tile */
	make(tile) {
		const { article, body, tools } = tile;
		const fixed = this.cellOf(tile)?.static;
		body.inert = tools.inert = true;
		article.tabIndex = 0;
		article.setAttribute('aria-roledescription', fixed ? 'fixed tile' : 'movable tile');
		article.setAttribute('aria-describedby', this.help.id);
		const take = el('button', { type: 'button', class: 'button quiet tiny icon-only taker', 'aria-label': `Take ${tile.title} off this dashboard`, title: 'Take off', onclick: () => this.takeOff(tile) }, icon('close'));
		tools.before(take);
		article.onkeydown = (event) => this.press(tile, event);
		if (fixed) return;
		article.append(el('div', { class: 'corner', 'aria-hidden': 'true' }));
		article.onpointerdown = (event) => this.grab(tile, event);
	}

	/** @param {Tile} tile */
	cellOf = (tile) => this.cells.find(({ i }) => i === tile.id);

	/** @param {Tile} tile @param {KeyboardEvent} event */
	press(tile, event) {
		if (event.key === 'Escape') {
			event.preventDefault();
			if (this.drag) this.drop(false);
			else this.undo();
			return;
		}
		if (event.target !== tile.article) return;
		if (event.key === 'Delete') return void this.takeOff(tile);
		const key = KEYS[event.key];
		const cell = this.cellOf(tile);
		if (!key || !cell || event.ctrlKey || event.metaKey || event.altKey) return;
		event.preventDefault();
		if (cell.static) return announce(`${tile.title} is fixed.`);
		const [along, by] = key;
		const side = along === 'x' ? 'w' : 'h';
		const next = event.shiftKey ? changed(this.cells, tile.id, { [side]: cell[side] + by }, this.columns) : stepped(this.cells, tile.id, along, by, this.columns);
		this.put(next, tile);
		tile.article.scrollIntoView({ block: 'nearest' });
		clearTimeout(this.timer);
		this.timer = setTimeout(() => this.save(), SAVE_MS);
	}

	/** @param {Cell[]} next @param {Tile} tile */
	put(next, tile) {
		if (JSON.stringify(next) === JSON.stringify(this.cells)) return announce(`${tile.title} cannot go further.`);
		this.undone.push(this.cells);
		this.cells = next;
		this.place();
		this.say(tile);
	}

	/** @param {Tile} tile */
	say(tile) {
		const { x, y, w, h } = /** @type {Cell} */ (this.cellOf(tile));
		announce(`${tile.title}: column ${x + 1}, row ${y + 1}, ${w} wide, ${h} high.`);
	}

	undo() {
		const before = this.undone.pop();
		if (!before) return announce('Nothing to undo.');
		this.cells = before;
		this.place();
		announce('Undone.');
		void this.save();
	}

	/** Put the tiles where their cells are. */
	place() {
		for (const { i, x, y, w, h } of this.cells) {
			const article = this.tiles.get(i)?.article;
			if (article) article.style.gridArea = `${y + 1} / ${x + 1} / span ${h} / span ${w}`;
		}
	}

	/** Pixels of a column and a row, with their gaps. */
	unit() {
		const style = getComputedStyle(this.grid);
		const gap = parseFloat(style.columnGap) || 0;
		return { x: (this.grid.clientWidth + gap) / this.columns, y: parseFloat(style.gridAutoRows) + gap };
	}

	/** @param {Tile} tile @param {PointerEvent} event */
	grab(tile, event) {
		const target = /** @type {HTMLElement} */ (event.target);
		const cell = this.cellOf(tile);
		if (event.button || !cell || target.closest('.taker') || this.drag) return;
		if (event.pointerType === 'touch' && !target.closest('.tile-head, .corner')) return; // the finger scrolls
		const { article } = tile;
		event.preventDefault();
		article.focus({ preventScroll: true });
		article.setPointerCapture(event.pointerId);
		this.drag = { tile, from: this.cells, cell, x: event.pageX, y: event.pageY, resize: target.classList.contains('corner') };
		article.classList.add('dragged');
		this.grid.append(this.shadow);
		article.onpointermove = (moved) => this.move(moved);
		article.onpointerup = () => this.drop(true);
		article.onpointercancel = () => this.drop(false);
	}

	/** @param {PointerEvent} event */
	move(event) {
		if (!this.drag) return;
		const { tile, from, cell, resize } = this.drag;
		if (event.clientY < EDGE) scrollBy(0, -EDGE / 2);
		else if (event.clientY > innerHeight - EDGE) scrollBy(0, EDGE / 2);
		const unit = this.unit();
		const [x, y] = [event.pageX - this.drag.x, event.pageY - this.drag.y];
		const [columns, rows] = [Math.round(x / unit.x), Math.round(y / unit.y)];
		const wanted = resize ? { w: cell.w + columns, h: cell.h + rows } : { x: cell.x + columns, y: cell.y + rows };
		this.cells = changed(from, tile.id, wanted, this.columns);
		this.place();
		const at = /** @type {Cell} */ (this.cellOf(tile));
		this.shadow.hidden = false;
		this.shadow.style.gridArea = tile.article.style.gridArea;
		if (!resize) tile.article.style.translate = `${x - (at.x - cell.x) * unit.x}px ${y - (at.y - cell.y) * unit.y}px`;
	}

	/** @param {boolean} keep */
	drop(keep) {
		if (!this.drag) return;
		const { tile, from } = this.drag;
		this.drag = null;
		const { article } = tile;
		article.onpointermove = article.onpointerup = article.onpointercancel = null;
		article.classList.remove('dragged');
		article.style.translate = '';
		this.shadow.hidden = true;
		const next = this.cells;
		this.cells = from;
		if (!keep) {
			this.place();
			return announce('Undone.');
		}
		if (JSON.stringify(next) === JSON.stringify(from)) return this.place();
		this.put(next, tile);
		void this.save();
	}

	/** @param {Tile} tile */
	async takeOff(tile) {
		const kept = Object.entries(this.layouts).map(([size, places]) => [size, places.filter(({ i }) => i !== tile.id)]);
		this.layouts = Object.fromEntries(kept);
		this.cells = compact(this.cells.filter(({ i }) => i !== tile.id));
		this.undone = [];
		page.items = page.items.filter(({ id }) => id !== tile.id);
		this.tiles.delete(tile.id);
		tile.chart.destroy();
		tile.article.remove();
		this.place();
		await this.save();
		announce(`${tile.title} is off this dashboard; the metric stays.`);
	}

	/** @param {{ keepalive?: boolean }} [options] */
	save(options = {}) {
		this.timer = clearTimeout(this.timer) ?? undefined;
		this.layouts = layoutsWith(this.layouts, this.size, this.cells);
		page.grid[this.size] = { columns: this.columns, places: /** @type {any} */ (this.cells) };
		const body = this.layouts;
		// One after the other, so that the last one wins.
		this.saving = this.saving.then(async () => {
			const notice = /** @type {HTMLElement} */ (document.getElementById('notice'));
			try {
				await api(`${page.api}/dashboards/${page.dashboard.id}/layouts`, { method: 'PUT', body, ...options });
				notice.hidden = true;
				this.grid.dataset.saved = `${Number(this.grid.dataset.saved ?? 0) + 1}`;
			} catch (problem) {
				notice.textContent = `The places were not saved: ${sentence(problem)}`;
				notice.hidden = false;
			}
		});
		return this.saving;
	}
}
