"""Conversations: messages, chat templates, and which tokens are trained."""
