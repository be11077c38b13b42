"""`make bench`: what is measured, beside what, and how docs/benchmarks.md is made of it."""
