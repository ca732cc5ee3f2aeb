"""Methods that train virtual tokens, which the frozen model reads beside those of the text."""
