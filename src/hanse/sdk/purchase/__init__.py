"""Buying answers: the user's half of the paid request path.

ask        what a body asks for
buyer      choose, sign, send, count
answer     bytes handed through, receipt at the end
checking   is a receipt true?
refusals   what a broker's error means for the voucher
funding    what may still be committed to each provider
resume     what became of requests whose end is unknown
"""
