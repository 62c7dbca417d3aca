"""What a buyer keeps of its answers until it is known which of them are audited.

kept_answers   the folder: encrypted, bounded, read and emptied by the auditor's process
keeper         takes answers off the path of requests, where the offer commits to them

Source: docs/decisions/0037-own-audits.md.
"""
