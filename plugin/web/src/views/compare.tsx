// Two ranges beside each other: did it work?

import { address, type Key, type Report, useAnswer, useHealth } from "../api";
import { type Column, Grid } from "../grid";
import { Condition, ends, Help, NoHistory, title, Two } from "../parts";
import type { Change, State } from "../state";
import { bytes, dollars } from "../text";
import { GROUPS } from "./explore";

const ROWS = 5_000;

interface Difference {
  key: Key;
  /** Dollars a month before and after; `null` where there is no price, or nothing was recorded. */
  usd: [number | null, number | null];
  /** Bytes a month before and after. */
  bytes: [number, number];
}

/** Seconds of a month of 730 hours. */
const MONTH = 730 * 3600;

function differences(before: Report, after: Report): Difference[] {
  const found = new Map<string, Difference>();
  [before, after].forEach((report, side) => {
    const seconds = report.coverage.recorded_seconds;
    for (const row of report.rows.filter((row) => row.key.other === undefined)) {
      const id = JSON.stringify(Object.entries(row.key).sort());
      const difference = found.get(id) ?? { key: row.key, usd: [0, 0], bytes: [0, 0] };
      found.set(id, difference);
      const isUnpriced = row.cost.unpriced_bytes > 0 && Number(row.cost.usd) === 0;
      difference.usd[side] = isUnpriced || seconds === 0 ? null : Number(row.cost.usd_per_month);
      difference.bytes[side] = seconds === 0 ? 0 : (row.bytes * MONTH) / seconds;
    }
  });
  return [...found.values()];
}

const usd = (value: number | null) => (value === null ? "unpriced" : dollars(value));
const change_of = ({ usd: [before, after] }: Difference) => (before === null || after === null ? null : after - before);

function name(key: Key): string {
  const pair = ends(key);
  return pair ? `${pair.from.full} → ${pair.to.full}` : title(key)[0];
}

/** The zones of a pair whose ends are not zones. */
function zones(key: Key): string {
  return key.source_namespace === undefined ? "" : `${key.source_zone} → ${key.destination_zone}`;
}

const COLUMNS: Column<Difference>[] = [
  { id: "name", title: "Name", value: (row) => name(row.key), cell: (row) => <Two lines={[name(row.key), zones(row.key)]} /> },
  {
    id: "change",
    title: "Change of $ a month",
    isNumber: true,
    value: (row) => Math.abs(change_of(row) ?? 0),
    cell: (row) => {
      const change = change_of(row);
      if (change === null) return "unpriced";
      return <span class={change < 0 ? "less" : change > 0 ? "more" : ""}>{`${change > 0 ? "+" : ""}${dollars(change)}`}</span>;
    },
  },
  { id: "before", title: "Before", isNumber: true, isWide: true, value: (row) => row.usd[0] ?? -1, cell: (row) => usd(row.usd[0]) },
  { id: "after", title: "After", isNumber: true, isWide: true, value: (row) => row.usd[1] ?? -1, cell: (row) => usd(row.usd[1]) },
  {
    id: "bytes",
    title: "Bytes a month",
    isNumber: true,
    isWide: true,
    value: (row) => row.bytes[1],
    cell: (row) => `${bytes(Math.round(row.bytes[0]))} → ${bytes(Math.round(row.bytes[1]))}`,
  },
];

export function Compare({ state, change }: { state: State; change: Change }) {
  const { from, to, by, locality, charge, before, sort } = state;
  const [first, last] = before.split("..");
  const of = { by, locality, charge, top: String(ROWS) };
  const health = useHealth();
  const now = useAnswer<Report>(health.has("report") ? address("report", { ...of, from, to, compare: before }) : null);
  const then = useAnswer<Report>(now.data ? address("report", { ...of, from: first, to: last }) : null);
  const comparison = now.data?.comparison;
  const isBoth = now.data && then.data && now.data.coverage.recorded_seconds > 0 && then.data.coverage.recorded_seconds > 0;
  return (
    <>
      <h1>Before and after</h1>
      <form class="tools" onSubmit={(event) => event.preventDefault()}>
        <label>
          Rows are
          <select value={by} onChange={(event) => change({ by: event.currentTarget.value, sort: "" })}>
            {GROUPS.map(([value, text]) => (
              <option key={value} value={value}>
                {text}
              </option>
            ))}
          </select>
        </label>
        <label class="grow">
          Before (the time above is after)
          <input value={before} maxLength={100} onChange={(event) => change({ before: event.currentTarget.value })} />
        </label>
        <Help about="the comparison">
          A range as FROM..TO, each a time, a day or how long ago: 14d..7d. The hours of the week that both ranges have
          are compared, so that a weekend is not compared with a Monday. A change counts as more than noise beyond two
          standard deviations of the weeks before.
        </Help>
      </form>
      <NoHistory health={health} />
      {health.has("report") && <Condition answer={now} what="the comparison" />}
      {now.data && !comparison && (
        <p class="notice" role="status">
          There is nothing to compare:{" "}
          {then.data && !isBoth
            ? "one of the ranges has no recorded time."
            : "the two ranges have no recorded hour of the week in common."}
        </p>
      )}
      {comparison && (
        <p class={`notice verdict ${comparison.is_beyond_noise ? "strong" : ""}`} role="status">
          {comparison.verdict}
        </p>
      )}
      {now.data && then.data && isBoth && (
        <Grid
          label="Changes"
          columns={COLUMNS}
          rows={differences(then.data, now.data)}
          id={(row) => JSON.stringify(row.key)}
          sort={sort || "change"}
          onSort={(next) => change({ sort: next })}
        />
      )}
    </>
  );
}
