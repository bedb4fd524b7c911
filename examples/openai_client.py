"""Talk to `rockledge serve DIR` with the official client: python examples/openai_client.py [BASE_URL]"""

import sys

from openai import OpenAI
from openai.types.chat import ChatCompletionMessageParam


def main(base_url: str) -> None:
    """Streams one answer from the model that is served there."""
    client = OpenAI(base_url=base_url, api_key="none")
    model = client.models.list().data[0].id
    messages: list[ChatCompletionMessageParam] = [
        {"role": "system", "content": "Answer in one sentence."},
        {"role": "user", "content": "What does a gateway do?"},
    ]
    stream = client.chat.completions.create(model=model, messages=messages, max_tokens=64, stream=True)
    for chunk in stream:
        print(chunk.choices[0].delta.content or "", end="", flush=True)
    print()


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "http://127.0.0.1:8000/v1")
