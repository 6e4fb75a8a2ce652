"""Profiles: the tags, stops and texts of families of checkpoints, one file each. ``search_r1`` is the default."""
