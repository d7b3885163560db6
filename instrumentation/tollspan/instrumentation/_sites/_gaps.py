"""What the table of call sites leaves out, and why: `tollspan doctor` and the reference of SDKs show it."""

from dataclasses import dataclass
from typing import Literal

Extent = Literal["not seen", "seen without usage", "not tested"]
"""`not seen`: no event, no span, no budget. `seen without usage`: a call, but nobody tells what it has used.
`not tested`: covered as far as its documentation tells, and never run."""


@dataclass(frozen=True, slots=True)
class Gap:
    """A surface of an SDK; `sdk` is the distribution's name, `reason` one sentence for people."""

    sdk: str
    surface: str
    extent: Extent
    reason: str


GAPS: tuple[Gap, ...] = (
    Gap(
        "openai",
        "beta.assistants, beta.threads",
        "not seen",
        "OpenAI has shut the Assistants API down on 26 August 2026: its endpoints answer 404.",
    ),
    Gap("openai", "realtime.translations", "not seen", "No event of a translation session tells what it has used."),
    Gap(
        "openai",
        "realtime and live by WebRTC and SIP",
        "not seen",
        "Sound goes from a browser or a telephone to OpenAI, past this process; a connection of `realtime` with a "
        "`call_id` sees its responses.",
    ),
    Gap(
        "dashscope",
        "MultiModalDialog, TingWuRealtime",
        "seen without usage",
        "Their events tell no usage: each is a call without a price.",
    ),
    Gap(
        "dashscope",
        "Assistants, Threads, Runs",
        "not seen",
        "Alibaba Cloud is about to remove them, and tells their usage in runs that are polled.",
    ),
    Gap(
        "google-genai",
        "aio.live.music",
        "seen without usage",
        "Lyria's sessions tell no usage: each is a call without a price.",
    ),
    Gap(
        "google-genai",
        "models.generate_videos that fail",
        "seen without usage",
        "The seconds are those of the request: an operation that fails, which Google does not bill, is not taken back.",
    ),
    Gap(
        "aws-sdk-bedrock-runtime",
        "invoke_model_with_bidirectional_stream",
        "not seen",
        "Speech of Nova Sonic goes over HTTP/2 by an SDK of its own, of which boto3 has nothing.",
    ),
    Gap(
        "google-cloud-aiplatform",
        "all that goes by gRPC",
        "not seen",
        "google-genai has taken the place of its generative models; of gRPC, xai-sdk's alone is seen.",
    ),
    *(
        Gap(sdk, "speech", "not seen", "Billed by plan, minute or character, at an API that no reader knows yet.")
        for sdk in ("assemblyai", "azure-cognitiveservices-speech", "cartesia", "deepgram-sdk", "elevenlabs")
    ),
)
