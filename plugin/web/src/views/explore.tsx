// Every pair or workload: sorted, filtered and grouped.

import { address, type Key, type Report, type Row, type Series, useAnswer, useHealth } from "../api";
import { type Column, Grid } from "../grid";
import { Condition, ends, Help, money, moneyTitle, Name, NoHistory, Sparkline, title, Two, unpriced } from "../parts";
import type { Change, State } from "../state";
import { bytes, percent, whole } from "../text";

/** Rows that are asked for; the others are one. */
const ROWS = 10_000;
/** Rows with a small line. */
const LINES = 20;

export const GROUPS: [string, string][] = [
  ["workload-pair", "pairs of workloads"],
  ["namespace-pair", "pairs of namespaces"],
  ["zone-pair", "pairs of zones"],
  ["workload", "workload"],
  ["namespace", "namespace"],
  ["service", "service"],
  ["node", "node"],
  ["region", "region"],
];

/** The same key in two answers. */
function id(key: Key): string {
  return JSON.stringify(Object.entries(key).sort());
}

/** Every word of the filter is in the row. */
function matches(row: Row, filter: string): boolean {
  const text = Object.values(row.key).join(" ").toLowerCase();
  return filter
    .toLowerCase()
    .split(/\s+/)
    .every((word) => text.includes(word));
}

function columns(report: Report, lines: Map<string, number[]>): Column<Row>[] {
  const isPair = report.rows.some((row) => ends(row.key));
  const isOfOneEnd = report.total.received_bytes !== undefined;
  const all = Number(report.total.cost.usd);
  const isPriced = all > 0;
  const share = (row: Row) =>
    isPriced ? percent(Number(row.cost.usd), all) : percent(row.bytes, report.total.bytes);
  const name: Column<Row>[] = isPair
    ? [
        {
          id: "from",
          title: "From",
          value: (row) => ends(row.key)?.from.lines.join(" ") ?? "\uffff",
          cell: (row) => <Two lines={ends(row.key)?.from.lines ?? title(row.key)} />,
        },
        {
          id: "to",
          title: "To",
          value: (row) => ends(row.key)?.to.lines.join(" ") ?? "\uffff",
          cell: (row) => <Two lines={ends(row.key)?.to.lines ?? ["", ""]} />,
        },
        {
          id: "locality",
          title: "Crosses",
          isWide: true,
          value: (row) => row.key.locality ?? "",
          cell: (row) => row.key.locality?.replace("cross-", "") ?? "",
        },
      ]
    : [
        {
          id: "name",
          title: "Name",
          value: (row) => title(row.key).join(" "),
          cell: (row) => <Two lines={title(row.key)} />,
        },
      ];
  const number = { isNumber: true };
  return [
    ...name,
    {
      ...number,
      id: "usd",
      title: "$ a month",
      value: (row) => Number(row.cost.usd),
      cell: (row) => (
        <span title={moneyTitle(row)} data-usd={row.cost.usd}>
          {money(row)}
        </span>
      ),
    },
    {
      ...number,
      id: "bytes",
      title: isOfOneEnd ? "Sent" : "Bytes",
      value: (row) => row.bytes,
      cell: (row) => (
        <span title={`${whole(row.bytes)} bytes`} data-bytes={row.bytes}>
          {bytes(row.bytes)}
        </span>
      ),
    },
    ...(isOfOneEnd
      ? [
          {
            ...number,
            id: "received",
            title: "Received",
            isWide: true,
            value: (row: Row) => row.received_bytes ?? 0,
            cell: (row: Row) => bytes(row.received_bytes ?? 0),
          },
        ]
      : []),
    { ...number, id: "packets", title: "Packets", isWide: true, value: (row) => row.packets, cell: (row) => whole(row.packets) },
    {
      ...number,
      id: "share",
      title: isPriced ? "Share of $" : "Share of bytes",
      isWide: true,
      value: (row) => (isPriced ? Number(row.cost.usd) : row.bytes),
      cell: share,
    },
    {
      id: "trend",
      title: "Trend",
      isWide: true,
      value: (row) => Number(row.cost.usd),
      cell: (row) => <Sparkline values={lines.get(id(row.key)) ?? []} />,
    },
  ];
}

export function Explore({ state, change }: { state: State; change: Change }) {
  const { from, to, by, locality, charge, q, sort } = state;
  const of = { from, to, by, locality, charge };
  const health = useHealth();
  const report = useAnswer<Report>(health.has("report") ? address("report", { ...of, top: String(ROWS) }) : null);
  const series = useAnswer<Series>(report.data ? address("series", { ...of, top: String(LINES) }) : null);
  const lines = new Map((series.data?.rows ?? []).map((row) => [id(row.key), row.bytes]));
  const rows = (report.data?.rows ?? []).filter((row) => q === "" || matches(row, q));
  const isLabel = by.startsWith("label:");
  const csv = address("report", { ...of, output: "csv" });
  return (
    <>
      <h1>Who talks across zones</h1>
      <form class="tools" role="search" onSubmit={(event) => event.preventDefault()}>
        <label>
          Rows are
          <select
            value={isLabel ? "label" : by}
            onChange={(event) => {
              const next = event.currentTarget.value;
              change({ by: next === "label" ? "label:app" : next, sort: "" });
            }}
          >
            {GROUPS.map(([value, text]) => (
              <option key={value} value={value}>
                {text}
              </option>
            ))}
            <option value="label">label …</option>
          </select>
        </label>
        {isLabel && (
          <label>
            Label
            <input
              value={by.slice(6)}
              maxLength={253}
              onChange={(event) => change({ by: `label:${event.currentTarget.value || "app"}` })}
            />
          </label>
        )}
        <label class="grow">
          Filter
          <input
            id="filter"
            type="search"
            value={q}
            maxLength={200}
            placeholder="words of a name, zone or locality"
            onInput={(event) => change({ q: event.currentTarget.value }, false)}
          />
        </label>
        <a class="button" href={csv}>
          CSV
        </a>
        <Help about="this table">
          Where rows are of one end, a transfer is in two of them: what the row sent is in Sent, what it received in
          Received, and each row has its own end's price. “Unattributed” are bytes that no flow entry has, or of
          workloads beyond the limits: they are in every sum.
        </Help>
      </form>
      <NoHistory health={health} />
      {health.has("report") && <Condition answer={report} what="the table" />}
      {report.data && (
        <p class="muted" role="status">
          {whole(rows.length)} of {whole(report.data.rows.length)} rows; {bytes(report.data.total.bytes)} and{" "}
          {money(report.data.total).replace(" +", "")} a month in all{unpriced(report.data.total)}
        </p>
      )}
      {report.data && rows.length === 0 && (
        <p class="notice">{q ? "No row has these words." : "Nothing was recorded in this time."}</p>
      )}
      {report.data && rows.length > 0 && (
        <Grid
          label="Rows of the report"
          columns={columns(report.data, lines)}
          rows={rows}
          id={(row) => id(row.key)}
          sort={sort}
          onSort={(next) => change({ sort: next })}
        />
      )}
    </>
  );
}
