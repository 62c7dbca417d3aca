// Runs the Unity client outside Unity: mono drive.exe URL SETTING
using System;
using System.Collections.Generic;
using System.Linq;
using System.Threading.Tasks;
using Hanse;

static class Drive
{
    static void Main(string[] args) => Run(args).GetAwaiter().GetResult();

    static async Task Run(string[] args)
    {
        object setting = HanseJson.Read(args[1]);
        Func<string, string> get = name => (string)HanseJson.Get(setting, name);
        var seen = new Dictionary<string, object>();
        var actions = ((List<object>)HanseJson.Get(setting, "actions")).Cast<string>().ToArray();
        var fallback = new HanseMove
        {
            Action = (string)HanseJson.Get(setting, "fallback", "action"),
            Say = (string)HanseJson.Get(setting, "fallback", "say"),
        };
        Func<string, string, HanseNpc> meet = (url, model) =>
            new HanseNpc(url, "hgw_x", model, get("session"), get("persona"), actions, fallback);
        foreach (var pair in (Dictionary<string, object>)HanseJson.Get(setting, "cases"))
        {
            var npc = meet(args[0], pair.Key);
            var sentences = new List<string>();
            HanseMove end = (bool)pair.Value
                ? await npc.Choose(get("situation"))
                : await npc.Speak(get("greeting"), sentences.Add);
            seen[pair.Key] = Describe(end, npc, sentences);
        }
        var alone = meet("http://127.0.0.1:9/v1", "m");
        seen["offline"] = Describe(await alone.Choose(get("situation")), alone, new List<string>());
        var splitter = new SentenceSplitter();
        var split = "One. Two?! \"Three.\" 4.5 five\nsix".SelectMany(one => splitter.Add(one.ToString())).ToList();
        seen["split"] = split.Concat(splitter.End()).ToList();
        Console.WriteLine(HanseJson.Write(seen));
    }

    static Dictionary<string, object> Describe(HanseMove end, HanseNpc npc, List<string> sentences)
    {
        object error = null;
        if (end.Error != null)
            error = new Dictionary<string, object>
            {
                { "code", end.Error.Code }, { "message", end.Error.Message },
                { "status", end.Error.Status }, { "retryAfterS", end.Error.RetryAfterS },
            };
        return new Dictionary<string, object>
        {
            { "action", end.Action }, { "say", end.Say }, { "source", end.Source }, { "provider", end.Provider },
            { "fee", end.Fee.ToString() }, { "spent", npc.Spent.ToString() }, { "turns", npc.Turns },
            { "error", error }, { "sentences", sentences },
        };
    }
}
