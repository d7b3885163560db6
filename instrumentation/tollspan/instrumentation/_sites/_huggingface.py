"""huggingface_hub's InferenceClient: chat in OpenAI's shape, and tasks whose addresses do not tell what they are."""

from collections.abc import Iterator

from tollspan.instrumentation._readers import Reader
from tollspan.instrumentation._readers._huggingface import HF_EMBEDDINGS, HF_GENERATION, HF_IMAGES, HF_TASKS
from tollspan.instrumentation._sites._site import CallSite

_MODULE = "huggingface_hub.inference._client"
_ASYNC_MODULE = "huggingface_hub.inference._generated._async_client"
_MEDIA = ("text_to_speech", "automatic_speech_recognition", "text_to_video", "image_to_text", "audio_to_audio")
_TEXTS = ("summarization", "translation", "text_classification", "token_classification", "question_answering")


def _both(method: str, reader: Reader | None = None) -> Iterator[CallSite]:
    yield CallSite("huggingface_hub", _SINCE, _MODULE, f"InferenceClient.{method}", "sends", reader, vendor=_VENDOR)
    owner = f"AsyncInferenceClient.{method}"
    yield CallSite("huggingface_hub", _SINCE, _ASYNC_MODULE, owner, "async sends", reader, vendor=_VENDOR)


_SINCE, _VENDOR = "0.30", "huggingface"

HUGGINGFACE: tuple[CallSite, ...] = (
    *_both("chat_completion"),
    *_both("text_generation", HF_GENERATION),
    *_both("feature_extraction", HF_EMBEDDINGS),
    *_both("sentence_similarity", HF_TASKS),
    *_both("text_to_image", HF_IMAGES),
    *_both("image_to_image", HF_IMAGES),
    *(row for method in (*_MEDIA, *_TEXTS, "zero_shot_classification") for row in _both(method, HF_TASKS)),
)
