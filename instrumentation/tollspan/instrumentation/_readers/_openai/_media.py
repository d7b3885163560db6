"""OpenAI's images, audio and videos: billed by the piece, the second, the character, or by tokens of their own."""

from tollspan.instrumentation._readers._facts import Reader
from tollspan.instrumentation._readers._openai._audio import OPENAI_SPEECH, OPENAI_TRANSCRIPTIONS
from tollspan.instrumentation._readers._openai._images import OPENAI_IMAGES
from tollspan.instrumentation._readers._openai._videos import OPENAI_VIDEOS

OPENAI_MEDIA: tuple[Reader, ...] = (OPENAI_IMAGES, OPENAI_SPEECH, OPENAI_TRANSCRIPTIONS, OPENAI_VIDEOS)
