// Traffic between zones, its cost, and the largest pairs.

import { address, type Answer, type Report, type Row, type Series, useAnswer, useHealth, type Zones } from "../api";
import { Matrix, type Square } from "../matrix";
import { Condition, ends, Help, money, moneyTitle, Name, NoHistory } from "../parts";
import { link, type State } from "../state";
import { Trend } from "../trend";
import { bytes, dollars, moment, name, percent, seconds, whole } from "../text";
import { type Findings, headline } from "./advice";

/** Rows of pairs by pair of zones: one zone can be two sites, of a node and of a database. */
function squares(rows: Row[]): Square[] {
  return rows.map((row) => ({
    from: row.key.source_zone ?? "",
    to: row.key.destination_zone ?? "",
    locality: row.key.locality ?? "unknown",
    bytes: row.bytes,
    money: money(row),
    title: moneyTitle(row),
  }));
}

/** The same of the counters, where there is no history: bytes since the start, without money. */
function counted(zones: Zones): Square[] {
  const sums = new Map<string, Square>();
  for (const cell of zones.matrix) {
    const id = `${cell.source_zone}\n${cell.destination_zone}`;
    const sum = sums.get(id);
    if (sum) sum.bytes += cell.bytes;
    else {
      const { source_zone: from, destination_zone: to, locality } = cell;
      sums.set(id, { from, to, locality, bytes: cell.bytes, money: "", title: "since the programs were loaded" });
    }
  }
  return [...sums.values()];
}

const CROSSING = ["cross-zone", "cross-region"];

function Figures({ report }: { report: Report }) {
  const of = (localities: string[]) => report.rows.filter((row) => localities.includes(row.key.locality ?? ""));
  const sum = (rows: Row[], value: (row: Row) => number) => rows.reduce((all, row) => all + value(row), 0);
  const crossing = of(CROSSING);
  const [across, inside] = [sum(crossing, (row) => row.bytes), sum(of(["same-zone"]), (row) => row.bytes)];
  const priced = sum(crossing, (row) => Number(row.cost.usd_per_month ?? 0));
  const unpriced = sum(crossing, (row) => row.cost.unpriced_bytes);
  const { coverage } = report;
  const isRecorded = coverage.recorded_seconds > 0;
  const isUnpriced = across > 0 && unpriced === across;
  return (
    <dl class="figures">
      <div>
        <dt>
          $ a month
          <Help about="dollars a month">
            What crossed zones and regions in the time shown, at list prices or your own, projected from the{" "}
            {seconds(coverage.recorded_seconds)} that were recorded to 730 hours. Both ends' prices are in it. Bytes
            without a price are not, and are never counted as free.
          </Help>
        </dt>
        <dd id="usd-per-month">{!isRecorded ? "–" : isUnpriced ? "unpriced" : dollars(priced)}</dd>
        <dd class="muted">
          {unpriced > 0 && !isUnpriced ? `and ${bytes(unpriced)} without a price` : "between zones and regions"}
        </dd>
      </div>
      <div>
        <dt>
          Crosses zones
          <Help about="the share across zones">
            Of the bytes whose two zones are known, the share whose zones differ. Traffic within a node, to the internet
            and of unknown places is left out.
          </Help>
        </dt>
        <dd id="share">{percent(across, across + inside)}</dd>
        <dd class="muted">
          {bytes(across)} of {bytes(across + inside)}
        </dd>
      </div>
      <div>
        <dt>
          Unknown
          <Help about="unknown bytes">
            One end is a private address in no known prefix, or on a node without a zone. Unknown is never guessed to be
            the same or another zone. Name the prefix in the static table to know it.
          </Help>
        </dt>
        <dd id="unknown-bytes">{bytes(coverage.unknown_bytes)}</dd>
        <dd class="muted">{whole(coverage.unattributed_bytes)} bytes unattributed</dd>
      </div>
      <div>
        <dt>
          Recorded
          <Help about="the recorded time">
            The recorded part of the time shown. Missing time is not guessed: sums are of the
            recorded time alone.
          </Help>
        </dt>
        <dd>{seconds(coverage.recorded_seconds)}</dd>
        <dd class="muted">
          {percent(coverage.recorded_seconds, coverage.seconds)} of the time, {coverage.nodes}{" "}
          {coverage.nodes === 1 ? "node" : "nodes"}
        </dd>
      </div>
    </dl>
  );
}

