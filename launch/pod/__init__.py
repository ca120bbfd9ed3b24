"""Trainings on Cloud TPU from a laptop; the command is launch/tpu_pod.py."""
