"""In which region a request is served, where its address tells: some prices differ by region."""

import re
from urllib.parse import urlsplit

# Amazon Bedrock's endpoints, "Bedrock Runtime APIs" and mantle; Vertex AI's regional, multi-regional and global ones;
# OpenAI's hosts of data residency; Alibaba Cloud's Model Studio in Beijing, Singapore, Virginia and elsewhere, where
# each workspace may have a host of its own.
_HOSTS: tuple[tuple[str, str | None], ...] = (
    (r"(?:.*\.)?bedrock-(?:runtime|mantle)(?:-fips)?\.([a-z0-9-]+)\.(?:amazonaws\.com(?:\.cn)?|api\.aws)", None),
    (r"([a-z0-9-]+)-aiplatform\.googleapis\.com", None),
    (r"aiplatform\.([a-z0-9-]+)\.rep\.googleapis\.com", None),
    (r"aiplatform\.googleapis\.com", "global"),
    (r"(eu|us)\.api\.openai\.com", None),
    (r"(?:.*\.)?dashscope\.aliyuncs\.com", "cn"),
    (r"dashscope-(intl|us)\.aliyuncs\.com", None),
    (r"(?:.*\.)?cn-beijing\.maas\.aliyuncs\.com", "cn"),
    (r"(?:.*\.)?ap-southeast-1\.maas\.aliyuncs\.com", "intl"),
    (r"(?:.*\.)?([a-z]{2}-[a-z0-9-]+)\.maas\.aliyuncs\.com", None),
)
_COMPILED = tuple((re.compile(pattern), name) for pattern, name in _HOSTS)


def host_of(base_url: str | None) -> str | None:
    """The host alone: a URL may hold a key."""
    if not base_url:
        return None
    try:
        return urlsplit(base_url if "://" in base_url else f"//{base_url}").hostname
    except ValueError:
        return None


def region_of(host: str | None) -> str | None:
    """The region that a host serves from, in its provider's spelling; None where the host does not tell."""
    for pattern, name in _COMPILED:
        if found := pattern.fullmatch(host or ""):
            return name or found[1]
    return None
