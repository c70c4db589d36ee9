// The page: GraphiQL with the ready-made tabs, and a field for the token.

import "graphiql/setup-workers/vite";
import "graphiql/style.css";
import "./style.css";

import { GraphiQL } from "graphiql";
import { useMemo } from "react";
import { createRoot } from "react-dom/client";
import { AnswerLayout } from "./answer";
import { createFetcher } from "./fetcher";
import { openStorage, tabs } from "./tabs";
import { TokenField, useToken } from "./token";

const storage = openStorage();

function Page() {
  const { token, refusal, keep, heard } = useToken();
  // Another fetcher makes GraphiQL ask for the schema again.
  const fetcher = useMemo(() => createFetcher(token, (refusal) => heard(token, refusal)), [token]);
  return (
    <GraphiQL
      fetcher={fetcher}
      storage={storage}
      defaultTabs={tabs}
      defaultEditorToolsVisibility={false}
      shouldPersistHeaders={false}
    >
      <GraphiQL.Logo>
        <TokenField token={token} refusal={refusal} onChange={keep} />
        <span className="name">Jobstream</span>
      </GraphiQL.Logo>
      <AnswerLayout />
    </GraphiQL>
  );
}

createRoot(document.getElementById("graphiql")!).render(<Page />);
