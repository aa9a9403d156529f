"""Whether a turn may be sent now: plain and fast, with a clock and without Ray."""
