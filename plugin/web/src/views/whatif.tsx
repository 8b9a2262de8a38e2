// The past traffic of a service as it would have been with a preference, or with other endpoints.

import { useEffect, useState } from "preact/hooks";
import { address, useAnswer } from "../api";
import { Condition, Help, Name } from "../parts";
import { bytes, dollars, name } from "../text";

interface Monthly {
  bytes_per_month: number;
  usd_per_month: string;
  unpriced_bytes_per_month: number;
}

interface Endpoints {
  zone: string;
  endpoints_before: number;
  endpoints_after: number;
  bytes_per_month_before: number;
  bytes_per_month_after: number;
}

interface WhatIfAnswer {
  service: string;
  preference: string | null;
  ignored: string | null;
  pairs: { client_zone: string; server_zone: string; before: Monthly; after: Monthly }[];
  endpoints: Endpoints[];
  crossing: { before: Monthly; after: Monthly };
}

const PREFERENCES = ["PreferSameZone", "PreferClose", "none"];
/** Endpoints in a zone, as far as a slider goes: twice as many as there are, and some. */
const most = (now: number) => Math.max(10, 2 * now);
/** How long a slider rests before it is asked about. */
const REST = 300;

/** Money, or bytes without a price. */
function cost({ usd_per_month: usd, unpriced_bytes_per_month: unpriced }: Monthly): string {
  if (unpriced > 0 && Number(usd) === 0) return "unpriced";
  return `${dollars(Number(usd))}${unpriced > 0 ? " +" : ""}`;
}

/** The value, once it has not changed for a while. */
function useRested<T>(value: T): T {
  const [rested, set] = useState(value);
  useEffect(() => {
    const timer = window.setTimeout(() => set(value), REST);
    return () => window.clearTimeout(timer);
  }, [value]);
  return rested;
}

function Result({ answer, last }: { answer: WhatIfAnswer; last: boolean }) {
  const { before, after } = answer.crossing;
  return (
    <>
      {answer.ignored && <p class="notice">{`This cluster would ignore the preference: ${name(answer.ignored)}.`}</p>}
      <p class="outcome" role="status" aria-busy={last}>
        {"Across zones: "}
        <b>{`${cost(before)} → ${cost(after)}`}</b>
        {` a month, ${bytes(before.bytes_per_month)} → ${bytes(after.bytes_per_month)}`}
      </p>
    </>
  );
}

function Zone({ row, value, set }: { row: Endpoints; value: number; set: (value: number) => void }) {
  return (
    <label class="slider">
      <span>
        <Name text={row.zone} />
        <span class="muted">{`, ${row.endpoints_before} now`}</span>
      </span>
      <input
        type="range"
        min="0"
        max={most(row.endpoints_before)}
        value={value}
        onInput={(event) => set(Number(event.currentTarget.value))}
      />
      <output>{value}</output>
      <span class="muted">{`${bytes(row.bytes_per_month_before)} → ${bytes(row.bytes_per_month_after)} a month`}</span>
    </label>
  );
}

/** The sliders of a service, `NAMESPACE/NAME`. */
export function Sliders({ service, preference: first }: { service: string; preference?: string }) {
  const [preference, prefer] = useState(first ?? PREFERENCES[0]);
  const [wanted, want] = useState<Record<string, number>>({});
  const endpoints = Object.entries(wanted).map(([zone, number]) => `${zone}=${number}`);
  const url = useRested(address("whatif", { change: `${service}=${preference}`, endpoints: endpoints.join(",") }));
  const answer = useAnswer<WhatIfAnswer>(url);
  // The last answer stays while the next is computed, so that the sliders do not go away below the finger.
  const [shown, show] = useState<WhatIfAnswer>();
  useEffect(() => {
    if (answer.data) show(answer.data);
  }, [answer.data]);
  const zones = new Map((shown?.endpoints ?? []).map((row) => [row.zone, row]));
  for (const zone of shown?.pairs.map((pair) => pair.client_zone) ?? []) {
    if (!zones.has(zone) && zone !== "unknown" && zone !== "internet") {
      zones.set(zone, { zone, endpoints_before: 0, endpoints_after: 0, bytes_per_month_before: 0, bytes_per_month_after: 0 });
    }
  }
  return (
    <div class="whatif">
      <label>
        {"Preference "}
        <select value={preference} onChange={(event) => prefer(event.currentTarget.value)}>
          {[...new Set([first, ...PREFERENCES])].map((one) => one && <option key={one}>{one}</option>)}
        </select>
      </label>
      <Help about="these sliders">
        Ready endpoints in each zone. The result is the traffic of the last seven days, as it would have been with them;
        nothing is changed in the cluster.
      </Help>
      {(answer.error || !shown) && <Condition answer={answer} what="the result" />}
      {shown && <Result answer={shown} last={answer.data !== shown} />}
      {[...zones.values()].map((row) => (
        <Zone
          key={row.zone}
          row={row}
          value={wanted[row.zone] ?? row.endpoints_before}
          set={(value) => want({ ...wanted, [row.zone]: value })}
        />
      ))}
    </div>
  );
}

/** Sliders that are asked for when they are opened. */
export function WhatIf({ service, preference }: { service: string; preference?: string }) {
  const [isOpen, open] = useState(false);
  return (
    <details onToggle={(event) => open(event.currentTarget.open)}>
      <summary>What if</summary>
      {isOpen && <Sliders service={service} preference={preference} />}
    </details>
  );
}

/** Sliders of any service. */
export function AnyService() {
  const [service, set] = useState("");
  const submit = (event: Event) => {
    event.preventDefault();
    set(String(new FormData(event.currentTarget as HTMLFormElement).get("service") ?? "").trim());
  };
  return (
    <section class="finding">
      <h2>What if</h2>
      <form onSubmit={submit} class="whatif">
        <label>
          {"Service "}
          <input name="service" placeholder="namespace/name" pattern="[a-z0-9.\-]+/[a-z0-9.\-]+" required />
        </label>
        <button type="submit" class="button">
          Show
        </button>
      </form>
      {service && <Sliders key={service} service={service} />}
    </section>
  );
}
