"""Command-line options, the end of a pytest session, and the commands."""
