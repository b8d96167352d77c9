"""Stage 2 measured: a judge of preferences that shares no rule with the pairs trained on."""
