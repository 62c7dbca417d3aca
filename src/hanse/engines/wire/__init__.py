"""Talking to servers that speak OpenAI's HTTP API; shared by the engines `llama` and `upstream`.

http       requests, answers, and errors mapped to ours
sse        payloads out of a stream's bytes
envelope   the fields that count, of a frame or an answer
renaming   our id and model name in its bytes
metering   a stream turned into chunks, with what each owes
"""
