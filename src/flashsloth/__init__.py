"""FlashSloth: small vision-language models that answer at once."""
