"""boto3 and aiobotocore, as clients of `bedrock-runtime`."""

from tollspan.instrumentation._sites._site import CallSite

BEDROCK: tuple[CallSite, ...] = ()
