import type { Call, Operations, Report, Result, Value } from './generated/operations.d.ts';
import type { Options as LiveOptions, tallyLive } from './tally-live.d.ts';

export type * from './generated/operations.d.ts';
export type { State } from './tally-live.d.ts';

export interface Settings {
  /** Address of the service; in a browser the page's own without one. */
  url?: string;
  /** A bearer token. A function is asked before each request, so that it can renew the token. */
  token?: string | (() => string | Promise<string>);
  /** How often a request that can be repeated is tried again after 429, 503 or none at all; 3. */
  retries?: number;
  /** Seconds of `Retry-After` that are obeyed; a longer wait is an error at once. 30. */
  longestWait?: number;
  /** Seconds to wait for an answer; 30. */
  timeout?: number;
  /** Bytes of answers that are held and asked for again by their ETag; 16 MiB, 0 for none. */
  cacheBytes?: number;
  /**
   * `exact`: a number that JavaScript's cannot hold becomes a bigint if it is whole, else its text.
   * `plain`: all are numbers, rounded where they must be.
   */
  numbers?: 'exact' | 'plain';
  fetch?: typeof globalThis.fetch;
}

export declare class TallyError extends Error {}
/** Nobody answered: a wrong address, a service that does not run, or an origin that it does not allow. */
export declare class UnreachableError extends TallyError {}
/** Somebody answered something that Tally does not: another server, or a proxy. */
export declare class UnexpectedAnswerError extends TallyError {}
/** The service refused, and says why: its problem document (RFC 9457). */
export declare class ProblemError extends TallyError {
  status: number;
  url: string;
  /** What kind of problem; `/problems/{code}` is its page. */
  code: string;
  title: string;
  detail: string;
  /** How to mend it. */
  remedy: string;
  errors: { field: string; message: string }[];
  requestId: string;
  /** Seconds to wait before asking again, if the service told. */
  retryAfter: number | null;
  document: Record<string, Value>;
}

export declare class Answer {
  status: number;
  headers: Headers;
  text: string;
  url: string;
  etag: string | null;
  /** Whether the text came from this client's memory. */
  held: boolean;
  retryAfter: number | null;
  json(): any;
}

export interface LiveEvent {
  /** `result`, `stale`, `fresh`, `alert`, `problem` or `gone`. */
  event: string;
  id: string;
  data: any;
  result?: Result;
}

export interface Period {
  start_date?: string;
  end_date?: string;
  day_range?: number;
  /** The metric's own parameters by name. */
  parameters?: Record<string, Value>;
}

export interface Watch extends Period, Call {
  last_event_id?: string;
}

export interface Tally extends Operations {}
export declare class Tally {
  constructor(settings?: Settings);
  url: string;
  /** Any request, with this client's token, memory and errors. */
  request(
    method: string,
    path: string,
    options?: { params?: Record<string, unknown>; json?: unknown; headers?: Record<string, string> | Headers } & Call,
  ): Promise<Answer>;
  /** Import a Blob or File, bytes, text or rows. `name` is the file's name; its ending tells the format. */
  importFile(
    dataset: string,
    source: Blob | Uint8Array<ArrayBuffer> | string | Record<string, unknown>[],
    options?: { name?: string; dry_run?: boolean; mirror?: boolean } & Call,
  ): Promise<Report>;
  /** A metric's result as a file. */
  exportMetric(
    id: string,
    options?: { format?: 'csv' | 'ndjson' | 'json'; excel?: boolean; bom?: 0 | 1 } & Period & Call,
  ): Promise<string>;
  /** A metric's result now and after each change, until it is deleted. A lost stream is opened again. */
  watchMetric(id: string, options?: Watch): AsyncGenerator<LiveEvent, void, void>;
  watchMetrics(ids: string[], options?: Watch): AsyncGenerator<LiveEvent, void, void>;
  watchDashboard(id: string, options?: Watch): AsyncGenerator<LiveEvent, void, void>;
  /** Live results for all tabs of a browser over one stream: `tally-live.js` with this client's address and token. */
  live(options?: LiveOptions): ReturnType<typeof tallyLive>;
}

export interface Metric<Row, Parameters> {
  id: string;
  title: string;
  get(tally: Tally, parameters?: Parameters, options?: Call): Promise<Omit<Result, 'records'> & { records: Row[] }>;
  watch(tally: Tally, parameters?: Parameters, options?: Call): AsyncGenerator<LiveEvent, void, void>;
}
/** A metric whose parameters and rows have types of their own; `python -m tally_client metrics --typescript` writes them. */
export declare function metric<Row, Parameters>(id: string, title: string): Metric<Row, Parameters>;

/** Reads JSON without rounding. */
export declare function parse(text: string): any;
/** JSON of a value; a bigint is a number of all its digits. */
export declare function stringify(value: unknown): string;
