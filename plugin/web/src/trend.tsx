// Dollars an hour, or bytes where nothing is priced, over time: the largest rows on top of each other.

import { useEffect, useRef } from "preact/hooks";
import uPlot from "uplot";
import type { Series } from "./api";
import { ends, title } from "./parts";
import { bytes, dollars, moment, name } from "./text";

const COLORS = ["#3b7dd8", "#e0882f", "#4a9d6e", "#b5589c", "#8a7a3d", "#8792a3"];

/** The name of a row of a series on one line. */
function label(series: Series, at: number): string {
  const key = series.rows[at]?.key ?? {};
  const pair = ends(key);
  return name(pair ? `${pair.from.full} → ${pair.to.full}` : title(key)[0]);
}

interface Layers {
  times: number[];
  /** Values an hour of each row; `null` where nothing was recorded. */
  rates: (number | null)[][];
  isMoney: boolean;
}

function layers(series: Series): Layers {
  const isMoney = series.total.usd.some((usd) => Number(usd) > 0);
  const times: number[] = [];
  const rates: (number | null)[][] = series.rows.map(() => []);
  series.points.forEach((point, at) => {
    const start = Date.parse(point.from) / 1000;
    const before = series.points[at - 1];
    // A gap is a gap: no line is drawn over hours that nobody recorded.
    if (before && Date.parse(before.from) / 1000 + before.seconds < start) {
      times.push(start - 1);
      for (const rate of rates) rate.push(null);
    }
    times.push(start);
    series.rows.forEach((row, place) => {
      const value = isMoney ? Number(row.usd[at]) : (row.bytes[at] ?? 0);
      const isSeen = point.recorded_seconds > 0;
      rates[place]?.push(isSeen ? (value * 3600) / point.recorded_seconds : null);
    });
  });
  return { times, rates, isMoney };
}

function chart(box: HTMLElement, series: Series): uPlot {
  const { times, rates, isMoney } = layers(series);
  const style = getComputedStyle(box);
  const ink = style.color;
  const line = style.getPropertyValue("--line");
  // Each layer is drawn on top of those before it: the last one first, so that the others cover it.
  const sums: (number | null)[][] = [];
  let below: (number | null)[] = times.map(() => 0);
  for (const rate of rates) {
    below = below.map((sum, at) => {
      const value = rate[at];
      return sum === null || value === null || value === undefined ? null : sum + value;
    });
    sums.push(below);
  }
  const shown = rates.map((_, place) => rates.length - 1 - place);
  const text = (value: number) => (isMoney ? dollars(value) : bytes(value));
  // In UTC, as the history has it: the day at midnight, the hour otherwise.
  const hour = (second: number) => {
    const iso = new Date(second * 1000).toISOString();
    return iso.slice(11, 16) === "00:00" ? iso.slice(5, 10) : iso.slice(11, 16);
  };
  const axis = { stroke: ink, grid: { stroke: line, width: 1 }, ticks: { stroke: line, width: 1 } };
  return new uPlot(
    {
      width: box.clientWidth,
      height: 220,
      legend: { show: false },
      cursor: { y: false },
      tzDate: (second) => uPlot.tzDate(new Date(second * 1000), "Etc/UTC"),
      scales: { y: { range: (_, __, top) => [0, top > 0 ? top * 1.05 : 1] } },
      axes: [{ ...axis, values: (_, splits) => splits.map(hour) }, { ...axis, size: 76, values: (_, splits) => splits.map(text) }],
      series: [
        {},
        ...shown.map((place) => ({
          label: label(series, place),
          stroke: COLORS[place % COLORS.length],
          fill: COLORS[place % COLORS.length],
          width: 1,
          points: { show: false },
        })),
      ],
    },
    [times, ...shown.map((place) => sums[place] ?? [])] as uPlot.AlignedData,
    box,
  );
}

export function Trend({ series }: { series: Series }) {
  const box = useRef<HTMLDivElement>(null);
  const isShown = series.points.length >= 2 && series.rows.length > 0;
  useEffect(() => {
    const element = box.current;
    if (!element || !isShown) return;
    let plot = chart(element, series);
    const draw = () => {
      plot.destroy();
      plot = chart(element, series);
    };
    const sized = () => plot.setSize({ width: element.clientWidth, height: 220 });
    const scheme = matchMedia("(prefers-color-scheme: dark)");
    scheme.addEventListener("change", draw);
    addEventListener("resize", sized);
    return () => {
      scheme.removeEventListener("change", draw);
      removeEventListener("resize", sized);
      plot.destroy();
    };
  }, [series, isShown]);
  if (!isShown) {
    const hours = series.points.length === 1 ? "one hour so far" : "no hour in this time";
    return <p class="notice">A trend needs two hours of history; there is {hours}.</p>;
  }
  const { isMoney } = layers(series);
  const values = (row: { usd: string[]; bytes: number[] }, at: number) =>
    isMoney ? dollars(Number(row.usd[at])) : bytes(row.bytes[at] ?? 0);
  return (
    <figure class="trend">
      <figcaption>
        {isMoney ? "Dollars an hour" : "Bytes an hour (nothing here has a price)"}
        <ul class="legend">
          {series.rows.map((_, at) => (
            <li key={at} class={`layer${at % COLORS.length}`}>
              {label(series, at)}
            </li>
          ))}
        </ul>
      </figcaption>
      <div ref={box} class="plot" role="img" aria-label="Chart of the table below" />
      <details>
        <summary>The same as a table</summary>
        <div class="scroll" tabIndex={0} role="region" aria-label="Trend as a table">
          <table class="grid">
            <thead>
              <tr>
                <th scope="col">From</th>
                {series.rows.map((_, at) => (
                  <th scope="col" class="number" key={at}>
                    {label(series, at)}
                  </th>
                ))}
                <th scope="col" class="number">
                  Total
                </th>
              </tr>
            </thead>
            <tbody>
              {series.points.slice(-200).map((point, at, all) => {
                const place = series.points.length - all.length + at;
                return (
                  <tr key={point.from}>
                    <th scope="row">{moment(point.from)}</th>
                    {series.rows.map((row, number) => (
                      <td class="number" key={number}>
                        {values(row, place)}
                      </td>
                    ))}
                    <td class="number">{values(series.total, place)}</td>
                  </tr>
                );
              })}
            </tbody>
          </table>
        </div>
      </details>
    </figure>
  );
}
