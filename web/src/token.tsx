// The field for the token, beside the tabs.

import { useState } from "react";

const KEY = "jobstream:token";

type Shown = {
  token: string;
  /** What the server says if it is not the right one. */
  refusal?: string;
};

/** The token, kept until this browser tab is closed, and what the server says of it. */
export function useToken() {
  const [shown, setShown] = useState<Shown>(() => ({ token: sessionStorage.getItem(KEY) ?? "" }));
  const keep = (token: string) => {
    sessionStorage.setItem(KEY, token);
    setShown({ token });
  };
  // An answer that comes late says nothing of the token that is shown by then.
  const heard = (token: string, refusal: string | undefined) =>
    setShown((shown) => (shown.token === token && shown.refusal !== refusal ? { token, refusal } : shown));
  return { ...shown, keep, heard };
}

type Properties = Shown & {
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
