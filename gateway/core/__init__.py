"""Pure rules: values in, decisions out. No I/O, clock, randomness or logging; standard library only."""
