// The reliability of the numbers: recorded time, silent nodes, unattributed bytes, prices.

import { address, type Health as State, type Report, useAnswer, useHealth } from "../api";
import { Condition, Help, Name } from "../parts";
import type { State as Address } from "../state";
import { bytes, name, percent, seconds, whole } from "../text";

const NODES = 500;

function Nodes({ health, report }: { health: State; report: Report | undefined }) {
  const heard = new Map(report?.coverage.silent_nodes.map((node) => [node.node, node.percent]));
  const rows = [...health.nodes].sort((a, b) => Number(b.silent) - Number(a.silent) || (a.node < b.node ? -1 : 1));
  const more = health.omitted_nodes + Math.max(0, rows.length - NODES);
  return (
    <section>
      <h2>Nodes</h2>
      {rows.length === 0 && <p class="notice">No node has been heard of yet.</p>}
      {rows.length > 0 && (
        <div class="scroll tall" tabIndex={0} role="region" aria-label="Nodes">
          <table class="grid">
            <caption class="hidden">Nodes and the age of their counters</caption>
            <thead>
              <tr>
                <th scope="col">Node</th>
                <th scope="col">State</th>
                <th scope="col" class="number">
                  Last heard
                </th>
                <th scope="col" class="number">
                  Heard while recorded
                </th>
                <th scope="col" class="wide">
                  Hook
                </th>
              </tr>
            </thead>
            <tbody>
              {rows.slice(0, NODES).map((node) => (
                <tr key={node.node}>
                  <td>
                    <Name text={node.node} />
                  </td>
                  <td>{node.silent ? <strong class="more">silent</strong> : "current"}</td>
                  <td class="number">{node.age_seconds === null ? "never" : `${seconds(node.age_seconds)} ago`}</td>
                  <td class="number">{heard.has(node.node) ? `${heard.get(node.node)} %` : "≥ 90 %"}</td>
                  <td class="wide" title={name(node.hook_reason ?? "")}>
                    {node.hook ?? "–"}
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {more > 0 && <p class="muted">{whole(more)} further nodes are not shown.</p>}
    </section>
  );
}

function Prices({ report }: { report: Report }) {
  const rules = report.rules ?? [];
  const unpriced = Object.entries(report.unpriced ?? {});
  return (
    <section>
      <h2>
        Prices used
        <Help about="prices">
          The rules that priced the traffic of this time. Bytes are stored, never dollars: another price table prices the
          past anew. What no rule prices is unpriced, and never counted as zero.
        </Help>
      </h2>
      {rules.length === 0 && <p class="notice">No price rule applies to this time: nothing crossed zones, or nothing of it has a price.</p>}
      {rules.length > 0 && (
        <div class="scroll" tabIndex={0} role="region" aria-label="Price rules">
          <table class="grid">
            <caption class="hidden">Price rules</caption>
            <thead>
              <tr>
                <th scope="col">Rule</th>
                <th scope="col" class="number">
                  Sender
                </th>
                <th scope="col" class="number">
                  Receiver
                </th>
                <th scope="col">As of</th>
                <th scope="col" class="wide">
                  Source
                </th>
              </tr>
            </thead>
            <tbody>
              {rules.map((rule) => (
                <tr key={rule.id}>
                  <td>
                    <Name text={rule.id} />
                  </td>
                  <td class="number">{rule.unpriced ? "unpriced" : `$${rule.sender} / ${rule.unit}`}</td>
                  <td class="number">{rule.unpriced ? "unpriced" : `$${rule.receiver} / ${rule.unit}`}</td>
                  <td>
                    <Name text={rule.as_of} />
                  </td>
                  <td class="wide long">
                    <Name text={rule.unpriced ?? rule.source} />
                  </td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      )}
      {unpriced.length > 0 && (
        <>
          <h3>Without a price</h3>
          <ul class="plain">
            {unpriced.map(([reason, count]) => (
              <li key={reason}>
                {bytes(count)}: {name(reason)}
              </li>
            ))}
          </ul>
        </>
      )}
    </section>
  );
}

export function Health({ state }: { state: Address }) {
  const health = useHealth();
  const { from, to } = state;
  const of = { from, to, locality: "all", explain: "true" };
  const report = useAnswer<Report>(health.has("report") ? address("report", of) : null);
  const { data } = health;
  const coverage = report.data?.coverage;
  const silent = data?.nodes.filter((node) => node.silent).length ?? 0;
  return (
    <>
      <h1>Can the numbers be believed?</h1>
      <Condition answer={health} what="the state" />
      {data && (
        <dl class="figures">
          <div>
            <dt>Nodes</dt>
            <dd>{whole(data.nodes.length + data.omitted_nodes)}</dd>
            <dd class={silent > 0 ? "more" : "muted"}>{silent > 0 ? `${silent} silent` : "none is silent"}</dd>
          </div>
          {data.agents && (
            <div>
              <dt>
                Agents
                <Help about="agents">
                  Connected to this replica of the controller. One that is behind has not confirmed the latest zone table
                  and counts by an earlier one.
                </Help>
              </dt>
              <dd>{whole(data.agents.connected)}</dd>
              <dd class={data.agents.behind > 0 ? "more" : "muted"}>
                {data.agents.behind > 0 ? `${data.agents.behind} behind` : "none is behind"}
              </dd>
            </div>
          )}
          {coverage && (
            <div>
              <dt>Recorded</dt>
              <dd>{seconds(coverage.recorded_seconds)}</dd>
              <dd class="muted">
                {percent(coverage.recorded_seconds, coverage.seconds)} of {seconds(coverage.seconds)}
              </dd>
            </div>
          )}
          {coverage && (
            <div>
              <dt>
                Unattributed
                <Help about="unattributed bytes">
                  Counted in full, by zone, but without a workload: the flow map was full, or the workload is beyond the
                  limits of the history.
                </Help>
              </dt>
              <dd>{bytes(coverage.unattributed_bytes)}</dd>
              <dd class="muted">and {bytes(coverage.unknown_bytes)} of unknown places</dd>
            </div>
          )}
          <div>
            <dt>History</dt>
            <dd>{data.history ? `${data.history.blocks} blocks` : "none"}</dd>
            <dd class={data.history && data.history.failed_writes + data.history.damaged_blocks > 0 ? "more" : "muted"}>
              {data.history
                ? `${bytes(data.history.bytes)} on disk; ${data.history.failed_writes} failed writes, ${data.history.damaged_blocks} damaged`
                : "start with --history-dir"}
            </dd>
          </div>
        </dl>
      )}
      {data && (
        <p class="muted">
          Meridian {name(data.version)}, {data.program}
          {data.leader === null ? "" : data.leader ? ", the leader" : ", a standby replica"}
          {data.ready ? "" : ", starting"}
        </p>
      )}
      {data && <Nodes health={data} report={report.data} />}
      {health.has("report") && <Condition answer={report} what="the report" />}
      {report.data && <Prices report={report.data} />}
      {data && data.reasons.length > 0 && (
        <section>
          <h2>
            Left out, or counted with a caveat
            <Help about="reasons">
              Packets that the programs saw besides those in the sums, and bytes in the sums about which something is to
              be known, since the programs were loaded. The names are those of the metrics.
            </Help>
          </h2>
          <div class="scroll" tabIndex={0} role="region" aria-label="Reasons">
            <table class="grid">
              <caption class="hidden">Bytes by reason</caption>
              <thead>
                <tr>
                  <th scope="col">Reason</th>
                  <th scope="col">In the sums</th>
                  <th scope="col" class="number">
                    Bytes
                  </th>
                  <th scope="col" class="number">
                    Packets
                  </th>
                </tr>
              </thead>
              <tbody>
                {data.reasons.map((reason) => (
                  <tr key={reason.reason}>
                    <td>{name(reason.reason).replace(/_/g, " ")}</td>
                    <td>{reason.counted ? "yes" : "no"}</td>
                    <td class="number">{bytes(reason.bytes)}</td>
                    <td class="number">{whole(reason.packets)}</td>
                  </tr>
                ))}
              </tbody>
            </table>
          </div>
        </section>
      )}
    </>
  );
}
