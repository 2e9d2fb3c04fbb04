export interface Options {
  /** Base address of the API; `/api/v1` without one. */
  url?: string;
  /** A bearer token. A function is asked before each request, so that it can renew the token. */
  token?: string | (() => string | Promise<string>);
  /** Whose results these are: tabs share a stream if it is equal. Needed beside a token that is a function. */
  user?: string;
  /** Milliseconds between two polls of a metric that is not live; 5000. */
  poll?: number;
  /** Milliseconds without a heartbeat after which a stream counts as lost; 30000. */
  silence?: number;
  /** Shortest and longest wait before a stream is opened again, in milliseconds; [1000, 30000]. */
  retry?: [number, number];
}

export interface State {
  /** The last known answer of the API, null before there is one. */
  result: any;
  /** The same as text: numbers beyond 2^53 are exact there. */
  text: string | null;
  /** As the API gave it, or the beginning that a stream tells. */
  etag: string | null;
  /** `live`: pushed; `polling`: asked for now and then; `stale`: known to be old; `offline`: no answer now. */
  state: 'live' | 'polling' | 'stale' | 'offline';
  /** When this state began, in milliseconds since 1970. */
  since: number;
  /** Why there is no answer: problem+json of the API, or status 0 where nobody answered. */
  error: { status: number; code?: string; detail?: string } | null;
}

export function tallyLive(options?: Options): {
  /**
   * Calls `listener` with each new state of a metric until the returned function is called. Whoever holds a
   * result gives its `etag`: the same is not sent again, and `result` and `text` are null until there is a new one.
   */
  watch(
    id: string,
    parameters: Record<string, any> | null,
    listener: (state: State) => void,
    etag?: string,
  ): () => void;
  close(): void;
};
