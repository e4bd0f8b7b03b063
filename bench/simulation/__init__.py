"""What happens at sizes that nobody here can run: jobs by discrete events, from measured costs and AWS's quotas.

`loop` is the clock, `cloud` the services and their quotas, `job` the way of a job, `runs` one job or many.
``python -m bench.simulation`` prints tables, ``python -m docs.scale`` draws them; `bench.proofs.scale` holds the model
against the local cloud.
"""
