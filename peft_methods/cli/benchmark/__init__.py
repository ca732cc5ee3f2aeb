"""The benchmark that `peft-methods run` gives to pytest."""
