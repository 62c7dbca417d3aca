// A character that a Hanse gateway speaks for: one HTTP + SSE client for Unity (and any C# 8), without
// packages. See HanseNpcBehaviour.cs for a scene, README.md beside this folder for keys and budgets.
//
//     var npc = new HanseNpc(url, key, model, session, persona, actions, fallback);
//     HanseMove move = await npc.Choose("A stranger draws a sword.");
//     HanseMove end = await npc.Speak("Who are you?", sentence => Show(sentence));
//
// Neither throws for what a game has to live with: no money (402), too fast (429), no market, no
// network. They give the fallback then, with Source "canned" and the Error that says why.
// (WebGL has no sockets: there, call the browser's hanse_npc.mjs from a .jslib.)
using System;
using System.Collections.Generic;
using System.IO;
using System.Linq;
using System.Net.Http;
using System.Text;
using System.Text.RegularExpressions;
using System.Threading;
using System.Threading.Tasks;

namespace Hanse
{
    public class HanseError : Exception
    {
        public string Code = "";
        public int Status;
        public int RetryAfterS;
        public HanseError(string code, string message) : base(message) { Code = code; }
    }

    public class HanseMove
    {
        public string Action = "";
        public string Say = "";
        public string Source = "market"; // or "local", "canned"
        public string Provider = "";
        public decimal Fee; // base units of the asset
        public HanseError Error;
    }

    public class HanseNpc
    {
        const int HistoryMax = 12;

        readonly HttpClient http = new HttpClient { Timeout = Timeout.InfiniteTimeSpan };
        readonly string url, key, model, session, persona;
        readonly string[] actions;
        readonly HanseMove fallback;
        readonly TimeSpan timeout;
        readonly List<object> history = new List<object>();

        /// <summary>Base units that this character has cost, as the gateway told them.</summary>
        public decimal Spent { get; private set; }

        public int Turns => history.Count;

        public HanseNpc(string url, string key, string model, string session, string persona,
            string[] actions, HanseMove fallback, double timeoutS = 20)
        {
            if (!actions.Contains(fallback.Action)) throw new ArgumentException("the fallback is none of actions");
            this.url = url; this.key = key; this.model = model; this.session = session;
            this.persona = persona; this.actions = actions; this.fallback = fallback;
            timeout = TimeSpan.FromSeconds(timeoutS);
        }

        /// <summary>Choose one of the actions, by a schema that the gateway holds the answer to.</summary>
        public async Task<HanseMove> Choose(string situation, CancellationToken cancel = default)
        {
            var body = MakeBody(situation, 120);
            body["response_format"] = Map("type", "json_schema", "json_schema", Map("name", "npc_move", "schema", Map(
                "type", "object",
                "properties", Map("action", Map("enum", actions), "say", Map("type", "string", "maxLength", 200)),
                "required", new[] { "action", "say" },
                "additionalProperties", false)));
            string canned = HanseJson.Write(Map("action", fallback.Action, "say", fallback.Say));
            try
            {
                using (var limit = Limit(cancel))
                using (var answer = await Post(body, canned, limit.Token))
                {
                    string text = await answer.Content.ReadAsStringAsync();
                    object said = HanseJson.Get(HanseJson.Read(text), "choices", 0, "message", "content");
                    object chosen = HanseJson.Read((string)said);
                    var move = Begin(answer);
                    move.Action = (string)HanseJson.Get(chosen, "action");
                    move.Say = (string)HanseJson.Get(chosen, "say");
                    move.Fee = Pay(GetHeader(answer, "hanse-total-fee"));
                    Remember(situation, move.Say);
                    return move;
                }
            }
            catch (Exception error) when (!cancel.IsCancellationRequested)
            {
                return new HanseMove
                {
                    Action = fallback.Action, Say = fallback.Say, Source = "canned", Error = Explain(error),
                };
            }
        }

        /// <summary>Answer in words; onSentence gets each sentence as soon as it is whole.</summary>
        public async Task<HanseMove> Speak(string text, Action<string> onSentence, CancellationToken cancel = default)
        {
            var body = MakeBody(text, 200);
            body["stream"] = true;
            var splitter = new SentenceSplitter();
            var said = new List<string>();
            var end = new HanseMove();
            Action<IEnumerable<string>> tell = sentences =>
            {
                foreach (string sentence in sentences) { said.Add(sentence); onSentence(sentence); }
            };
            try
            {
                using (var limit = Limit(cancel))
                using (var answer = await Post(body, null, limit.Token))
                {
                    end = Begin(answer);
                    using (limit.Token.Register(answer.Dispose)) // reads of a stream take no token in Unity
                    using (var reader = new StreamReader(await answer.Content.ReadAsStreamAsync(), Encoding.UTF8))
                        await ReadStream(reader, end, words => tell(splitter.Add(words)));
                }
            }
            catch (Exception error) when (!cancel.IsCancellationRequested)
            {
                end.Error = Explain(error);
            }
            tell(splitter.End());
            if (said.Count == 0)
            {
                end.Source = "canned";
                tell(new[] { fallback.Say });
            }
            else Remember(text, string.Join(" ", said));
            end.Say = string.Join(" ", said);
            return end;
        }

