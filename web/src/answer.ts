// How an answer looks: small things stay on one line, and of a subscription the end is in view.

import { useGraphiQL } from "@graphiql/react";
import { useEffect } from "react";

/** What is no wider stays on one line. */
const WIDTH = 60;

/** Lays out what GraphiQL shows as an answer. Shows nothing by itself. */
export function AnswerLayout() {
  const query = useGraphiQL((state) => state.queryEditor);
  const answer = useGraphiQL((state) => state.responseEditor);
  useEffect(() => {
    const listening = answer?.onDidChangeModelContent(() => {
      const shown = answer.getValue();
      const better = layOut(shown);
      // The editor cannot be changed while it tells of a change; this comes back here, and then nothing is better.
      if (better !== shown) return queueMicrotask(() => answer.setValue(better));
      // The last line of a log is the new one.
      const isSubscription = /^\s*subscription\b/m.test(query?.getValue() ?? "");
      if (isSubscription) answer.revealLine(answer.getModel()?.getLineCount() ?? 1);
    });
    return () => listening?.dispose();
  }, [query, answer]);
  return null;
}

function layOut(text: string): string {
  try {
    return format(JSON.parse(text), "");
  } catch {
    return text;
  }
}

/** JSON with a line for each element, except where plain values are few. */
function format(value: unknown, indent: string): string {
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const inner = `${indent}  `;
  const isList = Array.isArray(value);
  const elements = isList
    ? value.map((element) => format(element, inner))
    : Object.entries(value).map(([name, element]) => `${JSON.stringify(name)}: ${format(element, inner)}`);
  const [open, close] = isList ? "[]" : "{}";
  if (elements.length === 0) return `${open}${close}`;
  const isPlain = Object.values(value).every((element) => typeof element !== "object" || element === null);
  const line = isList ? `[${elements.join(", ")}]` : `{ ${elements.join(", ")} }`;
  if (isPlain && (elements.length === 1 || line.length <= WIDTH)) return line;
  return `${open}\n${inner}${elements.join(`,\n${inner}`)}\n${indent}${close}`;
}
