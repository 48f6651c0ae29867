"""What strikes from outside, at every line and every instruction, and in a storm of real signals."""
