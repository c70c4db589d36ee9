// The ready-made tabs, and where GraphiQL keeps what becomes of them.

import { createLocalStorage, type Storage } from "@graphiql/toolkit";

const documents = import.meta.glob<string>("./tabs/*.graphql", { query: "?raw", import: "default", eager: true });

/** One tab for each file, in the order of their names. */
export const tabs = Object.entries(documents)
  .sort(([one], [other]) => one.localeCompare(other))
  .map(([, query]) => ({ query }));

/** What GraphiQL remembers of tabs. The theme and the like are no part of it. */
const CONTENT = ["tabState", "query", "variables", "headers"];

/**
 * The browser's storage, under a name of our own: a GraphiQL that another program has served from this address does not
 * hide the ready-made tabs. Nor do tabs that are left of an earlier version, which had others.
 */
export function openStorage(): Storage {
  const storage = createLocalStorage({ namespace: "jobstream" });
  const made = JSON.stringify(tabs);
  if (storage.getItem("made") !== made) {
    CONTENT.forEach((name) => storage.removeItem(`graphiql:${name}`));
    storage.setItem("made", made);
  }
  return storage;
}
