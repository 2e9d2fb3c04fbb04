// Every operation of the API once, as a user of the TypeScript client calls it. Prints what was asked for.
import assert from 'node:assert/strict';
import { ProblemError, Tally } from './js/tally-client.js';

const [url, secret] = process.argv.slice(2);
const asked = new Set<string>();
const tokens = new Tally({ url, fetch: recorded });
const token = await tokens.createToken({ grant_type: 'client_credentials', client_id: 'sdk', client_secret: secret });
const api = new Tally({ url, token: () => token.access_token, fetch: recorded });

function recorded(address: string | URL | Request, options?: RequestInit) {
	asked.add(`${options?.method ?? 'GET'} ${new URL(`${address}`).pathname}`);
	return fetch(address, options);
}

async function all<T>(source: AsyncIterable<T>): Promise<T[]> {
	const found: T[] = [];
	for await (const each of source) found.push(each);
	return found;
}

async function first<T>(source: AsyncGenerator<T, void, void>): Promise<T> {
	for await (const each of source) return each;
	throw new Error('nothing came');
}

const SQL = `SELECT day, 9007199254740993 AS whole, 0.12345678901234567890 AS part, 0.5::float8 AS half,
	NULL::text AS nothing FROM days WHERE day BETWEEN '2025-06-01' AND '2025-06-30' ORDER BY day`;

async function metrics(): Promise<string> {
	const { id } = await api.createMetric({ sql: SQL, title: 'Tour' });
	assert((await all(api.iterMetrics({ limit: 1 }))).some((each) => each.id === id));
	assert((await api.listMetrics({ limit: 500 })).items.some((each) => each.id === id));
	const result = await api.getMetricResult(id, { start_date: '2025-06-29' });
	const exact = { day: '2025-06-29', whole: 9007199254740993n, part: '0.12345678901234567890', half: 0.5, nothing: null };
	assert.deepEqual(result.records[0], exact);
	assert.equal((await api.exportMetric(id, { format: 'ndjson', start_date: '2025-06-30' })).split('\n').length, 2);
	assert((await api.exportMetric(id, { parameters: { start_date: '2025-06-30' } })).includes('0.12345678901234567890'));
	assert.equal((await api.getMetricDefinition(id)).window.mode, 'auto');
	const shown = await api.previewMetric({ sql: 'SELECT 1e20::numeric AS huge, 1.5::numeric AS small' });
	assert.deepEqual(shown.records, [{ huge: 100000000000000000000n, small: 1.5 }]);
	const missing = crypto.randomUUID();
	const batch = await api.getMetricResults({ metrics: [{ id, parameters: { start_date: '2025-06-30' } }, { id: missing, parameters: {} }] });
	assert.deepEqual(batch.results.map(({ status, problem }) => [status, problem?.code]), [[200, undefined], [404, 'not-found']]);
	assert.equal(batch.results[0]?.result?.records[0]?.whole, 9007199254740993n);
	assert.match((await api.draftMetric({ prompt: 'number of customers by type' })).sql, /select/i);
	const { etag } = await api.request('GET', `/api/v1/metrics/${id}/definition`);
	const changed = await api.changeMetric(id, { title: 'Toured' }, { if_match: etag ?? '*' });
	assert.equal(changed.title, 'Toured');
	assert.deepEqual((await api.listMetricVersions(id)).items.map(({ version }) => version), [2, 1]);
	assert.equal((await api.restoreMetricVersion(id, 1)).title, 'Tour');
	const history = await api.getMetricHistory(id, { limit: 1 });
	assert.equal(history.title, 'Tour');
	assert.equal((await all(api.iterMetricHistory(id))).at(0)?.id, history.items.at(0)?.id);
	return id;
}

