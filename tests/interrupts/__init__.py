"""What strikes from outside, at every instruction, and in a storm of real signals."""
