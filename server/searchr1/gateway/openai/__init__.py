"""What OpenAI's two APIs have in common here: contents of messages, tools, sampling, and what is taken but not used."""
