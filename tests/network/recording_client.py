"""An application in a process of its own, to be killed. Run by test_kills.

    python -m tests.network.recording_client BASE_URL MODEL FILE PROMPT < api-key

An unmodified OpenAI client: says "ready" once it is loaded, waits for a line on standard input,
streams one answer and appends every word to FILE as it comes.
"""

import sys

from openai import OpenAI


def main() -> None:
    base_url, model, path, prompt = sys.argv[1:]
    client = OpenAI(base_url=base_url, api_key=sys.stdin.readline().strip(), max_retries=0)
    print("ready", flush=True)
    sys.stdin.readline()
    with open(path, "a", buffering=1) as file:
        stream = client.chat.completions.create(
            model=model,
            messages=[{"role": "user", "content": prompt}],
            max_tokens=16,
            stream=True,
        )
        for chunk in stream:
            if chunk.choices and chunk.choices[0].delta.content:
                file.write(chunk.choices[0].delta.content.strip() + "\n")


if __name__ == "__main__":
    main()
