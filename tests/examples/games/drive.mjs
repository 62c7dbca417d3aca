// Runs the browser's client in node against the address given: node drive.mjs CLIENT URL SETTING
import { pathToFileURL } from "node:url";

const [client, baseUrl, text] = process.argv.slice(2);
const { HanseNpc, SentenceSplitter } = await import(pathToFileURL(client).href);
const { cases, persona, actions, fallback, session, situation, greeting } = JSON.parse(text);

const seen = {};
for (const [model, chooses] of Object.entries(cases)) {
  const npc = new HanseNpc({ baseUrl, apiKey: "hgw_x", model, session, persona, actions, fallback });
  const sentences = [];
  const end = chooses ? await npc.choose(situation) : await npc.speak(greeting, (s) => sentences.push(s));
  seen[model] = { ...end, fee: String(end.fee), spent: String(npc.spent), turns: npc.history.length, sentences };
}
const alone = new HanseNpc({
  baseUrl: "http://127.0.0.1:9/v1", apiKey: "hgw_x", model: "m", session, persona, actions, fallback,
});
seen.offline = await alone.choose(situation);
seen.offline.fee = String(seen.offline.fee);
const splitter = new SentenceSplitter();
seen.split = [..."One. Two?! \"Three.\" 4.5 five\nsix"].flatMap((c) => splitter.add(c)).concat(splitter.end());
console.log(JSON.stringify(seen));
