// What to change: findings with their evidence, and a patch to copy.

import { useState } from "preact/hooks";
import { address, useAnswer, useHealth } from "../api";
import { Condition } from "../parts";
import { bytes, dollars, name } from "../text";

/** A finding, as far as this page shows it: every field may be missing. */
export interface Finding {
  id?: string;
  rule?: string;
  title?: string;
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

/** Several lines stay several lines. */
function lines(value: unknown): string {
  return typeof value === "string" ? value.split("\n").map(name).join("\n") : JSON.stringify(value, null, 2);
}

export function headline(finding: Finding): string {
  return [text(finding.title ?? finding.rule), text(finding.subject)].filter(Boolean).join(": ");
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
  const answer = useAnswer<Findings>(health.has("advice") ? address("advice") : null);
  const findings = answer.data?.findings ?? [];
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
      {answer.data && findings.length === 0 && <p class="notice">There is nothing to advise for this time.</p>}
      {findings.map((finding, at) => (
        <article class="finding" key={finding.id ?? at}>
          <header>
            <h2>{headline(finding)}</h2>
            <p class="much">
              {finding.saving_usd_per_month ? `${dollars(Number(finding.saving_usd_per_month))} a month` : "no price"}
            </p>
          </header>
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
        </article>
      ))}
    </>
  );
}
