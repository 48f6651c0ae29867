"""Something happens at every line and every instruction of the library; a run for each."""
