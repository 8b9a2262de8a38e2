// How traffic spreads: namespaces of senders, pairs of zones, namespaces of receivers.

import { sankey, sankeyJustify, sankeyLinkHorizontal } from "d3-sankey";
import { address, type Report, type Row, useAnswer, useHealth } from "../api";
import { Condition, money, Name, NoHistory } from "../parts";
import type { State } from "../state";
import { bytes, name } from "../text";

/** Rows of their own; the others are one. */
const TOP = 15;
const [WIDTH, MARGIN] = [980, 4];

interface Spot {
  id: string;
  title: string;
}

interface Stream {
  source: string;
  target: string;
  value: number;
}

function parts(row: Row): [string, string, string] {
  if (row.key.other !== undefined) return ["other", "other pairs", "other"];
  const { source_namespace, destination_namespace, source_zone, destination_zone } = row.key;
  const none = "(no namespace)";
  return [source_namespace || none, `${source_zone} → ${destination_zone}`, destination_namespace || none];
}

function diagram(rows: Row[]) {
  const spots = new Map<string, Spot>();
  const streams = new Map<string, Stream>();
  const add = (source: string, target: string, value: number) => {
    const id = `${source}\n\n${target}`;
    const known = streams.get(id);
    if (known) known.value += value;
    else streams.set(id, { source, target, value });
  };
  for (const row of rows.filter((row) => row.bytes > 0)) {
    const ids = parts(row).map((title, column) => {
      const id = `${column}\n${title}`;
      spots.set(id, { id, title });
      return id;
    }) as [string, string, string];
    add(ids[0], ids[1], row.bytes);
    add(ids[1], ids[2], row.bytes);
  }
  const height = Math.max(220, spots.size * 30);
  const layout = sankey<Spot, Stream>()
    .nodeId((spot) => spot.id)
    .nodeAlign(sankeyJustify)
    .nodeWidth(12)
    .nodePadding(16)
    .extent([
      [MARGIN, MARGIN],
      [WIDTH - MARGIN, height - MARGIN],
    ]);
  const graph = layout({
    nodes: [...spots.values()].map((spot) => ({ ...spot })),
    links: [...streams.values()].map((stream) => ({ ...stream })),
  });
  return { graph, height };
}

function Diagram({ rows }: { rows: Row[] }) {
  const { graph, height } = diagram(rows);
  const path = sankeyLinkHorizontal();
  const title = (end: unknown) => name((end as Spot).title);
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Diagram of flows">
      <svg
        class="sankey"
        viewBox={`0 0 ${WIDTH} ${height}`}
        width={WIDTH}
        height={height}
        role="img"
        aria-label="The same as the table below"
      >
        {graph.links.map((stream, at) => (
          <path key={at} d={path(stream) ?? ""} stroke-width={Math.max(1, stream.width ?? 1)}>
            <title>{`${title(stream.source)} – ${title(stream.target)}: ${bytes(stream.value)}`}</title>
          </path>
        ))}
        {graph.nodes.map((spot) => {
          const [x0, x1, y0, y1] = [spot.x0 ?? 0, spot.x1 ?? 0, spot.y0 ?? 0, spot.y1 ?? 0];
          const isLast = x1 > WIDTH / 2 + 40;
          const text = name(spot.title);
          return (
            <g key={spot.id}>
              <rect x={x0} y={y0} width={x1 - x0} height={Math.max(1, y1 - y0)} />
              <text x={isLast ? x0 - 6 : x1 + 6} y={(y0 + y1) / 2} dy="0.35em" text-anchor={isLast ? "end" : "start"}>
                {text.length > 30 ? `${text.slice(0, 29)}…` : text} · {bytes(spot.value ?? 0)}
              </text>
            </g>
          );
        })}
      </svg>
    </div>
  );
}

export function Flows({ state }: { state: State }) {
  const { from, to, locality, charge } = state;
  const health = useHealth();
  const of = { from, to, locality, charge, by: "namespace-pair", top: String(TOP) };
  const report = useAnswer<Report>(health.has("report") ? address("report", of) : null);
  const rows = report.data?.rows ?? [];
  return (
    <>
      <h1>Namespaces across zones</h1>
      <p class="muted">
        From the sender's namespace through a pair of zones to the receiver's namespace: the {TOP} most expensive, and
        all others as one. Widths are bytes.
      </p>
      <NoHistory health={health} />
      {health.has("report") && <Condition answer={report} what="the flows" />}
      {report.data && rows.length === 0 && <p class="notice">Nothing was recorded in this time.</p>}
      {rows.length > 0 && (
        <>
          <Diagram rows={rows} />
          <div class="scroll" tabIndex={0} role="region" aria-label="Flows as a table">
            <table class="grid">
              <caption class="hidden">Flows between namespaces</caption>
              <thead>
                <tr>
                  <th scope="col">From</th>
                  <th scope="col">Zones</th>
                  <th scope="col">To</th>
                  <th scope="col" class="number">
                    Bytes
                  </th>
                  <th scope="col" class="number">
                    $ a month
                  </th>
                </tr>
              </thead>
              <tbody>
                {rows.map((row, at) => {
                  const [source, zones, destination] = parts(row);
                  return (
                    <tr key={at}>
                      <td>
                        <Name text={source} />
                      </td>
                      <td>
                        <Name text={zones} />
                      </td>
                      <td>
                        <Name text={destination} />
                      </td>
                      <td class="number">{bytes(row.bytes)}</td>
                      <td class="number">{money(row)}</td>
                    </tr>
                  );
                })}
              </tbody>
            </table>
          </div>
        </>
      )}
    </>
  );
}
