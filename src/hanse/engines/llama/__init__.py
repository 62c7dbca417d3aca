"""What the engine `llama` is made of, beside its model's file.

process    keeps the server's process running
server     the program in that process
requests   what it is asked where its API and OpenAI's differ
assembly   a whole answer out of a stream's frames
"""
