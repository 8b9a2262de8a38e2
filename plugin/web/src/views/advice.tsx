// Findings with their evidence, and a patch to copy.

import { useState } from "preact/hooks";
import { address, useAnswer, useHealth } from "../api";
import { Condition } from "../parts";
import { bytes, dollars, name, seconds } from "../text";
import { AnyService, WhatIf } from "./whatif";

/** A finding, as far as this page shows it: every field may be missing. */
export interface Finding {
  id?: string;
  rule?: string;
  action?: string;
  subject?: unknown;
  saving_usd_per_month?: string | null;
  bytes_per_month?: number;
  evidence?: unknown;
  risk?: unknown;
  patch?: unknown;
  confidence?: unknown;
  state?: unknown;
}

export interface Findings {
  findings?: Finding[];
  recorded_seconds?: number;
  needed_seconds?: number;
}

/** Any value as text. */
function text(value: unknown): string {
  if (value === null || value === undefined) return "";
  if (typeof value === "string") return name(value);
  if (typeof value === "number" || typeof value === "boolean") return String(value);
  if (Array.isArray(value)) return value.map(text).filter(Boolean).join("; ");
  return Object.entries(value)
    .map(([key, part]) => [name(key).replace(/_/g, " "), text(part)])
    .filter(([, part]) => part)
    .map(([key, part]) => `${key}: ${part}`)
    .join(", ");
}

/** A patch as the command to run, or the text to set. Several lines stay several lines. */
function lines(patch: unknown): string {
  const { command, configuration_of: of, text: part } = (patch ?? {}) as Record<string, unknown>;
  if (typeof command === "string") return command.split("\n").map(name).join("\n");
  if (typeof part === "string") return [`# in the configuration of ${text(of)}`, ...part.split("\n").map(name)].join("\n");
  return typeof patch === "string" ? patch.split("\n").map(name).join("\n") : JSON.stringify(patch, null, 2);
}

/** The service that a finding is about, and the preference that its patch sets. */
function change(finding: Finding): { service: string; preference?: string } | null {
  const [, service] = /^Service ([a-z0-9.-]+\/[a-z0-9.-]+)$/.exec(text(finding.subject)) ?? [];
  if (service === undefined) return null;
  const { body } = (finding.patch ?? {}) as { body?: { spec?: { trafficDistribution?: unknown } } };
  const value = body?.spec?.trafficDistribution;
  return { service, preference: typeof value === "string" ? value : undefined };
}

export function headline(finding: Finding): string {
  return [text(finding.rule), text(finding.subject)].filter(Boolean).join(": ");
}

function Patch({ patch }: { patch: unknown }) {
  const [isCopied, set] = useState(false);
  const shown = lines(patch);
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(shown);
      set(true);
    } catch {
      // The text can be marked by hand.
      set(false);
    }
  };
  return (
    <details>
      <summary>Patch</summary>
      <pre tabIndex={0}>{shown}</pre>
      <button type="button" class="button" onClick={copy}>
        {isCopied ? "Copied" : "Copy"}
      </button>
    </details>
  );
}

export function Advice() {
  const health = useHealth();
  const isMissing = health.data !== undefined && !health.has("advice");
  const [isEarly, setEarly] = useState(false);
  const url = address("advice", isEarly ? { "min-data": "0s", floor: "0" } : {});
  const answer = useAnswer<Findings>(health.has("advice") ? url : null);
  const findings = answer.data?.findings ?? [];
  const { recorded_seconds: recorded = 0, needed_seconds: needed = 0 } = answer.data ?? {};
  return (
    <>
      <h1>What to change</h1>
      {(health.data === undefined || health.error) && <Condition answer={health} what="the state" />}
      {isMissing && (
        <p class="notice" role="status">
          This server gives no advice: it has no history, or no objects of a cluster to advise on.
        </p>
      )}
      {health.has("advice") && <Condition answer={answer} what="the advice" />}
      {answer.data && recorded < needed && (
        <p class="notice" role="status">
          {`Advice needs ${seconds(needed)} of history, and ${seconds(recorded)} are recorded. `}
          <button type="button" class="button" onClick={() => setEarly(true)}>
            Show it all the same
          </button>
        </p>
      )}
      {answer.data && recorded >= needed && findings.length === 0 && (
        <p class="notice">There is nothing to advise for this time.</p>
      )}
      {findings.map((finding, at) => (
        <article class="finding" key={finding.id ?? at}>
          <header>
            <h2>{headline(finding)}</h2>
            <p class="much">
              {finding.saving_usd_per_month ? `${dollars(Number(finding.saving_usd_per_month))} a month` : "no price"}
            </p>
          </header>
          {text(finding.action) && <p>{text(finding.action)}</p>}
          <dl>
            {finding.bytes_per_month !== undefined && (
              <div>
                <dt>Bytes a month</dt>
                <dd>{bytes(finding.bytes_per_month)}</dd>
              </div>
            )}
            {(["evidence", "risk", "confidence", "state"] as const).map(
              (part) =>
                text(finding[part]) && (
                  <div key={part}>
                    <dt>{part}</dt>
                    <dd>{text(finding[part])}</dd>
                  </div>
                ),
            )}
          </dl>
          {finding.patch ? <Patch patch={finding.patch} /> : null}
          {change(finding) && <WhatIf {...change(finding)!} />}
        </article>
      ))}
      {answer.data && <AnyService />}
    </>
  );
}
