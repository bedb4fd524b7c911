"""Continue a text, then stream the answer to a question: python examples/generate.py DIR"""

import sys

import rockledge


def main(directory: str) -> None:
    """Both forms of `Model.generate`."""
    with rockledge.Model.load(directory) as model:
        print(model.generate("The capital of France is", max_tokens=8))
        question = [{"role": "user", "content": "What does a gateway do? Answer in one sentence."}]
        for text in model.generate(question, max_tokens=64, temperature=0.7, seed=1, stream=True):
            print(text, end="", flush=True)
        print()


if __name__ == "__main__":
    main(sys.argv[1])
