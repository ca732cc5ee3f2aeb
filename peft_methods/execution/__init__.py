"""Where cells run: `local` gives each a fresh process on this machine."""
