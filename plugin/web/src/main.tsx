// The page: the bar, the time that is shown, and one view.

import "uplot/dist/uPlot.min.css";
import "./style.css";
import { render } from "preact";
import { useEffect, useRef, useState } from "preact/hooks";
import { useHealth } from "./api";
import { type Change, link, type State, TITLES, useAddress, VIEWS } from "./state";
import { Advice } from "./views/advice";
import { Compare } from "./views/compare";
import { Explore } from "./views/explore";
import { Flows } from "./views/flows";
import { Health } from "./views/health";
import { Overview } from "./views/overview";

const RANGES: [string, string][] = [
  ["1h", "last hour"],
  ["24h", "last day"],
  ["7d", "last 7 days"],
  ["31d", "last 31 days"],
];

const LOCALITIES: [string, string][] = [
  ["cross-zone,cross-region,unknown", "crosses zones, or may"],
  ["cross-zone", "other zone"],
  ["cross-region", "other region"],
  ["unknown", "unknown"],
  ["internet", "internet"],
  ["all", "all"],
];

function Time({ state, change }: { state: State; change: Change }) {
  const isKnown = state.to === "now" && RANGES.some(([from]) => from === state.from);
  const [isOwn, setOwn] = useState(!isKnown);
  const hasLocality = state.view === "explore" || state.view === "flows" || state.view === "compare";
  return (
    <form class="time" onSubmit={(event) => event.preventDefault()} aria-label="Range and options">
      <label>
        Time
        <select
          value={isOwn ? "own" : state.from}
          onChange={(event) => {
            const value = event.currentTarget.value;
            setOwn(value === "own");
            if (value !== "own") change({ from: value, to: "now" });
          }}
        >
          {RANGES.map(([value, text]) => (
            <option key={value} value={value}>
              {text}
            </option>
          ))}
          <option value="own">from … to …</option>
        </select>
      </label>
      {isOwn && (
        <>
          <label>
            From
            <input value={state.from} maxLength={40} onChange={(event) => change({ from: event.currentTarget.value })} />
          </label>
          <label>
            To
            <input value={state.to} maxLength={40} onChange={(event) => change({ to: event.currentTarget.value })} />
          </label>
        </>
      )}
      {hasLocality && (
        <label>
          Traffic
          <select value={state.locality} onChange={(event) => change({ locality: event.currentTarget.value })}>
            {LOCALITIES.map(([value, text]) => (
              <option key={value} value={value}>
                {text}
              </option>
            ))}
            {!LOCALITIES.some(([value]) => value === state.locality) && (
              <option value={state.locality}>{state.locality}</option>
            )}
          </select>
        </label>
      )}
      {state.view !== "advice" && state.view !== "health" && (
        <label>
          Charged to
          <select value={state.charge} onChange={(event) => change({ charge: event.currentTarget.value })}>
            <option value="ends">both ends, as the bill</option>
            <option value="client">the client</option>
          </select>
        </label>
      )}
    </form>
  );
}

const KEYS: [string, string][] = [
  ["1 – 6", "the views"],
  ["/", "the filter of Explore"],
  ["?", "this help"],
  ["Esc", "closes help"],
];

function Keys({ change }: { change: Change }) {
  const dialog = useRef<HTMLDialogElement>(null);
  useEffect(() => {
    const press = (event: KeyboardEvent) => {
      const target = event.target as HTMLElement;
      if (event.ctrlKey || event.metaKey || event.altKey || target.matches("input, select, textarea")) return;
      const view = VIEWS[Number(event.key) - 1];
      if (view) change({ view, sort: "" });
      else if (event.key === "/") {
        const filter = document.getElementById("filter");
        if (filter) filter.focus();
        else change({ view: "explore", sort: "" });
      } else if (event.key === "?") dialog.current?.showModal();
      else return;
      event.preventDefault();
    };
    addEventListener("keydown", press);
    return () => removeEventListener("keydown", press);
  });
  return (
    <>
      <button type="button" class="keys" onClick={() => dialog.current?.showModal()} aria-label="Keys">
        ?
      </button>
      <dialog ref={dialog} aria-labelledby="keys">
        <h2 id="keys">Keys</h2>
        <dl>
          {KEYS.map(([key, what]) => (
            <div key={key}>
              <dt>
                <kbd>{key}</kbd>
              </dt>
              <dd>{what}</dd>
            </div>
          ))}
        </dl>
        <form method="dialog">
          <button class="button">Close</button>
        </form>
      </dialog>
    </>
  );
}

/** A notice in every view of missing numbers: of silent nodes, or of a process that has not read all of its state. */
function Missing({ view }: { view: string }) {
  const { data } = useHealth();
  if (!data) return null;
  const silent = data.nodes.filter((node) => node.silent).length;
  const all = data.nodes.length + data.omitted_nodes;
  const parts = [
    silent > 0 && `${silent} of ${all} nodes ${silent === 1 ? "is silent: its" : "are silent: their"} latest traffic is missing.`,
    !data.ready && "This server is starting: numbers may be missing.",
  ].filter(Boolean);
  if (parts.length === 0) return null;
  return (
    <p class="notice" role="status">
      {parts.join(" ")} {silent > 0 && view !== "health" && <a href="?view=health">Which ones</a>}
    </p>
  );
}

function Page() {
  const [state, change] = useAddress();
  const view = state.view as keyof typeof TITLES;
  useEffect(() => {
    document.title = `${TITLES[view]} · Meridian`;
  }, [view]);
  const follow = (event: MouseEvent) => {
    const anchor = (event.target as HTMLElement).closest("a");
    const href = anchor?.getAttribute("href");
    const isPlain = event.button === 0 && !event.ctrlKey && !event.metaKey && !event.shiftKey;
    if (!isPlain || !href || !(href.startsWith("?") || href === location.pathname)) return;
    event.preventDefault();
    const texts = new URLSearchParams(href.startsWith("?") ? href : "");
    change({ view: texts.get("view") ?? "overview", by: texts.get("by") ?? state.by, sort: "" });
    scrollTo(0, 0);
  };
  return (
    <div onClick={follow}>
      <a class="skip" href="#main">
        To the content
      </a>
      <header class="bar">
        <p class="brand">
          <img src="icon.svg" alt="" width="22" height="22" /> Meridian
        </p>
        <nav aria-label="Views">
          {VIEWS.map((name) => (
            <a key={name} href={link({ ...state, view: name, sort: "" })} aria-current={name === view ? "page" : undefined}>
              {TITLES[name]}
            </a>
          ))}
        </nav>
        <Keys change={change} />
      </header>
      {/* Advice is of the last seven days, whatever the range. */}
      {view !== "advice" && <Time state={state} change={change} />}
      <main id="main" tabIndex={-1}>
        <Missing view={view} />
        {view === "overview" && <Overview state={state} />}
        {view === "explore" && <Explore state={state} change={change} />}
        {view === "flows" && <Flows state={state} />}
        {view === "compare" && <Compare state={state} change={change} />}
        {view === "advice" && <Advice />}
        {view === "health" && <Health state={state} />}
      </main>
    </div>
  );
}

const place = document.getElementById("app");
if (place) {
  place.textContent = "";
  render(<Page />, place);
}
