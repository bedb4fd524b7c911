"""What a decoder is: family declarations, configuration, checkpoint readers, tokenizer and chat template."""
