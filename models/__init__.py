"""What a judgement is, and how a judge is made.

Nothing in this package knows a web server, Redis or Prometheus.
"""
