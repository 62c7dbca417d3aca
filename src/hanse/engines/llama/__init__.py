"""What the engine `llama` is made of, beside its model's file.

process    keeps the server's process running
server     the program in that process
turns      who may ask the server next
requests   what it is asked where its API and OpenAI's differ
choices    several answers to one request
assembly   a whole answer out of a stream's frames
"""
