"""Text prototypes: the captions that pictures are compared with, and the sentence teacher."""
