"""Reading chosen frames of one video file, exactly.

`auto` decodes with PyAV, and only what the wanted frames need where the packets prove which frame
is which (`keyframes`); all other files are decoded in order (`container`). `pyav` always decodes
in order. decord and torchcodec are there for those who ask for them (`others`).
`worker.DecodeWorker` runs these functions in a process that can be killed.
"""

from discovla.data.decode.clip import READERS, decode_clip, probe
from discovla.data.decode.request import ClipFrames, DecodeError, Header, Request

__all__ = [
    "READERS",
    "ClipFrames",
    "DecodeError",
    "Header",
    "Request",
    "decode_clip",
    "probe",
]
