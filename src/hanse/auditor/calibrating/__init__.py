"""Honest noise between a serving and an auditing runtime, and the thresholds it justifies.

prompts   honest questions of several kinds
serving   answers to them by an engine, with what a broker would keep
noise     both put together: answers rescored, a sample, a calibration out of it
"""
