"""The bundled model's making: text generators, tokenizer, training and evaluation.

Knows how `quire/bundled/` came to be; the serving engine never imports it.
"""
