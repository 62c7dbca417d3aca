"""What a provider keeps of its commitments, to open them to whoever bought the answers.

opening_book   durable, bounded, deleted after the audit window
kept_form      how an opening is stored: under 16 bytes a token
"""
