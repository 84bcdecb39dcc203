"""The frozen backbone of a run: its blocks, the features it gives, and the cache of those."""