async function dashboards(id: string) {
	const made = await api.createDashboard({ title: 'A tour', id: `js-${id.slice(0, 8)}` });
	const view = await api.putDashboardLayouts(made.id, { lg: [{ i: id, x: 0, y: 0, w: 4, h: 4 }] });
	assert.equal(view.layouts.lg?.[0]?.w, 4);
	assert.equal((await api.changeTile(made.id, id, { chart: 'bar' })).items[0]?.chart, 'bar');
	assert.equal((await api.renameDashboard(made.id, { title: 'The tour' })).title, 'The tour');
	assert.equal((await api.getDashboard(made.id)).title, 'The tour');
	assert((await api.listDashboards()).items.some((each) => each.id === made.id));
	assert((await all(api.iterDashboards({ limit: 1 }))).some((each) => each.id === made.id));
	const { results } = await api.getDashboardData(made.id, { parameters: { start_date: '2025-06-29' } });
	assert.equal(results[0]?.result?.row_count, 2);
	const link = await api.createLink(made.id, { parameters: { day_range: 3 }, expires_in: 60 });
	assert.deepEqual((await api.listLinks(made.id)).items.map((each) => each.id), [link.id]);
	assert.equal((await all(api.iterLinks(made.id))).length, 1);
	await api.revokeLink(made.id, link.id);
	assert.match(await api.getDashboardOpenmetrics(made.id), /^# HELP tally_result_info/);
	const event = await first(api.watchDashboard(made.id));
	assert.deepEqual([event.event, event.result?.id], ['result', id]);
	await api.deleteDashboard(made.id);
}

async function imports(id: string) {
	assert((await api.listDatasets()).items.some(({ name }) => name === 'customers'));
	assert('$defs' in (await api.getDataset('customers')));
	const file = new Blob(['customer_id,occupation,type\n1,Cook,B2B\n2,Clerk,B2C\nthree,Baker,B2B\nfour,Smith,B2C\n']);
	const name = `js-${id.slice(0, 8)}.csv`;
	assert.equal((await api.importFile('customers', file, { name, dry_run: true })).status, 'dry-run');
	const report = await api.importFile('customers', file, { name });
	assert.deepEqual([report.source, report.rows_read, report.reasons], [name, 4, { 'wrong-type': 2 }]);
	assert.equal((await api.getImport(report.id ?? '')).rows_read, 4);
	assert((await api.listImports({ dataset: 'customers' })).items.some((each) => each.id === report.id));
	assert((await all(api.iterImports({ limit: 5 }))).some((each) => each.id === report.id));
	const found = (await api.listQuarantinedRows({ dataset: 'customers', status: 'open', reason: 'wrong-type' })).items;
	const [one, two] = found.filter(({ source }) => source === name).sort((a, b) => a.line - b.line);
	assert(one && two);
	assert((await all(api.iterQuarantinedRows({ limit: 1, status: 'open' }))).length >= 2);
	assert.equal((await api.getQuarantinedRow(one.id)).message, one.message);
	assert.match(await api.exportQuarantine({ dataset: 'customers' }), /^customer_id,/);
	assert.equal((await api.fixQuarantinedRow(one.id, { raw: { customer_id: 3 } })).status, 'loaded');
	assert.equal((await api.retryQuarantine({ dataset: 'customers' })).quarantined, 1);
	await api.discardQuarantinedRow(two.id);
	const added = await api.addDataset({ table: 'data.orders' });
	const rows = await api.importFile(added.name, [{ id: 9007199254740995n, price: '12345678901234567890.0123456789' }]);
	assert.equal(rows.quarantined, 0);
	const { records } = await api.previewMetric({ sql: 'SELECT id, price FROM orders WHERE id = 9007199254740995' });
	assert.deepEqual(records, [{ id: 9007199254740995n, price: '12345678901234567890.0123456789' }]);
	await api.removeDataset(added.name, { force: true });
}

async function interactions() {
	const contacts = 'date_start,interaction,customer_id\n2025-06-01 10:00,Email,1\n';
	await api.importFile('external_interactions', contacts, { name: 'contacts.csv' });
	assert.equal((await api.getCustomerInteractions(1)).data.interactions.Email, 1);
	assert.equal((await api.listCustomerInteractions({ channel: ['Email'], limit: 1 })).items[0]?.customer_id, 1);
	assert((await all(api.iterCustomerInteractions({ limit: 1 }))).length >= 2);
	assert.equal((await api.getInteractionTotals('channel')).data.Email, 1);
	assert(((await api.getStatistics()).data.customers?.rows ?? 0) >= 2);
}

async function items() {
	const { id } = await api.createItem({ title: 'First', description: 'One. Two. Three.' });
	const { etag } = await api.request('GET', `/api/v1/items/${id}`);
	assert.equal((await api.changeItem(id, { title: 'Second' }, { if_match: etag ?? '' })).title, 'Second');
	assert.equal((await api.replaceItem(id, { title: 'Third' })).title, 'Third');
	assert.equal((await api.getItem(id)).title, 'Third');
	assert((await api.listItems({ q: 'third' })).items.some((each) => each.id === id));
	assert((await all(api.iterItems({ limit: 1 }))).some((each) => each.id === id));
	assert((await api.enrichItem(id)).external_data);
	assert.equal((await api.fetchItemData(id)).external_data?.title, 'One');
	assert((await api.summariseItem(id)).generator);
	assert.equal((await api.listPosts({ limit: 1 }))[0]?.title, 'One');
	await api.deleteItem(id);
}

async function alerts(metric_id: string) {
	const rule = { metric_id, column: 'half', at: 'day', kind: 'threshold', above: 0.25 } as const;
	assert.equal((await api.previewAlertRule(rule)).points, 30);
	const { id } = await api.createAlertRule({ ...rule, name: 'High' });
	assert.equal((await api.getAlertRule(id)).name, 'High');
	assert.equal((await api.changeAlertRule(id, { name: 'Higher' })).name, 'Higher');
	assert.equal((await api.listAlertRules({ metric_id })).items.length, 1);
	assert.equal((await all(api.iterAlertRules({ metric_id, limit: 1 }))).length, 1);
	assert.equal((await api.getAlertBands(id)).column, 'half');
	let [alert] = await all(api.iterAlerts({ rule_id: id, limit: 1 }));
	for (; !alert; [alert] = await all(api.iterAlerts({ rule_id: id }))) await new Promise((done) => setTimeout(done, 20));
	assert((await api.listAlerts({ state: [alert.state] })).items.length);
	assert.equal((await api.getAlert(alert.id)).value, 0.5);
	assert((await api.acknowledgeAlert(alert.id)).acknowledged_by);
	assert.deepEqual([...(await all(api.iterAlertDeliveries())), ...(await api.listAlertDeliveries({ status: 'dead' })).items], []);
	const refused = api.replayAlertDelivery(crypto.randomUUID());
	await assert.rejects(refused, (error) => error instanceof ProblemError && error.code === 'not-found' && !!error.remedy);
	await api.deleteAlertRule(id);
}

async function around(id: string) {
	const params = { protocolVersion: '2025-06-18', capabilities: {}, clientInfo: { name: 'tour', version: '1' } };
	assert('result' in (await api.callMcp({ jsonrpc: '2.0', id: 1, method: 'initialize', params })));
	assert.equal((await api.createTicket()).expires_in, 60);
	assert.equal((await first(api.watchMetric(id, { start_date: '2025-06-30' }))).result?.records[0]?.whole, 9007199254740993n);
	assert.equal((await first(api.watchMetrics([id], { parameters: { start_date: '2025-06-29' } }))).result?.row_count, 2);
	assert.equal((await api.getLiveness()).status, 'ok');
	assert.equal((await api.getReadiness()).checks.database, 'ok');
	assert('migrations' in (await api.getHealth()).checks);
	assert('keys' in (await api.getJwks()));
	assert.match(`${(await api.getOpenidConfiguration()).token_endpoint}`, /\/oauth2\/token$/);
	assert((await all(api.iterAudit({ limit: 50 }))).some(({ action }) => action === 'metrics.create'));
	assert.equal((await api.listAudit({ limit: 1 })).items[0]?.actor, 'sdk');
}

const id = await metrics();
await dashboards(id);
await imports(id);
await interactions();
await items();
await alerts(id);
await around(id);
await api.deleteMetric(id);
console.log(JSON.stringify([...asked]));
