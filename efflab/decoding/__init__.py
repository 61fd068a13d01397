"""One token at a time: what is kept, how little of it, and how many tokens a pass can give."""
