// Drives a gateway with OpenAI's real, unmodified JavaScript SDK. One scenario a call:
//   node drive.mjs SCENARIO BASE_URL API_KEY MODEL
// prints one JSON object with what the SDK gave or raised; tests/gateway judges it.
import OpenAI from "openai";

const [scenario, baseURL, apiKey, model] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const messages = [{ role: "user", content: "hello" }];

async function collect(stream, text) {
  const seen = { text: "", usage: null, chunks: 0 };
  try {
    for await (const chunk of stream) {
      seen.chunks += 1;
      if (chunk.choices.length) seen.text += text(chunk.choices[0]) ?? "";
      if (chunk.usage) seen.usage = chunk.usage;
    }
  } catch (error) {
    return { ...seen, ...describe(error) };
  }
  return seen;
}

function describe(error) {
  if (!(error instanceof OpenAI.APIError)) throw error;
  return {
    error: error.constructor.name,
    status: error.status ?? null,
    code: error.code,
    param: error.param,
    message: error.message,
    hanse: error.error?.hanse ?? null,
  };
}

const scenarios = {
  async chat() {
    const { data, response } = await client.chat.completions
      .create({ model, messages })
      .withResponse();
    return {
      text: data.choices[0].message.content,
      usage: data.usage,
      receipt: response.headers.get("hanse-receipt"),
      provider: response.headers.get("hanse-provider"),
      fee: response.headers.get("hanse-fee"),
      requestId: data._request_id,
    };
  },
  async chatStream() {
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    return collect(stream, (choice) => choice.delta.content);
  },
  async chatStreamUsage() {
    const stream = await client.chat.completions.create({
      model, messages, stream: true, stream_options: { include_usage: true },
    });
    return collect(stream, (choice) => choice.delta.content);
  },
  async completion() {
    const answer = await client.completions.create({ model, prompt: "once" });
    return { text: answer.choices[0].text };
  },
  async completionStream() {
    const stream = await client.completions.create({ model, prompt: "once", stream: true });
    return collect(stream, (choice) => choice.text);
  },
  async embeddings() {
    const answer = await client.embeddings.create({ model, input: ["a", "b"] });
    return { vectors: answer.data.map((row) => Array.from(row.embedding)) };
  },
  async embeddingsFloat() {
    const answer = await client.embeddings.create({
      model, input: ["a", "b"], encoding_format: "float",
    });
    return { vectors: answer.data.map((row) => row.embedding) };
  },
  async response() {
    const { data, response } = await client.responses
      .create({ model, input: "hello" })
      .withResponse();
    return {
      text: data.output_text,
      usage: data.usage,
      receipt: response.headers.get("hanse-receipt"),
    };
  },
  async responseStream() {
    const stream = client.responses.stream({ model, input: "hello" });
    const seen = { kinds: [] };
    try {
      for await (const event of stream) seen.kinds.push(event.type);
      const { output } = await stream.finalResponse();
      return { ...seen, output };
    } catch (error) {
      return { ...seen, ...describe(error) };
    }
  },
  async audio() {
    const [voice, ear] = model.split(",");
    const spoken = await client.audio.speech.create({
      model: voice, voice: "heart", input: "The harbour is quiet tonight.",
    });
    const audio = Buffer.from(await spoken.arrayBuffer());
    const file = await OpenAI.toFile(audio, "speech.mp3");
    const heard = await client.audio.transcriptions.create({ model: ear, file });
    return { type: spoken.headers.get("content-type"), text: heard.text };
  },
  async models() {
    const ids = [];
    for await (const row of client.models.list()) ids.push(row.id);
    const one = await client.models.retrieve(ids.at(-1));
    return { ids, one: one.id };
  },
  async abort() {
    const stream = await client.chat.completions.create({ model, messages, stream: true });
    for await (const chunk of stream) {
      stream.controller.abort();
      return { text: chunk.choices[0].delta.content };
    }
  },
  async badField() {
    return client.chat.completions.create({ model, messages, max_tokens: -1 });
  },
};

try {
  console.log(JSON.stringify(await scenarios[scenario]()));
} catch (error) {
  console.log(JSON.stringify(describe(error)));
}
