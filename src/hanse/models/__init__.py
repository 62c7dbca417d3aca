"""Model files: what they are, whether they are whole, and how to make smaller ones of them.

`importing` reads a GGUF or safetensors model that came from outside into a manifest, or refuses it
with the reason; `verifying` holds files against a manifest; `inspecting` and `comparing` show;
`quantising` makes smaller files and `measuring` says what that cost.

Readers of files here are our own (`gguf_header`, `safetensors_header`): a file from a stranger is
read within limits, with nothing but the standard library. numpy, gguf and cyllama (the extra
`models`) are imported only where weights are read, written or run.
"""
