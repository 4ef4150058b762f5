"""Structured output: from the form that was asked for to the tokens that may come next.

    source      the form as a grammar, in the words of llguidance       schema   a JSON schema, looked through before
    vocabulary  every token's bytes, as llguidance takes them           grammar  a grammar, compiled within limits, kept
    matcher     where one answer stands in its grammar                  matchers those of all answers of a step

The library behind it is `llguidance`: Earley's parser over a lexer of derivatives, a mask of the whole vocabulary in
some 50 us.

Knows: grammars and the vocabulary. Does not know: logits, requests, HTTP.
"""
