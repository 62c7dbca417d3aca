"""What the engines for speech and transcriptions share.

fields         which fields of a request are taken
codec          file formats, in and out
loaded_model   what an engine with a model in this process is, beside its answers
threaded_work  a blocking model off the event loop
listener       a child process that hears one file at a time
listeners      keeps those processes, and ends one whose request is cancelled
model_folder   models that are folders, and the libraries of the extra `audio`
"""
