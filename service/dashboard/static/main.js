import { Arrange } from './arrange.js';
import { Board } from './board.js';
import { showActions } from './boards.js';
import { showComputed } from './computed.js';
import { showEdit } from './edit.js';
import { rotate } from './kiosk.js';
import { showMarks } from './marks.js';
import { page } from './page.js';
import { showShare } from './share.js';
import { showTools } from './tilemenu.js';
import { showWindow } from './windowbar.js';

/** @typedef {import('./tile.js').Tile} Tile */

const place = (/** @type {string} */ id) => /** @type {HTMLElement} */ (document.getElementById(id));

const again = () => void board.load();
const explain = (/** @type {Tile} */ tile) => void showComputed(tile, again);
const edit = (/** @type {Tile} */ tile) => void showEdit(tile, again);

const board = new Board(page.link ? null : explain);
again(); // before all else: the numbers are what the page is for
for (const tile of board.tiles.values()) showTools(tile, board, { explain, edit });
if (!page.link && !page.kiosk) showWindow(place('window'), board);
showActions(place('actions'), new Arrange(place('grid'), board.tiles));
showShare(place('actions'));
showMarks(board.tiles);
rotate();
