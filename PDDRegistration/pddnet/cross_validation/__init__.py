"""Cross-validation of registration methods: `pddnet benchmark`. Pairs, scores, statistics, tables, and what is kept."""
