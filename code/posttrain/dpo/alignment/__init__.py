"""Stage 2 measured: a judge that shares no rule with the pairs trained on."""
