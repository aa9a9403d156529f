"""What a turn consumed, in tokens."""

from __future__ import annotations

import msgspec


class Usage(msgspec.Struct, frozen=True, array_like=True):
    """Tokens of one turn or of many.

    The whole input is `input_tokens + cache_read_tokens + cache_write_tokens`.

    Attributes:
        input_tokens: input read at full price.
        output_tokens: output generated.
        cache_read_tokens: input found in the provider's prompt cache.
        cache_write_tokens: input written to the provider's prompt cache.
    """

    input_tokens: int = 0
    output_tokens: int = 0
    cache_read_tokens: int = 0
    cache_write_tokens: int = 0

    def __add__(self, other: Usage) -> Usage:
        return Usage(
            self.input_tokens + other.input_tokens,
            self.output_tokens + other.output_tokens,
            self.cache_read_tokens + other.cache_read_tokens,
            self.cache_write_tokens + other.cache_write_tokens,
        )

    @property
    def total_tokens(self) -> int:
        """Every token, in and out."""
        return (
            self.input_tokens
            + self.output_tokens
            + self.cache_read_tokens
            + self.cache_write_tokens
        )
