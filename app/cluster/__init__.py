"""The local cluster: engines, replicas, workers and Nginx as supervised processes (`./cargoflow up`)."""
