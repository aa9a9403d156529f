"""What is said on stderr when a run has ended."""

from __future__ import annotations

from pathlib import Path

from raypool.cli.figures import count, dollars, duration
from raypool.cli.lines import BAD_ROW
from raypool.cli.tally import Tally

REASONS_SHOWN = 5
EXAMPLE_WIDTH = 200


def summary(tally: Tally, output: str, failed_rows: Path | None = None) -> list[str]:
    """The lines that say what was done, what it took, and where the results are."""
    lines = [_rows(tally), *failures(tally)]
    if tally.skipped:
        lines.append(f"  {count(tally.skipped, 'row')} left out by the mapper")
    if tally.cut:
        lines.append(
            f"  {count(tally.cut, 'answer')} cut short by max_tokens; "
            "--max-tokens N allows longer ones (with another output)"
        )
    if tally.answered:
        lines.append(f"  tokens: {_tokens(tally)}; cost: {cost(tally)}")
    if tally.maybe_billed:
        lines.append(
            f"  {count(tally.maybe_billed, 'turn')} that a crash cut short may have been billed "
            "beside that; asked again"
        )
    if tally.failed > tally.reasons[BAD_ROW]:
        lines.append("  --retry-failed asks the failed rows again")
    if failed_rows is not None and tally.failed:
        lines.append(f"  failed rows: {failed_rows}")
    return [*lines, f"  results: {output}"]


def failures(tally: Tally) -> list[str]:
    """Each type of error with its number and its first case; the rarest are left out."""
    return [
        f"  {number:,} × {kind}, first {_in_short(tally.example[kind])}"
        for kind, number in tally.reasons.most_common(REASONS_SHOWN)
    ]


def cost(tally: Tally) -> str:
    """What the answers cost; an unknown price is never counted as nothing."""
    if tally.unpriced == 0:
        return dollars(tally.cost_usd)
    if tally.unpriced == tally.answered:
        return "unknown (no price for this model)"
    return f"{dollars(tally.cost_usd)} and {count(tally.unpriced, 'answer')} of unknown price"


def _in_short(text: str) -> str:
    line, _, more = text.partition("\n")
    is_cut = bool(more) or len(line) > EXAMPLE_WIDTH
    return line[:EXAMPLE_WIDTH] + " …" * is_cut


def _rows(tally: Tally) -> str:
    earlier = f" ({tally.earlier:,} of them by an earlier run)" if tally.earlier else ""
    return (
        f"raypool: {tally.done - tally.failed:,} answered, {tally.failed:,} failed{earlier}, "
        f"in {duration(tally.seconds)}"
    )


def _tokens(tally: Tally) -> str:
    usage = tally.usage
    read = usage.total_tokens - usage.output_tokens
    return f"{read:,} in, {usage.output_tokens:,} out"
