// A table with sorted columns. Of a long one only the rows that are seen are in the document.

import type { ComponentChildren } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";

export interface Column<T> {
  id: string;
  title: string;
  /** The value to sort by. */
  value: (row: T) => number | string;
  cell: (row: T) => ComponentChildren;
  /** Numbers are aligned at their end, and sorted from the largest. */
  isNumber?: boolean;
  /** Left out on a narrow screen. */
  isWide?: boolean;
}

/** The height of a row in the style sheet. */
const HEIGHT = 46;
/** From this many rows on, only those that are seen are made. */
const LONG = 200;
/** Rows that are made beyond the edges. */
const MARGIN = 10;

interface Props<T> {
  label: string;
  columns: Column<T>[];
  rows: T[];
  id: (row: T) => string;
  /** The column, with `-` before it for the other direction. */
  sort: string;
  onSort: (sort: string) => void;
}

export function Grid<T>({ label, columns, rows, id, sort, onSort }: Props<T>) {
  const box = useRef<HTMLDivElement>(null);
  const [seen, setSeen] = useState({ top: 0, height: 600 });
  useEffect(() => {
    const element = box.current;
    if (!element) return;
    const look = () => setSeen({ top: element.scrollTop, height: element.clientHeight });
    look();
    element.addEventListener("scroll", look, { passive: true });
    addEventListener("resize", look);
    return () => {
      element.removeEventListener("scroll", look);
      removeEventListener("resize", look);
    };
  }, []);

  const isTurned = sort.startsWith("-");
  const by = columns.find((column) => column.id === sort.replace(/^-/, "")) ?? columns.find((c) => c.isNumber);
  // Scrolling makes rows, and sorts none.
  const sorted = useMemo(() => {
    if (!by) return rows;
    const sign = (by.isNumber ? -1 : 1) * (isTurned ? -1 : 1);
    return [...rows].sort((a, b) => {
      const [x, y] = [by.value(a), by.value(b)];
      return (x < y ? -1 : x > y ? 1 : 0) * sign;
    });
  }, [rows, by?.id, isTurned]);
  const isLong = sorted.length > LONG;
  const first = isLong ? Math.max(0, Math.floor(seen.top / HEIGHT) - MARGIN) : 0;
  const last = isLong ? Math.min(sorted.length, Math.ceil((seen.top + seen.height) / HEIGHT) + MARGIN) : sorted.length;
  const space = (count: number, key: string) =>
    count > 0 ? (
      <tr key={key} class="space" aria-hidden="true">
        <td colSpan={columns.length} style={{ height: count * HEIGHT }} />
      </tr>
    ) : null;
  return (
    <div class="scroll tall" ref={box} tabIndex={0} role="region" aria-label={label}>
      <table class="grid" aria-rowcount={sorted.length + 1}>
        <caption class="hidden">{label}</caption>
        <thead>
          <tr aria-rowindex={1}>
            {columns.map((column) => {
              const isBy = column === by;
              const down = column.isNumber ? !isTurned : isTurned;
              return (
                <th
                  key={column.id}
                  scope="col"
                  class={`${column.isNumber ? "number" : ""} ${column.isWide ? "wide" : ""}`}
                  aria-sort={isBy ? (down ? "descending" : "ascending") : undefined}
                >
                  <button type="button" onClick={() => onSort(isBy && !isTurned ? `-${column.id}` : column.id)}>
                    {column.title}
                    <span aria-hidden="true">{isBy ? (down ? " ↓" : " ↑") : ""}</span>
                  </button>
                </th>
              );
            })}
          </tr>
        </thead>
        <tbody>
          {space(first, "before")}
          {sorted.slice(first, last).map((row, at) => (
            <tr key={id(row)} aria-rowindex={first + at + 2}>
              {columns.map((column) => (
                <td key={column.id} class={`${column.isNumber ? "number" : ""} ${column.isWide ? "wide" : ""}`}>
                  {column.cell(row)}
                </td>
              ))}
            </tr>
          ))}
          {space(sorted.length - last, "after")}
        </tbody>
      </table>
    </div>
  );
}
