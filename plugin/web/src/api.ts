// The API below the page: its answers, and the state of asking for them.

import { useEffect, useState } from "preact/hooks";

export type Key = Record<string, string>;

export interface Cost {
  usd: string;
  usd_per_month: string | null;
  unpriced_bytes: number;
  rules: string[];
}

export interface Sum {
  bytes: number;
  packets: number;
  received_bytes?: number;
  cost: Cost;
}

export interface Row extends Sum {
  key: Key;
}

export interface Coverage {
  seconds: number;
  recorded_seconds: number;
  nodes: number;
  silent_nodes: { node: string; percent: number }[];
  unattributed_bytes: number;
  unknown_bytes: number;
}

export interface UsedRule {
  id: string;
  as_of: string;
  source: string;
  sender?: string;
  receiver?: string;
  unit?: string;
  unpriced?: string;
}

export interface PerMonth {
  bytes_per_month: number;
  usd_per_month: string;
}

export interface Comparison {
  matched_hours_of_week: number;
  before: PerMonth;
  after: PerMonth;
  is_beyond_noise: boolean | null;
  verdict: string;
}

export interface Report {
  from: string;
  to: string;
  coverage: Coverage;
  rows: Row[];
  total: Sum;
  comparison?: Comparison;
  rules?: UsedRule[];
  unpriced?: Record<string, number>;
}

export interface Sums {
  bytes: number[];
  usd: string[];
  unpriced_bytes: number[];
}

export interface Series {
  points: { from: string; seconds: number; recorded_seconds: number }[];
  omitted_points: number;
  rows: (Sums & { key: Key })[];
  total: Sums;
}

export interface Cell {
  source_zone: string;
  destination_zone: string;
  locality: string;
  bytes: number;
  packets: number;
}

export interface Zones {
  time: string | null;
  nodes: number;
  zones: { zone: string; region: string }[];
  matrix: Cell[];
  omitted_bytes: number;
}

export interface Health {
  program: string;
  version: string;
  ready: boolean;
  /** The answers of the API that this process has. */
  offers: string[];
  leader: boolean | null;
  history: { blocks: number; bytes: number; failed_writes: number; damaged_blocks: number } | null;
  agents: { connected: number; behind: number } | null;
  nodes: { node: string; age_seconds: number | null; silent: boolean; hook: string | null; hook_reason: string | null }[];
  omitted_nodes: number;
  reasons: { reason: string; counted: boolean; bytes: number; packets: number }[];
}

/** Why there is no answer. */
export class Refused extends Error {
  constructor(
    /** The status; 0 where nobody answered. */
    readonly status: number,
    message: string,
  ) {
    super(message);
  }
}

/** The state of an answer. The last one stays while the next is awaited. */
export interface Answer<T> {
  data?: T;
  error?: Refused;
  /** When the data came. */
  at?: Date;
}

/** How often answers are renewed while the page is seen. */
const RENEWED_EVERY = 30_000;
/** How long an answer may take. */
const TIMEOUT = 60_000;

const known = new Map<string, { data: unknown; at: Date }>();
const MAX_KNOWN = 40;

export function address(path: string, texts: Record<string, string | undefined> = {}): string {
  const query = new URLSearchParams();
  for (const [key, text] of Object.entries(texts)) {
    if (text !== undefined && text !== "") query.set(key, text);
  }
  const text = query.toString();
  return `api/v1/${path}${text ? `?${text}` : ""}`;
}

async function ask(url: string, signal: AbortSignal): Promise<unknown> {
  let response: Response;
  try {
    response = await fetch(url, { signal, headers: { accept: "application/json" } });
  } catch {
    throw new Refused(0, "The server does not answer.");
  }
  if (!response.ok) {
    const line = (await response.text()).split("\n", 1)[0] ?? "";
    throw new Refused(response.status, line || `status ${response.status}`);
  }
  return response.json();
}

/** What this process is, and which answers it has: nothing is asked for that it does not have. */
export function useHealth(): Answer<Health> & { has: (answer: string) => boolean } {
  const answer = useAnswer<Health>(address("health"));
  return { ...answer, has: (name) => answer.data?.offers.includes(name) ?? false };
}

/** The answer of an address, renewed as long as it is shown. */
export function useAnswer<T>(url: string | null): Answer<T> {
  const first = (): Answer<T> => {
    const before = url === null ? undefined : known.get(url);
    return before ? { data: before.data as T, at: before.at } : {};
  };
  const [answer, set] = useState<{ url: string | null; value: Answer<T> }>({ url, value: first() });
  useEffect(() => {
    if (url === null) return;
    const end = new AbortController();
    let timer = 0;
    const renew = async () => {
      if (document.hidden) {
        timer = window.setTimeout(renew, RENEWED_EVERY);
        return;
      }
      const limit = AbortSignal.any([end.signal, AbortSignal.timeout(TIMEOUT)]);
      try {
        const data = (await ask(url, limit)) as T;
        if (end.signal.aborted) return;
        if (known.size >= MAX_KNOWN) known.clear();
        const at = new Date();
        known.set(url, { data, at });
        set({ url, value: { data, at } });
      } catch (error) {
        if (end.signal.aborted) return;
        const refused = error instanceof Refused ? error : new Refused(0, "The answer can't be read.");
        set((last) => ({ url, value: { ...(last.url === url ? last.value : first()), error: refused } }));
      }
      timer = window.setTimeout(renew, RENEWED_EVERY);
    };
    void renew();
    return () => {
      end.abort();
      window.clearTimeout(timer);
    };
  }, [url]);
  return answer.url === url ? answer.value : first();
}