function Top({ answer, state }: { answer: Answer<Report>; state: State }) {
  const rows = answer.data?.rows.filter((row) => row.key.other === undefined) ?? [];
  return (
    <section>
      <h2>Largest pairs</h2>
      <Condition answer={answer} what="pairs" />
      {answer.data && rows.length === 0 && <p class="notice">Nothing crossed zones in this time.</p>}
      {rows.length > 0 && (
        <ol class="top">
          {rows.map((row, at) => {
            const pair = ends(row.key);
            return (
              <li key={at}>
                <span class="who">
                  <Name text={pair?.from.full} /> → <Name text={pair?.to.full} />
                  <span class="muted">
                    {name(row.key.source_zone)} → {name(row.key.destination_zone)} · {bytes(row.bytes)}
                  </span>
                </span>
                <span class="much" title={moneyTitle(row)}>
                  {money(row)}
                </span>
              </li>
            );
          })}
        </ol>
      )}
      <p>
        <a href={link({ ...state, view: "explore", by: "workload-pair" })}>All pairs</a>
      </p>
    </section>
  );
}

function TopFindings({ state }: { state: State }) {
  const health = useHealth();
  const { data } = useAnswer<Findings>(health.has("advice") ? address("advice") : null);
  const findings = data?.findings ?? [];
  if (findings.length === 0) return null;
  return (
    <section>
      <h2>What to change</h2>
      <ol class="top">
        {findings.slice(0, 3).map((finding, at) => (
          <li key={at}>
            <span class="who">{headline(finding)}</span>
            <span class="much">
              {finding.saving_usd_per_month ? dollars(Number(finding.saving_usd_per_month)) : "–"}
            </span>
          </li>
        ))}
      </ol>
      <p>
        <a href={link({ ...state, view: "advice" })}>All findings</a>
      </p>
    </section>
  );
}

export function Overview({ state }: { state: State }) {
  const { from, to, charge } = state;
  const health = useHealth();
  const isKept = health.has("report");
  const isCounted = !isKept && health.has("zones");
  const report = useAnswer<Report>(isKept ? address("report", { from, to, charge, locality: "all" }) : null);
  const zones = useAnswer<Zones>(isCounted ? address("zones") : null);
  const of = { from, to, charge };
  const series = useAnswer<Series>(isKept ? address("series", { ...of, by: "zone-pair", top: "5" }) : null);
  const top = useAnswer<Report>(isKept ? address("report", { ...of, by: "workload-pair", top: "5" }) : null);
  const { data } = report;
  return (
    <>
      <h1>Traffic between zones</h1>
      <NoHistory health={health} />
      {isKept && <Condition answer={report} what="the report" />}
      {isCounted && zones.data && (
        <>
          <p class="notice">
            These are the counters of {zones.data.nodes} nodes, without money, until {moment(zones.data.time)}.
          </p>
          {zones.data.matrix.length > 0 && (
            <Matrix squares={counted(zones.data)} caption="Bytes from the zone of a row to the zone of a column" />
          )}
        </>
      )}
      {data && (
        <>
          <Figures report={data} />
          {data.rows.length === 0 ? (
            <p class="notice" role="status">
              Nothing was recorded between {moment(data.from)} and {moment(data.to)}. A new history fills within seconds
              of the first report; another time can be chosen above.
            </p>
          ) : (
            <Matrix
              squares={squares(data.rows)}
              caption={`Bytes from the zone of a row to the zone of a column, and dollars a month at this rate; ${moment(data.from)} to ${moment(data.to)}`}
            />
          )}
          <section>
            <h2>Trend</h2>
            <Condition answer={series} what="the trend" />
            {series.data && <Trend series={series.data} />}
          </section>
          <div class="columns">
            <Top answer={top} state={state} />
            <TopFindings state={state} />
          </div>
        </>
      )}
    </>
  );
}
