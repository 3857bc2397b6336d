"""The grader: drives any group chat, disturbs it, and says what held and what did not."""
