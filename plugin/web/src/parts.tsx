// Small parts that the views share.

import type { ComponentChildren } from "preact";
import type { Answer, Health, Key, Sum } from "./api";
import { bytes, dollars, name } from "./text";

/** Help where a number needs it. */
export function Help({ about, children }: { about: string; children: ComponentChildren }) {
  return (
    <details class="help">
      <summary aria-label={`About ${about}`}>?</summary>
      <p>{children}</p>
    </details>
  );
}

/** A name from outside, in its own direction. */
export function Name({ text, empty = "–" }: { text: string | undefined; empty?: string }) {
  return text ? <bdi title={name(text)}>{name(text)}</bdi> : <span class="muted">{empty}</span>;
}

/** Dollars a month, or that there is no price. An unpriced byte is never shown as free. */
export function money(sum: Sum): string {
  const { usd, usd_per_month, unpriced_bytes } = sum.cost;
  if (unpriced_bytes > 0 && Number(usd) === 0) return "unpriced";
  if (usd_per_month === null) return "–";
  const text = dollars(Number(usd_per_month));
  return unpriced_bytes > 0 ? `${text} +` : text;
}

/** What `money` can't say in a cell. */
export function moneyTitle(sum: Sum): string {
  const { usd, unpriced_bytes, rules } = sum.cost;
  const by = rules.length > 0 ? ` by ${rules.map(name).join(", ")}` : "";
  const rest = unpriced_bytes > 0 ? `; ${bytes(unpriced_bytes)} have no price` : "";
  return `$${usd} in this time${by}${rest}`;
}

/** Says what there is instead of data; nothing where there is data and no error. */
export function Condition<T>({ answer, what }: { answer: Answer<T>; what: string }) {
  const { data, error, at } = answer;
  if (error && error.status === 0) {
    const since = at ? ` The numbers are of ${at.toLocaleTimeString()}.` : "";
    return (
      <p class="notice bad" role="alert">
        {error.message} It is asked again every 30 seconds.{since}
      </p>
    );
  }
  if (error) {
    return (
      <p class="notice" role="status">
        {name(error.message)}
      </p>
    );
  }
  return data === undefined ? (
    <p class="notice" role="status">
      Loading {what} …
    </p>
  ) : null;
}

/** An end of a pair. */
export interface End {
  /** The name with its namespace. */
  full: string;
  /** The name alone, and what it is of. */
  lines: [string, string];
}

/** The name of an end without a workload. */
function nameless(zone: string): string {
  return zone === "unknown" || zone === "internet" ? `(${zone})` : "(unattributed)";
}

/** The two ends of a row of pairs; `null` for rows of one end. */
export function ends(key: Key): { from: End; to: End } | null {
  if (key.source_zone === undefined || key.destination_zone === undefined) return null;
  const end = (side: "source" | "destination"): End => {
    const zone = key[`${side}_zone`] ?? "";
    const namespace = key[`${side}_namespace`];
    const workload = key[`${side}_workload`];
    if (namespace === undefined) return { full: zone, lines: [zone, ""] };
    const kind = key[`${side}_kind`];
    if (workload === undefined) {
      const shown = namespace || "(no namespace)";
      return { full: shown, lines: [shown, zone] };
    }
    if (kind === "") return { full: nameless(zone), lines: [nameless(zone), zone] };
    const full = namespace ? `${namespace}/${workload}` : workload;
    return { full, lines: [workload, [zone, namespace, kind].filter(Boolean).join(" · ")] };
  };
  return { from: end("source"), to: end("destination") };
}

/** The name of a row of one end. */
export function title(key: Key): [string, string] {
  if (key.other !== undefined) return [key.other ? `${key.other} others` : "others", ""];
  const { namespace, kind, workload, service } = key;
  if (workload !== undefined) {
    if (kind === "") return ["(unattributed)", namespace ?? ""];
    return [workload, [namespace, kind].filter(Boolean).join(" · ")];
  }
  if (service !== undefined) return [service ? `${namespace}/${service}` : "(no service)", ""];
  const value = Object.values(key)[0] ?? "";
  return [value || "(none)", ""];
}

/** A name above what it is of. */
export function Two({ lines }: { lines: [string, string] }) {
  return (
    <span class="two">
      <Name text={lines[0]} />
      {lines[1] && (
        <span class="muted">
          <Name text={lines[1]} />
        </span>
      )}
    </span>
  );
}

/** Unpriced bytes, as the end of a sentence. */
export function unpriced(sum: Sum): string {
  return sum.cost.unpriced_bytes > 0 ? `; ${bytes(sum.cost.unpriced_bytes)} have no price` : "";
}

/** Says that there is no history here, or that the server does not answer. */
export function NoHistory({ health }: { health: Answer<Health> }) {
  const { data } = health;
  if (data === undefined || health.error) return <Condition answer={health} what="the state" />;
  if (data.history !== null) return null;
  return (
    <p class="notice" role="status">
      No history is kept here, so there are no sums by time and no money. A controller, and an agent without one, keeps a
      history with --history-dir; where there is a controller, this page is on its port 9981.
    </p>
  );
}

/** A small line of numbers, scaled to its largest. */
export function Sparkline({ values }: { values: number[] }) {
  if (values.length < 2) return <span class="muted">–</span>;
  const top = Math.max(...values) || 1;
  const step = 80 / (values.length - 1);
  const points = values.map((value, at) => `${(at * step).toFixed(1)},${(20 - (value / top) * 18).toFixed(1)}`);
  return (
    <svg class="spark" viewBox="0 0 80 22" width="80" height="22" aria-hidden="true">
      <polyline points={points.join(" ")} />
    </svg>
  );
}
