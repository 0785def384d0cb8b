"""From the user's files to batches: annotations, clips, frames, augmentation, the torch dataset.

Only `dataset.py` imports torch, so that checks and decoding start fast.
"""
