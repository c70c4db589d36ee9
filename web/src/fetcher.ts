// How operations reach the server: queries and mutations over HTTP, subscriptions over a WebSocket of their own.

import type { Fetcher, FetcherParams, Observable } from "@graphiql/toolkit";
import { getOperationAST, parse, type ExecutionResult, type OperationDefinitionNode } from "graphql";
import { createClient } from "graphql-ws";
import { fillIn, remember } from "./ids";
import { append } from "./log";

const UNREACHABLE = "The server cannot be reached.";
/** The code of a close with which the server refuses a connection. */
const FORBIDDEN = 4403;

/** Is told after each answer why the server does not know who asks, or that it does. */
type OnRefusal = (message: string | undefined) => void;

/** A fetcher that shows this token, unless the headers editor says otherwise. */
export function createFetcher(token: string, onRefusal: OnRefusal): Fetcher {
  return (params, options) => {
    const operation = operationOf(params);
    let headers: Headers;
    let request: FetcherParams;
    try {
      headers = headersOf(token, options?.headers);
      request = {
        ...params,
        operationName: operation?.name?.value,
        variables: operation && fillIn(operation, params.variables),
      };
    } catch (error) {
      return failure(messageOf(error));
    }
    if (operation?.operation === "subscription") return subscribe(request, headers, onRefusal);
    return post(request, headers, onRefusal);
  };
}

/**
 * The operation that is asked for, or the only one: just after a change of tabs, GraphiQL asks for the other tab's. What
 * cannot be parsed has none: the server says what is wrong.
 */
function operationOf({ query, operationName }: FetcherParams): OperationDefinitionNode | undefined {
  try {
    const document = parse(query);
    return getOperationAST(document, operationName) ?? getOperationAST(document) ?? undefined;
  } catch {
    return undefined;
  }
}

function headersOf(token: string, more: Record<string, unknown> = {}): Headers {
  const headers = new Headers({ accept: "application/json", "content-type": "application/json" });
  if (token) headers.set("authorization", `Bearer ${token}`);
  for (const [name, value] of Object.entries(more)) headers.set(name, String(value));
  return headers;
}

async function post(request: FetcherParams, headers: Headers, onRefusal: OnRefusal): Promise<ExecutionResult> {
  let response: Response;
  try {
    response = await fetch("/graphql", { method: "POST", headers, body: JSON.stringify(request) });
  } catch {
    return failure(UNREACHABLE);
  }
  const result: ExecutionResult = await response
    .json()
    .catch(() => failure(`The server answered ${response.status} ${response.statusText}.`));
  onRefusal(result.errors?.find((error) => error.extensions?.code === "UNAUTHENTICATED")?.message);
  remember(result.data);
  return result;
}

/** Each subscription opens a connection, so each shows the token as it is at that moment. */
function subscribe(request: FetcherParams, headers: Headers, onRefusal: OnRefusal): Observable<ExecutionResult> {
  const { authorization, accept, "content-type": _, ...others } = Object.fromEntries(headers);
  const client = createClient({
    url: `${location.origin.replace(/^http/, "ws")}/graphql`,
    connectionParams: authorization ? { ...others, Authorization: authorization } : others,
    // To begin again would show the beginning again: whoever looks is told instead.
    retryAttempts: 0,
  });
  const observable = {
    subscribe(sink: { next(result: ExecutionResult): void; complete(): void }) {
      let shown: ExecutionResult | undefined;
      let wanted = true;
      const show = (event: ExecutionResult) => wanted && sink.next((shown = append(shown, event)));
      const end = client.subscribe<Record<string, unknown>>(request as Parameters<typeof client.subscribe>[0], {
        next: (event) => show(event as ExecutionResult),
        error: async (reason) => {
          const refused = isCloseEvent(reason) && reason.code === FORBIDDEN;
          // A close has no room for what the server would say: it says it over HTTP.
          const answer = refused ? await post({ query: "{ __typename }" }, headers, onRefusal) : undefined;
          show(answer?.errors ? answer : explain(reason));
          if (wanted) sink.complete();
        },
        complete: () => wanted && sink.complete(),
      });
      return {
        unsubscribe() {
          wanted = false;
          end();
        },
      };
    },
  };
  return observable as unknown as Observable<ExecutionResult>;
}

function isCloseEvent(reason: unknown): reason is CloseEvent {
  return reason instanceof CloseEvent;
}

/** Why a subscription has ended before its time: the server's errors, the end of the connection, or a defect. */
function explain(reason: unknown): ExecutionResult {
  if (Array.isArray(reason)) return { errors: reason };
  if (isCloseEvent(reason)) {
    return failure(`The connection has ended: ${reason.reason || "it was lost"} (${reason.code}).`);
  }
  // A WebSocket that cannot be opened does not say why.
  if (reason instanceof Event) return failure(UNREACHABLE);
  return failure(messageOf(reason));
}

function failure(message: string): ExecutionResult {
  return { errors: [{ message } as never] };
}

function messageOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error);
}
