// What the tour uses of Node, whose own types are no dependency of ours.
declare module 'node:assert/strict' {
	function assert(value: unknown, message?: string): asserts value;
	namespace assert {
		function equal(actual: unknown, expected: unknown): void;
		function deepEqual(actual: unknown, expected: unknown): void;
		function match(text: string, form: RegExp): void;
		function rejects(promise: Promise<unknown>, wanted?: (error: Error) => boolean): Promise<void>;
		function throws(call: () => unknown, wanted?: (error: Error) => boolean): void;
	}
	export default assert;
}
declare const process: { argv: string[] };
