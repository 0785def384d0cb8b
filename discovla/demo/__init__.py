"""The demo world: rendered videos, their captions, and tiny models pretrained on such images.

Everything that only the demo needs lives here. The rest of the project reads what this package
writes (videos, an annotation file, model folders) as it reads real data and real models.
"""
