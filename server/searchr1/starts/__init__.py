"""Starts: demonstrations that teach a pretrained model the form of searching, made of questions and real passages.

``searchr1 data demonstrations`` writes them, ``searchr1 train sft`` learns them. See docs/guides/starts.md.
"""
