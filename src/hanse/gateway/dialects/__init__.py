"""Other APIs than OpenAI's chat completions, spoken over the chat completion that is bought.

An application asks in its dialect, a chat completion is bought from a provider, and what comes is
told in the dialect again. The voucher buys the translated body, and the receipt's hash covers the
provider's chat completion, not the bytes that the application sees.

fields     reading a body: what is taken, ignored, or refused by name
chat       what the bought chat completion says, piece by piece, whole or streamed
dialect    what a dialect is: a body, its translation, the shape of its errors
relay      sending a translated answer
messages_request, messages_answer     Anthropic's Messages API
responses_items, responses_request, responses_answer   OpenAI's Responses API, stateless

Source: docs/decisions/0026-dialects-and-audio.md, docs/gateway/api.md.
"""
