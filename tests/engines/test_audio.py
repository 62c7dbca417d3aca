"""The engines `hibari` and `whisper` with their real models: what one says, the other hears."""

import asyncio
import io
import json
import struct
import threading
import time
import wave

import pytest
import pytest_asyncio

from hanse.engines import EngineRequest, Operation, open_engine
from hanse.engines.audio.fields import SPEECH_CHARS_MAX
from hanse.engines.audio.threaded_work import ThreadedWork
from hanse.engines.hibari_engine import HibariEngine
from hanse.engines.whisper_engine import WhisperEngine
from hanse.protocol.errors import RequestError, TransientError
from hanse.protocol.messages import FinishReason, Usage

pytestmark = pytest.mark.asyncio(loop_scope="session")

TEXT = "The harbour is quiet tonight."


def make_speech(**fields: object) -> EngineRequest:
    body = {"model": "hibari", "voice": "heart", "input": TEXT, **fields}
    return EngineRequest(operation=Operation.SPEECH, body=body, answer_id="x")


def make_transcription(file: bytes | None, **fields: object) -> EngineRequest:
    body = {"model": "whisper-tiny", "file": file, **fields}
    return EngineRequest(operation=Operation.TRANSCRIPTION, body=body, answer_id="x")


def make_silence(seconds: float) -> bytes:
    buffer = io.BytesIO()
    with wave.open(buffer, "wb") as file:
        file.setparams((1, 2, 8_000, 0, "NONE", ""))
        file.writeframes(b"\0\0" * int(8_000 * seconds))
    return buffer.getvalue()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def voice():
    engine = open_engine("hibari", {})
    assert isinstance(engine, HibariEngine)
    await engine.start()
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def ear():
    engine = open_engine("whisper", {"threads": 2, "seconds_max": 20})
    assert isinstance(engine, WhisperEngine)
    await engine.start()
    yield engine
    await engine.close()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def speech(voice) -> bytes:
    return (await voice.answer(make_speech())).body


async def test_what_is_said_is_heard(ear, speech):
    answer = await ear.answer(make_transcription(speech))
    said = json.loads(answer.body)
    assert said["text"].lower().startswith("the harb")
    assert said["text"].lower().endswith("is quiet tonight.")
    assert said["usage"] == {"type": "duration", "seconds": 3}
    assert answer.usage == Usage(input_tokens=3)
    assert answer.finish_reason is FinishReason.STOP


@pytest.mark.parametrize(
    ("wanted", "mark"),
    [("mp3", b"ID3"), ("opus", b"OggS"), ("aac", b"\xff"), ("flac", b"fLaC"), ("wav", b"RIFF")],
)
async def test_speech_in_every_format_counts_its_characters(voice, wanted, mark):
    answer = await voice.answer(make_speech(input="Hi.", response_format=wanted))
    assert answer.body.startswith(mark)
    assert answer.usage == Usage(input_tokens=3)


async def test_the_same_text_is_the_same_audio_and_speed_shortens_it(voice):
    first, second, fast = [
        (await voice.answer(make_speech(response_format="pcm", speed=speed))).body
        for speed in (1, 1, 2)
    ]
    assert first == second
    assert len(fast) < 0.7 * len(first)


async def test_plain_and_verbose_transcriptions(ear, speech):
    plain = await ear.answer(make_transcription(speech, response_format="text", language="en"))
    assert plain.body.endswith(b"tonight.\n")
    verbose = await ear.answer(make_transcription(speech, response_format="verbose_json"))
    told = json.loads(verbose.body)
    assert told["language"] == "en"
    assert 1.5 < told["duration"] < 3
    assert told["segments"][0]["text"].endswith("tonight.")
    assert plain.usage == verbose.usage == Usage(input_tokens=3)


@pytest.mark.parametrize(
    ("fields", "param", "code"),
    [
        ({"voice": "alloy"}, "voice", "unsupported_parameter"),
        ({"speed": 3}, "speed", "unsupported_parameter"),
        ({"instructions": "cheerful"}, "instructions", "unsupported_parameter"),
        ({"stream_format": "sse"}, "stream_format", "invalid_request"),
        ({"response_format": "midi"}, "response_format", "invalid_request"),
        ({"input": ""}, "input", "invalid_request"),
        ({"input": "x" * (SPEECH_CHARS_MAX + 1)}, "input", "invalid_request"),
        ({"input": "9" * SPEECH_CHARS_MAX}, "input", "invalid_request"),
        ({"input": 7}, "input", "invalid_request"),
        ({"voice": None}, "voice", "invalid_request"),
    ],
)
async def test_speech_is_refused_by_name(voice, fields, param, code):
    with pytest.raises(RequestError) as caught:
        await voice.answer(make_speech(**fields))
    assert (caught.value.code, caught.value.param) == (code, param)


HUGE_WAV = b"RIFF\xff\xff\xff\xffWAVEfmt " + struct.pack("<IHHIIHH", 16, 1, 1, 8_000, 8_000, 1, 8)
PLAYLIST = b"#EXTM3U\n#EXTINF:1,\nfile:///etc/hostname\n"


@pytest.mark.parametrize(
    ("file", "fields", "param", "code"),
    [
        (None, {}, "file", "invalid_request"),
        (b"", {}, "file", "invalid_request"),
        (PLAYLIST, {}, "file", "invalid_request"),
        (b"not audio at all", {}, "file", "invalid_request"),
        (b"RIFF" + b"\xff" * 100, {}, "file", "invalid_request"),
        (HUGE_WAV, {}, "file", "invalid_request"),
        (make_silence(21), {}, "file", "context_length_exceeded"),
        (make_silence(1), {"language": "de"}, "language", "unsupported_parameter"),
        (make_silence(1), {"temperature": "7"}, "temperature", "invalid_request"),
        (make_silence(1), {"response_format": "srt"}, "response_format", "invalid_request"),
        (make_silence(1), {"stream": "true"}, "stream", "unsupported_parameter"),
        (make_silence(1), {"diarize": "true"}, "diarize", "unsupported_parameter"),
    ],
)  # fmt: skip
async def test_a_transcription_is_refused_by_name(ear, file, fields, param, code):
    with pytest.raises(RequestError) as caught:
        await ear.answer(make_transcription(file, **fields))
    assert (caught.value.code, caught.value.param) == (code, param)


async def test_the_models_are_described_by_their_files(voice, ear):
    for engine, name in ((voice, "hibari.onnx"), (ear, "model.bin")):
        files = {file.name: file for file in (await engine.describe_model()).files}
        assert files[name].size_bytes > 7_000_000
        assert len(files[name].sha256) == 64


async def test_neither_streams_nor_answers_before_it_runs(voice):
    with pytest.raises(RequestError):
        await anext(voice.stream(make_speech()))
    for name, request in (("hibari", make_speech()), ("whisper", make_transcription(b"RIFF"))):
        engine = open_engine(name, {})
        assert not await engine.healthy()
        with pytest.raises(TransientError):
            await engine.answer(request)


async def test_work_that_is_cancelled_stops_before_its_next_step():
    work, steps, begun = ThreadedWork(1), [], threading.Event()

    def count():
        for step in range(1_000):
            steps.append(step)
            begun.set()
            time.sleep(0.002)  # a step of a model that blocks
            yield step

    running = asyncio.create_task(work.collect(count))
    assert await asyncio.to_thread(begun.wait, 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    async with asyncio.timeout(1.0):
        assert await work.collect(lambda: [1]) == [1]  # its only place is free again
    assert len(steps) < 500
