"""Makes the examples run without a key: `import offline` before anything else.

Where OPENAI_API_KEY is not set, a server in this process answers in OpenAI's wire format; what it says is made up. So
that its made-up spend reaches no ledger of yours, the ledger is then one in memory, unless TOLLSPAN_LEDGER names one.
"""

import os

if not os.environ.get("OPENAI_API_KEY"):
    from tollspan.console import LocalProvider

    os.environ["OPENAI_API_KEY"] = "local"
    os.environ["OPENAI_BASE_URL"] = LocalProvider(delay_s=0.02).start().openai_url
    os.environ.setdefault("TOLLSPAN_LEDGER", "sqlite:///:memory:")
