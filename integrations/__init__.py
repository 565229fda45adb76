"""Scorers at work in other people's tools: rewards, trainers, metrics, and choosing the best of n.

Each module stands for itself; import what you use from it, as in
``from stablepref.integrations.reward import DifferentiableReward``.
"""
