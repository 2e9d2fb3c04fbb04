// What `test_troubles.py` asks of the Python client, asked of this one.
import assert from 'node:assert/strict';
import { parse, ProblemError, stringify, Tally, UnexpectedAnswerError, UnreachableError } from './js/tally-client.js';

const [server = ''] = process.argv.slice(2);
const ID = 'c797b618-df12-45f7-bbb2-cc6695a48e46';
const at = (scenario: string, more = {}) => new Tally({ url: `${server}/${scenario}`, ...more });
const isProblem = (code: string) => (error: Error) => error instanceof ProblemError && error.code === code;
const isUnexpected = (form: RegExp) => (error: Error) => error instanceof UnexpectedAnswerError && form.test(error.message);

async function all<T>(source: AsyncIterable<T>): Promise<T[]> {
	const found: T[] = [];
	for await (const each of source) found.push(each);
	return found;
}

// Not now is asked again when the service says, and only what changes nothing more.
assert.equal((await at('busy').getHealth()).status, 'ok');
assert.equal((await at('dated').getHealth()).status, 'ok');
await assert.rejects(at('long').getMetricDefinition(ID), (error) => error instanceof ProblemError && error.retryAfter === 3600);
const always = at('always', { retries: 2 });
await assert.rejects(always.getItem(1), isProblem('busy'));
await assert.rejects(always.replaceItem(1, { title: 'x' }), isProblem('busy'));
await assert.rejects(always.getMetricResults({ metrics: [] }), isProblem('busy'));
await assert.rejects(at('always', { retries: undefined }).getItem(1), isProblem('busy'));
await assert.rejects(always.createItem({ title: 'x' }), isProblem('busy'));

