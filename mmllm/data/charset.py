"""The characters that text lines are read in.

Class 0 of the line reader's CTC head is the blank; class i is CHARSET[i - 1].
"""

CHARSET = "".join(map(chr, range(0x20, 0x7F)))
