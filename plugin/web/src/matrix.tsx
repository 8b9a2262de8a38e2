// The zones of senders against the zones of receivers, as a table with a number in every cell.

import { bytes, name } from "./text";

/** A cell of the table. */
export interface Square {
  from: string;
  to: string;
  locality: string;
  bytes: number;
  /** The second line; empty for none. */
  money: string;
  title: string;
}

/** Steps of the colour. */
const STEPS = 8;

const WORDS: Record<string, string> = {
  "same-zone": "same zone",
  "cross-zone": "other zone",
  "cross-region": "other region",
  internet: "internet",
  unknown: "unknown",
};

/** Zones by name, then unknown and internet. */
function order(names: Iterable<string>): string[] {
  const rank = (zone: string) => (zone === "unknown" ? 2 : zone === "internet" ? 1 : 0);
  return [...new Set(names)].sort((a, b) => rank(a) - rank(b) || (a < b ? -1 : a > b ? 1 : 0));
}

export function Matrix({ squares, caption }: { squares: Square[]; caption: string }) {
  const rows = order(squares.map((square) => square.from));
  const columns = order(squares.map((square) => square.to));
  const found = new Map(squares.map((square) => [`${square.from}\n${square.to}`, square]));
  const crossing = squares.filter((square) => square.locality !== "same-zone").map((square) => square.bytes);
  const top = Math.max(1, ...crossing);
  const heat = (square: Square) => {
    if (square.locality !== "cross-zone" && square.locality !== "cross-region") return "";
    return `heat${Math.max(1, Math.ceil((square.bytes / top) * STEPS))}`;
  };
  return (
    <div class="scroll" tabIndex={0} role="region" aria-label="Traffic by zone">
      <table class="matrix">
        <caption>{caption}</caption>
        <thead>
          <tr>
            <th scope="col">
              from <span aria-hidden="true">↓</span> to <span aria-hidden="true">→</span>
            </th>
            {columns.map((zone) => (
              <th scope="col" key={zone}>
                <bdi>{name(zone)}</bdi>
              </th>
            ))}
          </tr>
        </thead>
        <tbody>
          {rows.map((from) => (
            <tr key={from}>
              <th scope="row">
                <bdi>{name(from)}</bdi>
              </th>
              {columns.map((to) => {
                const square = found.get(`${from}\n${to}`);
                if (!square) {
                  return (
                    <td key={to} class="none">
                      –
                    </td>
                  );
                }
                return (
                  <td key={to} class={`${square.locality} ${heat(square)}`} title={square.title} data-bytes={square.bytes}>
                    <span class="bytes">{bytes(square.bytes)}</span>
                    <span class="money">{square.money}</span>
                    <span class="locality">{WORDS[square.locality] ?? square.locality}</span>
                  </td>
                );
              })}
            </tr>
          ))}
        </tbody>
      </table>
    </div>
  );
}