// The network, and those who are not Tally.
const early = at('cut').createItem({ title: 'x' });
await assert.rejects(early, (error) => error instanceof UnreachableError && /nobody answers/.test(error.message));
assert.equal((await at('cut').getHealth()).status, 'ok');
assert.equal((await at('cut').getHealth()).status, 'ok');
await assert.rejects(at('html').getHealth(), isUnexpected(/text\/html.*is the address right/s));
await assert.rejects(at('proxy').getHealth(), isUnexpected(/502.*Bad gateway/s));
await assert.rejects(at('moved').getHealth(), isUnexpected(/redirect/));
await assert.rejects(at('broken').getHealth(), isUnexpected(/no JSON/));
await assert.rejects(at('forgetful').getHealth(), isUnexpected(/304/));
const nobody = new Tally({ url: 'http://127.0.0.1:1/api/v1', retries: 0 }).getHealth();
await assert.rejects(nobody, (error) => /127.0.0.1:1\/api\/v1\/health \(.*does the service run/.test(error.message));
for (const url of ['127.0.0.1:8000', 'ftp://x', '', 'http://', 'http://u:p@x', 'http://x:99999'])
	assert.throws(() => new Tally({ url }), (error) => /address/.test(error.message));
for (const token of ['two\nlines', 'späce', 'a b'])
	await assert.rejects(at('held', { token }).getHealth(), (error) => /visible ASCII/.test(error.message));
for (const id of ['', '.', '..', undefined, null] as string[])
	await assert.rejects(at('held').getItem(id), (error) => /must name something/.test(error.message));
await assert.rejects(at('held').listItems({ lmit: 1 } as object), (error) => /takes no lmit/.test(error.message));
await assert.rejects(at('held').importFile('customers', 'x', { name: 'x.txt' }), (error) => /\.csv/.test(error.message));
const ended = AbortSignal.abort(new Error('enough'));
await assert.rejects(at('held').getHealth({ signal: ended }), (error) => error.message === 'enough');

// Unchanged answers come from memory, but not those of somebody else.
const tokens = ['ana', 'ana', 'bob'];
const held = at('held', { token: () => tokens.shift() ?? '' });
const seen = [];
for (const path of Array(3).fill('/api/v1/health')) seen.push((await held.request('GET', path)).held);
assert.deepEqual(seen, [false, true, false]);
const small = at('held', { cacheBytes: 100 });
const kept = [];
for (const path of ['/a', '/b', '/a', '/a']) kept.push((await small.request('GET', path)).held);
assert.deepEqual(kept, [false, false, false, true]);
const cased = at('held');
const forms = [];
for (const [method, headers] of [['get', {}], ['GET', {}], ['GET', { accept: 'text/csv' }], ['GET', new Headers({ ACCEPT: 'text/csv' })]] as const)
	forms.push((await cased.request(method, '/a', { headers })).held);
assert.deepEqual(forms, [false, true, false, true]);
const secret = at('private');
assert.deepEqual([(await secret.request('GET', '/a')).held, (await secret.request('GET', '/a')).held], [false, false]);

// A lost stream is opened again where it was; one without rights or metric ends.
const events = await all(at('live').watchMetric(ID, { day_range: 3 }));
assert.deepEqual(events.map(({ event }) => event), ['result', 'stale', 'alert', 'gone']);
assert.deepEqual([events[0]?.result?.records, events[2]?.data], [[{ n: 1 }], { open: 2 }]);
const renewed = ['ana', 'bob', 'bob'];
const after = await all(at('renewed', { token: () => renewed.shift() ?? '' }).watchMetric(ID));
assert.deepEqual(after.map(({ event }) => event), ['result', 'gone']);
for (const path of ['http://elsewhere.example/', '//elsewhere.example/', '@elsewhere.example/', 'x'])
	await assert.rejects(at('held').request('GET', path), (error) => /no path/.test(error.message));
await assert.rejects(all(at('denied').watchMetric(ID)), isProblem('invalid-token'));
await assert.rejects(all(at('garbled').watchMetric(ID)), isUnexpected(/no JSON/));
assert.deepEqual(await all(at('gone').watchMetric(ID)), []);
await assert.rejects(all(at('html').watchMetric(ID)), isUnexpected(/text\/html/));
delete (ReadableStream.prototype as Partial<ReadableStream>)[Symbol.asyncIterator]; // as in Safari
assert.deepEqual((await all(at('renewed').watchMetric(ID))).map(({ event }) => event), ['gone']);

// Numbers keep every digit.
const long = '9'.repeat(131072);
const numbers: [string, unknown][] = [
	['9007199254740991', 9007199254740991],
	['9007199254740993', 9007199254740993n],
	['-9007199254740993', -9007199254740993n],
	['0.1', 0.1],
	['1.10', 1.1],
	['0.1234567890123456789', '0.1234567890123456789'],
	['1e400', '1e400'],
	['1e-400', '1e-400'],
	['1E3', 1000],
	['-0', -0],
	['0.00000000000000000000', 0],
	[`1${'0'.repeat(100000)}.5`, `1${'0'.repeat(100000)}.5`],
	[long, BigInt(long)],
];
for (const [text, value] of numbers) {
	assert.deepEqual(parse(text), value);
	assert.deepEqual(parse(`{"a":[${text}],"b\\"${text}":"${text}"}`), { a: [value], [`b"${text}`]: text });
}
assert.deepEqual(parse('{"__proto__":12345678901234567890,"a":"\\\\","b":"\\u0000"}'), JSON.parse('{"__proto__":1,"a":"\\\\","b":"\\u0000"}', (name, value) => (name === '__proto__' ? 12345678901234567890n : value)));
assert.throws(() => parse('{"a": 12345678901234567890'), (error) => error instanceof SyntaxError);
assert.throws(() => parse('"a'), (error) => error instanceof SyntaxError);
assert.equal(stringify({ a: 12345678901234567890n, b: 'x"y', c: [1n] }), '{"a":12345678901234567890,"b":"x\\"y","c":[1]}');
console.log('well');
