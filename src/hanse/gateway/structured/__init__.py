"""Answers that fit a JSON schema: judged before they are delivered.

schema      a schema of a stranger's, made into a validator that cannot be used as a weapon
demand      what one request asks for: schema, default, what happens after a wrong answer
contents    the texts inside answers, and answers of the gateway's own making
validated   buy, judge, once more, then the declared default
buying      the one call that joins it to the paid path
checked     a stream that is delivered as it comes and judged at its end

Source: docs/gateway/structured.md, docs/decisions/0027-structured-answers.md.
"""
