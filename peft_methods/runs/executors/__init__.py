"""Where runs happen: processes on devices."""
