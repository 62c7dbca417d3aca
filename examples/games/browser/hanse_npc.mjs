// A character that a Hanse gateway speaks for: plain JavaScript, for browsers and node, no build.
//
//     const npc = new HanseNpc({ baseUrl, apiKey, model, session, persona, actions, fallback });
//     const move = await npc.choose("A stranger draws a sword.");   // { action, say, source, ... }
//     const end = await npc.speak("Who are you?", (sentence) => show(sentence));
//
// `choose` never throws for what a game has to live with: no money (402), too fast (429), no market,
// no network. It then gives the fallback, with `source: "canned"` and the reason. `speak` gives what
// was said until then. Ask with a short-lived key that your game server minted, never with its own.

export class HanseError extends Error {
  constructor(code, message, status = 0, retryAfterS = 0) {
    super(message);
    this.code = code;
    this.status = status;
    this.retryAfterS = retryAfterS;
  }
}

export class HanseNpc {
  constructor({ baseUrl, apiKey, model, session, persona, actions, fallback, timeoutMs = 20000 }) {
    if (!actions.includes(fallback.action)) throw new TypeError("the fallback is none of actions");
    Object.assign(this, { baseUrl, apiKey, model, session, persona, actions, fallback, timeoutMs });
    this.history = [];
    this.spent = 0n; // base units of the asset, as the gateway told them
  }

  /** Choose what to do: one of `actions`, by a JSON schema that the gateway holds the answer to. */
  async choose(situation, signal) {
    const schema = {
      type: "object",
      properties: { action: { enum: this.actions }, say: { type: "string", maxLength: 200 } },
      required: ["action", "say"],
      additionalProperties: false,
    };
    const body = {
      model: this.model,
      messages: this.#messages(situation),
      max_tokens: 120,
      response_format: { type: "json_schema", json_schema: { name: "npc_move", schema } },
    };
    try {
      const answer = await this.#post(body, signal, { "hanse-default": toAscii(this.fallback) });
      const move = JSON.parse((await answer.json()).choices[0].message.content);
      const fee = this.#pay(answer.headers.get("hanse-total-fee"));
      this.#remember(situation, move.say);
      const provider = answer.headers.get("hanse-provider") ?? "";
      return { ...move, source: nameSource(provider), provider, fee, error: null };
    } catch (error) {
      return { ...this.fallback, source: "canned", provider: "", fee: 0n, error: explain(error) };
    }
  }

  /** Answer in words; `onSentence` gets each sentence as soon as it is whole. */
  async speak(text, onSentence, signal) {
    const body = { model: this.model, messages: this.#messages(text), max_tokens: 200, stream: true };
    const splitter = new SentenceSplitter();
    const said = [];
    const end = { source: "market", provider: "", fee: 0n, error: null };
    const tell = (sentences) => sentences.forEach((sentence) => (said.push(sentence), onSentence(sentence)));
    try {
      const answer = await this.#post(body, signal);
      end.provider = answer.headers.get("hanse-provider") ?? "";
      end.source = nameSource(end.provider);
      for await (const event of readEvents(answer.body)) {
        if (event.receipt) end.fee = this.#pay(event.receipt.fee);
        if (event.error) throw new HanseError(event.error.code, event.error.message, 200);
        if (event.text) tell(splitter.add(event.text));
      }
    } catch (error) {
      end.error = explain(error);
    }
    tell(splitter.end());
    if (said.length === 0) {
      end.source = "canned";
      tell([this.fallback.say]);
    } else {
      this.#remember(text, said.join(" "));
    }
    return { ...end, text: said.join(" ") };
  }

  async #post(body, signal, headers = {}) {
    const limits = [AbortSignal.timeout(this.timeoutMs), ...(signal ? [signal] : [])];
    const answer = await fetch(this.baseUrl + "/chat/completions", {
      method: "POST",
      headers: {
        authorization: "Bearer " + this.apiKey,
        "content-type": "application/json",
        "hanse-session": this.session, // keeps the provider, and so the prompt's cache, warm
        "hanse-class": "interactive",
        ...headers,
      },
      body: JSON.stringify(body),
      signal: AbortSignal.any(limits), // aborting stops the engine; what was delivered is paid
    });
    if (answer.ok) return answer;
    const told = await answer.json().catch(() => ({}));
    const retryAfterS = Number(answer.headers.get("retry-after") ?? 0);
    throw new HanseError(
      told.error?.code ?? "http",
      told.error?.message ?? `status ${answer.status}`,
      answer.status,
      retryAfterS,
    );
  }

  #messages(text) {
    return [{ role: "system", content: this.persona }, ...this.history, { role: "user", content: text }];
  }

  #remember(asked, answered) {
    this.history.push({ role: "user", content: asked }, { role: "assistant", content: answered });
    this.history = this.history.slice(-12); // the persona stays first, so the prefix stays warm
  }

  #pay(text) {
    const fee = BigInt(text ?? 0);
    this.spent += fee;
    return fee;
  }
}

/** Cuts a stream of text into sentences. */
export class SentenceSplitter {
  #rest = "";

  add(text) {
    this.#rest += text;
    const found = [];
    // an end counts once something follows it, so that "3.5" and "..." stay whole
    for (let end; (end = /[.!?\u2026]+["')\u201d\u00bb]*(?=\s)|\n/.exec(this.#rest)); ) {
      const cut = end.index + end[0].length;
      const sentence = this.#rest.slice(0, cut).trim();
      this.#rest = this.#rest.slice(cut);
      if (sentence) found.push(sentence);
    }
    return found;
  }

  end() {
    const last = this.#rest.trim();
    this.#rest = "";
    return last ? [last] : [];
  }
}

/** The events of a gateway's stream: { text }, { error }, { receipt }; frames may be cut anywhere. */
export async function* readEvents(stream) {
  const decoder = new TextDecoder();
  const reader = stream.getReader();
  let rest = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      rest += value ? decoder.decode(value, { stream: true }) : "";
      const frames = rest.split(/\r?\n\r?\n/);
      rest = frames.pop();
      for (const frame of frames) {
        const event = readFrame(frame);
        if (event === null) return;
        yield event;
      }
      if (done) throw new HanseError("cut", "the stream ended before its end");
    }
  } finally {
    await reader.cancel().catch(() => {});
  }
}

function readFrame(frame) {
  const receipt = /^: hanse-receipt (\S+)/m.exec(frame);
  if (receipt) return { receipt: JSON.parse(fromBase64Url(receipt[1])) };
  const data = frame
    .split(/\r?\n/)
    .filter((line) => line.startsWith("data:"))
    .map((line) => line.slice(5).trim())
    .join("\n");
  if (data === "[DONE]") return null;
  if (!data) return {};
  const chunk = JSON.parse(data);
  if (chunk.error) return { error: chunk.error };
  return { text: chunk.choices?.[0]?.delta?.content ?? "" };
}

function fromBase64Url(text) {
  const bytes = atob(text.replaceAll("-", "+").replaceAll("_", "/"));
  return new TextDecoder().decode(Uint8Array.from(bytes, (character) => character.charCodeAt(0)));
}

/** Headers hold ASCII; JSON can say everything else in escapes. */
function toAscii(value) {
  return JSON.stringify(value).replace(
    /[^\x20-\x7e]/g,
    (character) => "\\u" + character.charCodeAt(0).toString(16).padStart(4, "0"),
  );
}

function nameSource(provider) {
  return provider === "local" || provider === "canned" ? provider : "market";
}

function explain(error) {
  const { code = error.name, message, status = 0, retryAfterS = 0 } = error;
  return { code, message, status, retryAfterS };
}
