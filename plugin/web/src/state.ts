// The state of the page in its address: every view can be linked to and gone back to.

import { useEffect, useState } from "preact/hooks";

export const VIEWS = ["overview", "explore", "flows", "compare", "advice", "health"] as const;
export type View = (typeof VIEWS)[number];

export const TITLES: Record<View, string> = {
  overview: "Overview",
  explore: "Explore",
  flows: "Flows",
  compare: "Compare",
  advice: "Advice",
  health: "Health",
};

/** The parameters, with their defaults. */
const DEFAULTS = {
  view: "overview",
  from: "7d",
  to: "now",
  by: "workload-pair",
  locality: "cross-zone,cross-region,unknown",
  charge: "ends",
  q: "",
  sort: "",
  before: "14d..7d",
};

export type State = typeof DEFAULTS;

function read(): State {
  const texts = new URLSearchParams(location.search);
  const state = { ...DEFAULTS };
  for (const key of Object.keys(DEFAULTS) as (keyof State)[]) {
    const text = texts.get(key);
    if (text !== null) state[key] = text.slice(0, 300);
  }
  if (!(VIEWS as readonly string[]).includes(state.view)) state.view = DEFAULTS.view;
  return state;
}

/** The address of a state. */
export function link(state: State): string {
  const texts = new URLSearchParams();
  for (const key of Object.keys(DEFAULTS) as (keyof State)[]) {
    if (state[key] !== DEFAULTS[key]) texts.set(key, state[key]);
  }
  const text = texts.toString();
  return text ? `?${text}` : location.pathname;
}

export type Change = (change: Partial<State>, isStep?: boolean) => void;

/** The state, and how to change it. A step can be gone back from; other changes replace the last. */
export function useAddress(): [State, Change] {
  const [state, set] = useState(read);
  useEffect(() => {
    const back = () => set(read());
    addEventListener("popstate", back);
    return () => removeEventListener("popstate", back);
  }, []);
  const change: Change = (part, isStep = true) => {
    const next = { ...read(), ...part };
    if (isStep) history.pushState(null, "", link(next));
    else history.replaceState(null, "", link(next));
    set(next);
  };
  return [state, change];
}
