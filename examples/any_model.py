"""Any library's model is an async function: `python examples/any_model.py`."""

from types import SimpleNamespace
from typing import Any

from raypool import Pool, Response, SessionOptions
from raypool.backends import Backend, FunctionBackend
from raypool.task import Content
from raypool.usage import Usage

QUESTIONS = ["Name a river.", "Name a mountain."]


async def complete(*, model: str, messages: list[dict[str, Any]], max_tokens: int) -> Any:
    """Stands in for `litellm.acompletion`, or `AsyncOpenAI().chat.completions.create`."""
    words = f"{model} was asked: {messages[-1]['content']}".split()[:max_tokens]
    choice = SimpleNamespace(message=SimpleNamespace(content=" ".join(words)))
    usage = SimpleNamespace(prompt_tokens=len(str(messages)) // 4, completion_tokens=len(words))
    return SimpleNamespace(choices=[choice], usage=usage, model=model)


async def answer(prompt: Content, options: SessionOptions) -> Response:
    messages = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    completion = await complete(
        model=options.model or "a-model",
        messages=[{"role": "system", "content": options.system}, *messages],
        max_tokens=options.max_tokens,
    )
    return Response(
        text=completion.choices[0].message.content,
        usage=Usage(completion.usage.prompt_tokens, completion.usage.completion_tokens),
        model=completion.model,
    )


def main(backend: Backend) -> None:
    with Pool.start(2, role="geographer", backend=backend) as pool:
        for result in pool.map(QUESTIONS):
            print(f"{result.text} ({result.usage.output_tokens} tokens)")


if __name__ == "__main__":
    main(FunctionBackend(answer))
