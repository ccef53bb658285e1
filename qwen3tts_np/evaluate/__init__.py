"""How good speech is: what a recogniser hears, whose voice it is, how it sounds; with intervals and comparisons."""
