"""OpenAI's API, as OpenAI and the many servers compatible with it speak it."""
