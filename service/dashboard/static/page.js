/**
 * What the server says about this page. `view.py` writes it, `#page-data` carries it.
 *
 * @typedef {{ i: string, x: number, y: number, w: number, h: number, static: boolean }} Place
 * @typedef {{ id: string, title: string | null, query_id: string, is_editable: boolean, chart: any }} Item
 * @typedef {object} PageData
 * @property {{ id: string, title: string }} dashboard
 * @property {{ id: string, title: string, address: string, metrics: number }[]} dashboards all of them, for tabs and rotation
 * @property {Item[]} items the metrics of this dashboard
 * @property {Record<string, Place[]>} layouts the stored places by size
 * @property {Record<string, { columns: number, places: Place[] }>} grid the places that are shown: `lg md sm`
 * @property {string} api base address of the live client and of single results
 * @property {string} data address of all results in one answer
 * @property {string[]} scopes what the caller may do, such as `metrics:write`
 * @property {string} user whose results these are
 * @property {Record<string, string>} parameters of the address: the window and others
 * @property {string} now the service's clock in its own time zone, without the zone
 * @property {boolean} kiosk
 * @property {number} rotate seconds until a kiosk shows the next dashboard; 0 for never
 * @property {boolean} link whether this is a signed link: only results, no changes
 */

/** @type {PageData} */
export const page = JSON.parse(document.getElementById('page-data')?.textContent ?? 'null');

/** @param {string} scope */
export const may = (scope) => page.scopes.includes(scope);
