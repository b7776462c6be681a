"""How Sluiceway is run: on a laptop, on Kubernetes, with its dashboards and rules."""