        async Task ReadStream(StreamReader reader, HanseMove end, Action<string> onWords)
        {
            const string receipt = ": hanse-receipt ";
            for (string line; (line = await reader.ReadLineAsync()) != null;)
            {
                if (line.StartsWith(receipt))
                    end.Fee = Pay((string)HanseJson.Get(HanseJson.Read(FromBase64Url(line.Substring(receipt.Length))), "fee"));
                if (!line.StartsWith("data:")) continue;
                string data = line.Substring(5).Trim();
                if (data == "[DONE]") return;
                object chunk = HanseJson.Read(data);
                object error = HanseJson.Get(chunk, "error");
                if (error != null) throw ReadError(error, 200, 0);
                onWords(HanseJson.Get(chunk, "choices", 0, "delta", "content") as string ?? "");
            }
            throw new HanseError("cut", "the stream ended before its end");
        }

        async Task<HttpResponseMessage> Post(Dictionary<string, object> body, string canned, CancellationToken cancel)
        {
            var request = new HttpRequestMessage(HttpMethod.Post, url + "/chat/completions");
            request.Headers.TryAddWithoutValidation("authorization", "Bearer " + key);
            request.Headers.Add("hanse-session", session); // keeps the provider, and so its cache, warm
            request.Headers.Add("hanse-class", "interactive");
            if (canned != null) request.Headers.TryAddWithoutValidation("hanse-default", canned);
            request.Content = new StringContent(HanseJson.Write(body), Encoding.UTF8, "application/json");
            var answer = await http.SendAsync(request, HttpCompletionOption.ResponseHeadersRead, cancel);
            if (answer.IsSuccessStatusCode) return answer;
            using (answer)
            {
                string text = await answer.Content.ReadAsStringAsync();
                int.TryParse(GetHeader(answer, "retry-after"), out int retryAfterS);
                object told = null;
                try { told = HanseJson.Get(HanseJson.Read(text), "error"); }
                catch (FormatException) { /* some proxy's own page: the status says enough */ }
                throw ReadError(told, (int)answer.StatusCode, retryAfterS);
            }
        }

        Dictionary<string, object> MakeBody(string text, int tokensMax)
        {
            var messages = new List<object> { Map("role", "system", "content", persona) };
            messages.AddRange(history);
            messages.Add(Map("role", "user", "content", text));
            return Map("model", model, "messages", messages, "max_tokens", tokensMax);
        }

        void Remember(string asked, string answered)
        {
            history.Add(Map("role", "user", "content", asked));
            history.Add(Map("role", "assistant", "content", answered));
            if (history.Count > HistoryMax) history.RemoveRange(0, history.Count - HistoryMax);
        }

        decimal Pay(string text)
        {
            decimal.TryParse(text, out decimal fee);
            Spent += fee;
            return fee;
        }

        CancellationTokenSource Limit(CancellationToken cancel)
        {
            var limit = CancellationTokenSource.CreateLinkedTokenSource(cancel);
            limit.CancelAfter(timeout);
            return limit;
        }

        static HanseMove Begin(HttpResponseMessage answer)
        {
            string provider = GetHeader(answer, "hanse-provider");
            string source = provider == "local" || provider == "canned" ? provider : "market";
            return new HanseMove { Provider = provider, Source = source };
        }

        static string GetHeader(HttpResponseMessage answer, string name) =>
            answer.Headers.TryGetValues(name, out var values) ? values.First() : "";

        static HanseError ReadError(object told, int status, int retryAfterS) =>
            new HanseError(HanseJson.Get(told, "code") as string ?? "http",
                HanseJson.Get(told, "message") as string ?? "status " + status)
            { Status = status, RetryAfterS = retryAfterS };

        static HanseError Explain(Exception error) =>
            error as HanseError ?? new HanseError(error.GetType().Name, error.Message);

        static string FromBase64Url(string text)
        {
            text = text.Trim().Replace('-', '+').Replace('_', '/');
            return Encoding.UTF8.GetString(Convert.FromBase64String(text.PadRight((text.Length + 3) / 4 * 4, '=')));
        }

        static Dictionary<string, object> Map(params object[] pairs)
        {
            var map = new Dictionary<string, object>();
            for (int i = 0; i < pairs.Length; i += 2) map[(string)pairs[i]] = pairs[i + 1];
            return map;
        }
    }

    /// <summary>Cuts a stream of text into sentences.</summary>
    public class SentenceSplitter
    {
        // an end counts once something follows it, so that "3.5" and "..." stay whole
        static readonly Regex Ending = new Regex("[.!?\u2026]+[\"')\u201d\u00bb]*(?=\\s)|\\n");
        string rest = "";

        public List<string> Add(string text)
        {
            rest += text;
            var found = new List<string>();
            for (Match end; (end = Ending.Match(rest)).Success;)
            {
                string sentence = rest.Substring(0, end.Index + end.Length).Trim();
                rest = rest.Substring(end.Index + end.Length);
                if (sentence != "") found.Add(sentence);
            }
            return found;
        }

        public List<string> End()
        {
            string last = rest.Trim();
            rest = "";
            return last == "" ? new List<string>() : new List<string> { last };
        }
    }
}
