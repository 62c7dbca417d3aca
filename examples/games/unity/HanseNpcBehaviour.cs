// A character in a scene: put it on an object, fill in the fields, call Say or React from your game.
// Everything happens on Unity's main thread: await comes back to it.
using System.Threading;
using Hanse;
using UnityEngine;
using UnityEngine.Events;

public class HanseNpcBehaviour : MonoBehaviour
{
    [SerializeField] string gatewayUrl = "http://127.0.0.1:8440/v1";
    [SerializeField] string model = "smollm2-135m-instruct";
    [SerializeField, TextArea] string persona = "You are Berta, who keeps the north gate. You are curt and fair.";
    [SerializeField] string[] actions = { "open_gate", "ask_for_toll", "call_guards", "wait" };
    [SerializeField] UnityEvent<string> onSentence = new UnityEvent<string>();
    [SerializeField] UnityEvent<string> onAction = new UnityEvent<string>();
    [SerializeField] UnityEvent<string> onTrouble = new UnityEvent<string>();

    HanseNpc npc;
    readonly CancellationTokenSource leaving = new CancellationTokenSource();

    /// <summary>Begin with the short-lived key that your game server minted for this player.</summary>
    public void Meet(string key, string player)
    {
        var fallback = new HanseMove { Action = "wait", Say = "Hm. Come back later." };
        npc = new HanseNpc(gatewayUrl, key, model, player + "/" + name, persona, actions, fallback);
    }

    public async void Say(string text)
    {
        ShowTrouble(await npc.Speak(text, onSentence.Invoke, leaving.Token));
    }

    public async void React(string situation)
    {
        HanseMove move = await npc.Choose(situation, leaving.Token);
        onAction.Invoke(move.Action);
        onSentence.Invoke(move.Say);
        ShowTrouble(move);
    }

    void ShowTrouble(HanseMove end)
    {
        if (end.Error == null) return;
        string wait = end.Error.RetryAfterS > 0 ? $" Try again in {end.Error.RetryAfterS} s." : "";
        onTrouble.Invoke($"{end.Error.Code}: {end.Error.Message}{wait}");
    }

    // the stream ends with the object: the engine stops, and only what was delivered is paid
    void OnDestroy() => leaving.Cancel();
}
