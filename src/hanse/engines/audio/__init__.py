"""What the engines for speech and transcriptions share.

fields         which fields of a request are taken
codec          file formats, in and out
loaded_model   what an engine with a model in this process is, beside its answers
threaded_work  a blocking model off the event loop
model_folder   models that are folders, and the libraries of the extra `audio`
"""
