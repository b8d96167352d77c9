"""A judge that shares no rule with the pairs trained on, and how often it is right."""
