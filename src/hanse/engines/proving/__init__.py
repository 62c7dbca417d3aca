"""What an engine needs to serve a copy: the proof beside the answer, and nothing of it in it.

A copy's canary rows are the largest raw logits at every position, so that a server which tells the
top logprobs of each token tells the fingerprint too. An engine asks for them, keeps 16 bytes a
token, and gives its caller what it would have without. Another runtime does so in one file with
`CopyInService`; `llama_engine` and `upstream_engine` show how.

copy_in_service   the copy beside a model file; what its requests must say and must not
ledger            token ids and fingerprints, in line with what was metered
frames            the proof out of an OpenAI server's frames, and these without it
logprobs          a caller's own logprobs, as if there were no canaries
prefill_gguf      one forward pass over prompt and answer with llama.cpp (cyllama)
prefill_torch     the same with torch, a second runtime

Why it is done so: `docs/decisions/0031-proof-carrying-engines.md`.
"""
