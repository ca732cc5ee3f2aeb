"""Time of a run, from the operations of its steps and the rates of a device."""
