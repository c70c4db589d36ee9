// The field for the token, beside the tabs.

import { useState } from "react";

const KEY = "jobstream:token";

/** The token, kept until this browser tab is closed. */
export function useToken() {
  const [token, setToken] = useState(() => sessionStorage.getItem(KEY) ?? "");
  const keep = (token: string) => {
    sessionStorage.setItem(KEY, token);
    setToken(token);
  };
  return [token, keep] as const;
}

type Properties = {
  token: string;
  /** What the server says if it is not the right one. */
  refusal: string | undefined;
  onChange: (token: string) => void;
};

/** A field whose token counts when it is left, or with Enter. */
export function TokenField({ token, refusal, onChange }: Properties) {
  const [text, setText] = useState(token);
  const accept = () => {
    const trimmed = text.trim();
    setText(trimmed);
    if (trimmed !== token) onChange(trimmed);
  };
  return (
    <form
      className="token"
      onSubmit={(event) => {
        event.preventDefault();
        accept();
      }}
    >
      <input
        type="password"
        aria-label="Token"
        aria-invalid={refusal !== undefined}
        aria-describedby="token-refusal"
        placeholder="Token, if needed"
        title="Sent as Authorization: Bearer TOKEN. Kept until this tab is closed."
        autoComplete="off"
        spellCheck={false}
        value={text}
        onChange={(event) => setText(event.target.value)}
        onBlur={accept}
      />
      <output id="token-refusal" role="alert">
        {refusal}
      </output>
    </form>
  );
}
