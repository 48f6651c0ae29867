"""Evidence that takes minutes to hours. The suite runs a quick part of it; `README.md` says how to run the rest."""
