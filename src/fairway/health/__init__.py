"""Health: probes, their conditions, and a checker that runs them all at once.

The platform feeds the checker: `HealthChecker.watch(Check(...))` for every instance, `forget` when it ends,
`run(ctx)` beside everything else; deploys call `probe` themselves.
"""
