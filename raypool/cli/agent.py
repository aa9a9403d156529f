"""The agent of the command line."""

from __future__ import annotations

from raypool.agent import Agent, AgentStart, SessionOptions


class PromptAgent(Agent):
    """Sends each prompt as it stands: no system prompt but the one it is given."""

    def init_agent(self, start: AgentStart) -> SessionOptions:
        """`agent_options` are `system` and `max_tokens`."""
        return SessionOptions(
            system=start.options["system"], max_tokens=start.options["max_tokens"]
        )
