"""What `hanse audit` and `hanse observe` ask and show; `hanse.auditor` does the work.

model_options     the model that is run, as options name it
overviews         the commands report, draw and calibrate
calibration_runs  a calibration planned, made and told
purchases         one purchase of this home, with its trace and books
showing           judgements, broken promises and reruns in words
watch_command     the command watch; watch_running opens what it works with
observe           the command observe
places            where a home keeps what its own audits work with
"""
