"""Words and their meanings: names of emoji in many languages, nouns with their glosses."""
