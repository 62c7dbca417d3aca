"""Audio in and out of its file formats, by FFmpeg's libraries (PyAV).

What a caller uploads is untrusted. Only container formats that hold the audio itself are opened, so
that no playlist can make FFmpeg open a file or an address of its own, and decoding stops at a
limit of seconds, whatever the file claims.
"""

import io
from typing import Any

from hanse.protocol.errors import RequestError

HEARD_RATE_HZ = 16_000
"""What speech models listen to."""

_CONTAINERS = (
    (0, b"RIFF", "wav"),
    (0, b"fLaC", "flac"),
    (0, b"OggS", "ogg"),
    (0, b"ID3", "mp3"),
    (0, b"\xff\xfb", "mp3"),
    (0, b"\xff\xf3", "mp3"),
    (0, b"\xff\xf2", "mp3"),
    (4, b"ftyp", "mov"),
    (0, b"\x1aE\xdf\xa3", "matroska"),
)
"""Where a file's signature stands, what it is, and FFmpeg's name for the format."""

_CODECS = {
    "mp3": ("mp3", "libmp3lame"),
    "opus": ("ogg", "libopus"),
    "aac": ("adts", "aac"),
    "flac": ("flac", "flac"),
    "wav": ("wav", "pcm_s16le"),
}
"""OpenAI's name of a format: FFmpeg's container and codec."""


def decode_audio(file: bytes, seconds_max: int) -> Any:
    """A file's first audio track as float32 samples in -1 .. 1, mono, at `HEARD_RATE_HZ`.

    Raises:
        RequestError: it is no audio that is taken here, or longer than that.
    """
    import av
    import numpy as np

    kind = next((name for at, mark, name in _CONTAINERS if file[at:].startswith(mark)), None)
    if kind is None:
        raise _reject("is not wav, flac, ogg, mp3, mp4, m4a or webm")
    pieces, samples = [], 0
    try:
        with av.open(io.BytesIO(file), format=kind) as container:
            if not container.streams.audio:
                raise _reject("holds no audio")
            resampler = av.AudioResampler(format="s16", layout="mono", rate=HEARD_RATE_HZ)
            for frame in _decode_frames(container):
                for part in resampler.resample(frame):
                    pieces.append(part.to_ndarray().reshape(-1))
                    samples += len(pieces[-1])
                if samples > seconds_max * HEARD_RATE_HZ:
                    raise RequestError(
                        "context_length_exceeded",
                        f"file holds more than the {seconds_max} seconds that are taken here.",
                        param="file",
                    )
    except (av.FFmpegError, ValueError) as error:
        raise _reject(f"cannot be decoded ({type(error).__name__})") from error
    if not samples:
        raise _reject("holds no sound")
    return np.concatenate(pieces).astype(np.float32) / 32_768.0


def encode_audio(samples: Any, rate_hz: int, wanted: str) -> bytes:
    """Float32 samples in -1 .. 1, mono, as one of OpenAI's formats."""
    import av
    import numpy as np

    whole = (np.clip(samples, -1.0, 1.0) * 32_767).astype("<i2")
    if wanted == "pcm":
        return bytes(whole.tobytes())
    kind, codec = _CODECS[wanted]
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=kind) as container:
        stream: Any = container.add_stream(codec, rate=rate_hz, layout="mono")
        frame = av.AudioFrame.from_ndarray(whole.reshape(1, -1), format="s16", layout="mono")
        frame.sample_rate = rate_hz
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=stream.rate, frame_size=stream.frame_size
        )
        for part in (*resampler.resample(frame), *resampler.resample(None), None):
            for packet in stream.encode(part):
                container.mux(packet)
    return buffer.getvalue()


def _decode_frames(container: Any) -> Any:
    """Frames up to the end; a last one that is cut off counts as the end."""
    import av

    frames = container.decode(audio=0)
    while True:
        try:
            yield next(frames)
        except (StopIteration, av.EOFError):
            return


def _reject(why: str) -> RequestError:
    return RequestError("invalid_request", f"file {why}.", param="file")
