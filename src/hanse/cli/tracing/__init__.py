"""What `hanse traces` works with, and the encryption keys and settings of those that write traces.

encryption  a side's encryption key, made on first use
reading     decrypt, prove, write
side        one side's notes, objects and keys, opened for a command
"""
