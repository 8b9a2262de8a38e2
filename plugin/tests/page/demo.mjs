// A running demo, whose traffic has ended: what it serves stays as its result says.

import { spawn } from "node:child_process";
import { once } from "node:events";

export const SITE = "http://127.0.0.1:9980/";

export class Demo {
  /** Starts a demo, and waits for its result: the kernel's counters and the wire's. */
  static async start(duration = "8s") {
    const args = ["demo", "--serve", "--still", "--duration", duration, "--output", "json"];
    const child = spawn(process.env.MERIDIAN_BINARY, args, { stdio: ["ignore", "pipe", "pipe"] });
    const demo = new Demo();
    demo.child = child;
    demo.ended = once(child, "exit");
    let log = "";
    child.stderr.on("data", (text) => {
      log = (log + text).slice(-2000);
    });
    let text = "";
    for await (const part of child.stdout.setEncoding("utf8").iterator({ destroyOnReturn: false })) {
      text += part;
      if (text.includes("\n")) break;
    }
    if (!text.includes("\n")) throw new Error(`the demo has ended: ${log}`);
    demo.result = JSON.parse(text);
    return demo;
  }

  /** Interrupts the demo, and waits for its end. Returns its exit code. */
  async end() {
    if (this.child.exitCode === null) this.child.kill("SIGINT");
    const [code] = await this.ended;
    return code;
  }

  /** Bytes on the wire by pair of zones. */
  wire() {
    const sums = new Map();
    for (const { source_zone, destination_zone, bytes } of this.result.sent) {
      const pair = `${source_zone} → ${destination_zone}`;
      sums.set(pair, (sums.get(pair) ?? 0) + bytes);
    }
    return sums;
  }
}

/** An answer of the API. */
export async function api(path) {
  const response = await fetch(`${SITE}api/v1/${path}`);
  if (!response.ok) throw new Error(`${path}: ${response.status}: ${await response.text()}`);
  return response.json();
}

/** Bytes by pair of zones of rows or cells that have both. */
export function byPair(rows, key = (row) => row) {
  const sums = new Map();
  for (const row of rows) {
    const { source_zone, destination_zone } = key(row);
    const pair = `${source_zone} → ${destination_zone}`;
    sums.set(pair, (sums.get(pair) ?? 0) + row.bytes);
  }
  return sums;
}
